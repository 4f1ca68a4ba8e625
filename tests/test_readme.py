"""What the README and --help show works: every command composes, and the map that they add is the one that is shipped."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from heatgen.app.options import SearchPath
from heatgen.forward import constant_velocity
from heatgen.forward.levels import uniform
from heatgen.forward.process import ObservedProcess

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [ROOT / "README.md", *(ROOT / "conf").glob("*.yaml")]
SHOWN = re.compile(r"^ +(?:python |heatgen |\$\{heatgen\.call:)(train|sample|evaluate)(?:\.py|\})?( .*)?$", re.M)


@pytest.mark.slow
def test_the_commands_that_are_shown_compose() -> None:
    commands = {(verb, words.strip()) for text in TEXTS for verb, words in SHOWN.findall(text.read_text())}
    assert len(commands) > 30
    for verb, words in sorted(commands):
        shown = shlex.split(re.split(r"\s{2,}", words)[0], comments=True)
        overrides = [word.split(",")[0] if "[" not in word else word for word in shown if "=" in word]
        assert SearchPath().load(verb, overrides), words


def test_the_map_of_the_readme_is_the_one_that_is_shipped() -> None:
    (code,) = re.findall(r"```python\n(# src/heatgen/forward/.*?)```", (ROOT / "README.md").read_text(), re.S)
    scope = {"ObservedProcess": ObservedProcess, "uniform": uniform}
    exec(code, scope)
    shown, shipped = scope["ConstantVelocity"]((1, 4, 6)), constant_velocity.ConstantVelocity((1, 4, 6))
    shown.validate()
    u0 = torch.rand(3, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.0, 0.3, 1.0])
    assert torch.equal(shown.mean(u0, t), shipped.mean(u0, t)) and torch.equal(shown.std(t), shipped.std(t))
