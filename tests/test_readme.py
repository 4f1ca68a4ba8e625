"""What the README, the page of commands and --help show works: every command composes."""

import re
import shlex
from pathlib import Path

import pytest

from heatgen.app.options import SearchPath

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [ROOT / "README.md", ROOT / "docs" / "commands.md", *(ROOT / "conf").glob("*.yaml")]
SHOWN = re.compile(r"^ +(?:python |heatgen |\$\{heatgen\.call:)(train|sample|evaluate)(?:\.py|\})?( .*)?$", re.M)


@pytest.mark.slow
def test_the_commands_that_are_shown_compose() -> None:
    commands = {(verb, words.strip()) for text in TEXTS for verb, words in SHOWN.findall(text.read_text())}
    assert len(commands) > 30
    for verb, words in sorted(commands):
        shown = shlex.split(re.split(r"\s{2,}", words)[0], comments=True)
        overrides = [word.split(",")[0] if "[" not in word else word for word in shown if "=" in word]
        assert SearchPath().load(verb, overrides), words
