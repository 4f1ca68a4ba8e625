"""What a run says of its own choices, and the page that every command refreshes."""

import json
from pathlib import Path

import pytest
from conftest import call


def chosen(run: Path) -> dict:
    return json.loads((run / "choices.json").read_text())


def test_a_run_says_its_options_and_what_differs_from_their_defaults(small_run: Path) -> None:
    choices = chosen(small_run)
    options, differs = choices["options"], choices["differs"]
    assert {group: options[group] for group in ("model", "forward", "data", "net", "sampler")} == {
        **{"model": "ihd", "forward": "heat", "data": "digits", "net": "unet", "sampler": "ancestral"},
    }
    assert differs["trainer.max_steps"] == ["1200", "12"] and differs["net.dropout"] == ["0.0", "0.2"]
    assert differs["net.model_channels"] == ["32", "8"]  # by way of data.recommended
    assert not {"forward.sigma", "net.padding", "name", "runs_dir"} & set(differs)


@pytest.mark.slow
def test_a_page_follows_what_is_trained_drawn_and_measured(own_run: Path) -> None:
    page = own_run / "report.html"
    assert "after 12 steps" in page.read_text() and "forward_2" not in page.read_text()
    assert call("sample", f"run={own_run}", "n=2") == 0
    assert "delta_0.0125_seed_0" in page.read_text()
    assert call("evaluate", f"run={own_run}", "mode=forward") == 0
    assert "evaluation/forward_2" in page.read_text()
    assert call("train", f"resume={own_run}", "trainer.max_steps=16") == 0
    assert "after 16 steps" in page.read_text()
    assert chosen(own_run)["differs"]["trainer.max_steps"] == ["1200", "16"]
    assert chosen(own_run)["options"]["forward"] == "heat"


@pytest.mark.slow
def test_a_run_of_before_choices_were_kept_gets_none_that_are_not_its_own(own_run: Path) -> None:
    (own_run / "choices.json").unlink()
    assert call("train", f"resume={own_run}", "trainer.max_steps=16") == 0
    assert not (own_run / "choices.json").exists() and "This run does not say" in (own_run / "report.html").read_text()


@pytest.mark.slow
def test_a_page_that_cannot_be_written_costs_a_command_nothing(own_run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (own_run / "metrics.csv").write_text("step,loss\nnine,1\n")
    assert call("sample", f"run={own_run}", "n=2") == 0
    out, err = capfd.readouterr()
    (line,) = [line for line in (out + err).splitlines() if "report.html" in line]
    assert line.startswith("Note: ") and "metrics.csv cannot be read" in line
