"""What the README and --help show works: every command composes, and the map that they add is the one that is shipped."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from heatgen.forward import constant_velocity
from heatgen.forward.levels import uniform
from heatgen.forward.process import ObservedProcess

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [ROOT / "README.md", *(ROOT / "conf").glob("*.yaml")]
COMMANDS = sorted(
    {line for text in TEXTS for line in re.findall(r"^ +(python (?:train|sample|evaluate)\.py.*)$", text.read_text(), re.M)}
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_shown_composes(command: str) -> None:
    words = shlex.split(re.split(r"\s{2,}", command)[0], comments=True)
    overrides = [word.split(",")[0] if "[" not in word else word for word in words[2:] if "=" in word]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        compose(words[1].removesuffix(".py"), overrides)


def test_the_map_of_the_readme_is_the_one_that_is_shipped() -> None:
    (code,) = re.findall(r"```python\n(# src/heatgen/forward/.*?)```", (ROOT / "README.md").read_text(), re.S)
    scope = {"ObservedProcess": ObservedProcess, "uniform": uniform}
    exec(code, scope)
    shown, shipped = scope["ConstantVelocity"]((1, 4, 6)), constant_velocity.ConstantVelocity((1, 4, 6))
    shown.validate()
    u0 = torch.rand(3, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.0, 0.3, 1.0])
    assert torch.equal(shown.mean(u0, t), shipped.mean(u0, t)) and torch.equal(shown.std(t), shipped.std(t))
