"""Every paper is a yaml of at most 15 lines, and trains and samples on any data."""

from pathlib import Path

import pytest
import torch
from conftest import call

from heatgen.app.build import build
from heatgen.app.compose import compose
from heatgen.app.options import options_of
from heatgen.check import ConfigError
from heatgen.noise import SampleNoise

ROOT = Path(__file__).resolve().parents[1]
PAPERS = options_of("experiment/paper")
TINY = [
    *("data.recommended.unet.model_channels=4", "data.recommended.unet.norm_groups=2", "data.recommended.num_levels=20"),
    *("trainer.accelerator=cpu", "trainer.max_steps=2", "callback.pictures.every=0"),
]
# these measure data, pair images and noises, hide the noise, and have other targets
BY_COMMAND = ("equal_snr", "ot_flow_matching", "pfgmpp", "pure_deblurring")


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_is_built_learns_and_samples(name: str) -> None:
    model, data = build(compose(f"experiment=paper/{name}", "data=digits", *TINY), prepare=True)
    model.prepare(data)
    u0 = torch.stack([data.get("train", [i])[0] for i in range(4)])
    assert model.loss({"u0": u0}, SampleNoise(range(4), 0)).isfinite().all()
    model.calibrate(data)
    state = model.generate(torch.zeros(2, *model.process.shape), None)
    assert state.isfinite().all() and state.shape == (2, 1, 8, 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_COMMAND)
def test_a_paper_trains_and_samples_by_its_command(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert call("train", f"experiment=paper/{name}", "data=digits", *TINY, f"hydra.run.dir={folder}") == 0
    assert call("sample", f"run={folder}", "n=2", "trainer.accelerator=cpu") == 0
    samples = torch.load(next(folder.glob("samples/*/samples.pt")), weights_only=True)["samples"]
    assert samples.isfinite().all() and samples.shape == (2, 1, 8, 8)


def test_papers_are_short_and_have_a_row_on_the_page_of_methods() -> None:
    page = (ROOT / "docs" / "methods.md").read_text()
    for name in PAPERS:
        assert len((ROOT / "conf" / "experiment" / "paper" / f"{name}.yaml").read_text().splitlines()) <= 15
        assert f"| `paper/{name}` |" in page, name
    for path in (ROOT / "conf" / "forward").glob("[!_]*.yaml"):
        assert len(path.read_text().splitlines()) <= 20, path


def test_a_choice_in_a_folder_of_a_group_is_checked() -> None:
    for wrong, hint in (("paper/emd", "did you mean paper/edm"), ("papr/edm", "heat_kernel")):
        with pytest.raises(ConfigError, match=f"experiment={wrong} is not an option.*{hint}"):
            compose(f"experiment={wrong}")
