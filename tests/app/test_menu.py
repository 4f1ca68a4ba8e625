"""What --help tells of groups, options and keys is what their yamls say."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from heatgen.app import menu
from heatgen.app.mistakes import diagnose
from heatgen.app.options import CONF, SearchPath, check_choices, dotted, elsewhere, options_of
from heatgen.check import ConfigError


def test_every_group_and_key_of_a_verb_is_told() -> None:
    for verb in ("train", "sample", "evaluate", "pack"):
        primary = OmegaConf.load(CONF / f"{verb}.yaml")
        keys = [key for key in dotted(primary) if key.split(".")[0] not in ("defaults", "hydra")]
        told = [name.partition("=")[0] for name, _ in menu.keys_in(menu.primary(verb))]
        assert [key for key in keys if key not in told] == []
        assert all(len(line.split("  ")) > 1 for line in menu.groups(verb).splitlines())


def test_an_option_is_told_with_its_keys_and_those_that_it_inherits() -> None:
    text = menu.about("sampler=heun", "train")
    assert text.startswith("sampler=heun: the probability flow of a denoiser, second order\n")
    assert "  sampler.steps  " in text and "  sampler.rho=7.0  " in text and "  sampler.churn=0.0  " in text
    own = menu.about("data=grf", "train")
    assert own.count("  data.augment  ") == 1  # which it says otherwise than its base
    assert "  metric.reference=train  " in menu.about("mode=fid", "evaluate")
    assert "  forward.colour.exponent=-0.05\n" in menu.about("forward/colour=power", "train")


def test_a_group_is_told_with_the_folders_within_it_and_how_each_is_chosen() -> None:
    text = menu.about("experiment", "train")
    for choose in ("experiment=NAME", "experiment/reconstruction=NAME", "experiment=paper/NAME"):
        assert f"Choose with {choose}:" in text
    assert "Choose with forward/colour=NAME:" in menu.about("forward", "train")
    loader = SearchPath().loader()
    assert all(menu.description("data", name, loader) for name in options_of("data", loader))


@pytest.mark.parametrize(
    ("word", "sentence"),
    [("dta", "dta is not a group; did you mean data?"), ("data=dgits", "data=dgits is not an option; did you mean digits?")],
)
def test_what_is_not_there_gets_one_sentence(word: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        menu.about(word, "train")
    assert str(refused.value).startswith(sentence)


def test_long_text_goes_on_below_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = menu.rows([("key", "some words that do not fit into one line"), ("a_name_that_is_long", "what")], 10)
    first = ["  key       some words that do not fit", "            into one line"]
    assert lines == [*first, "  a_name_that_is_long", "            what"]


def test_an_option_of_another_folder_is_named() -> None:
    loader = SearchPath().loader()
    assert elsewhere("experiment", "edm", loader) == "; did you mean experiment=paper/edm?"
    assert elsewhere("forward", "haar", loader) == "; did you mean forward/basis=haar?"
    assert elsewhere("forward", "heet", loader) == ""
    with pytest.raises(ConfigError, match=r"^experiment=edm is not .*mean experiment=paper/edm\?$"):
        check_choices({"experiment": "edm"})  # of an optional group, which Hydra passes over


def test_an_argument_without_a_key_and_one_in_capitals_are_told_what_was_meant(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    path = SearchPath(str(CONF), None)
    assert diagnose("evaluate", ["fid"], path) == "fid has no key; did you mean mode=fid?"
    assert diagnose("train", ["heat_kernel"], path) == (
        "heat_kernel has no key; did you mean forward=heat_kernel or experiment=heat_kernel?"
    )
    assert diagnose("sample", [str(tmp_path)], path) == f"{tmp_path} has no key; did you mean run={tmp_path}?"
    assert str(diagnose("train", ["model"], path)).startswith("model has no value; write model=VALUE")
    assert str(diagnose("evaluate", ["mode=FID"], path)).startswith("mode=FID is not an option; did you mean fid?")
