"""The published table holds each measurement once, with its errors and its command."""

import json
import sys
from pathlib import Path

import pytest

from heatgen.check import ConfigError
from heatgen.report import publish
from heatgen.runtime import directory
from heatgen.runtime.explain import entry

HEAD = "time,run,mode,param_name,param_value,facts,metric,value,standard_error,unit,label,command\n"
ROW = "1,a/b,elbo,delta,0.01,n: 3,nll,8.0,0.5,nats,NLL,python evaluate.py\n"


def test_a_table_has_one_row_a_measurement_and_the_newest_of_equal_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(time: str, value: float, command: str) -> dict:
        head = {"time": time, "run": "a/b", "mode": "elbo", "param_name": "delta", "param_value": 0.01, "facts": "n: 3"}
        return head | {
            "metric": "nll",
            "value": value,
            "standard_error": 0.5,
            "unit": "nats",
            "label": "NLL",
            "command": command,
        }

    rows = [
        row("1", 7.0, "python evaluate.py"),
        row("2", 8.0, "python evaluate.py"),
        row("1", 9.0, "python evaluate.py n=3"),
    ]
    directory.append_results(str(tmp_path), "trial", rows)
    monkeypatch.setattr(sys, "argv", ["publish", "trial", "--runs-dir", str(tmp_path), "--folder", str(tmp_path / "docs")])
    publish.main()
    data = json.loads((tmp_path / "docs" / "trial.json").read_text())
    assert [(r["nll"], r["nll_se"], r["delta"]) for r in data] == [(8.0, 0.5, "0.01"), (9.0, 0.5, "0.01")]
    text = (tmp_path / "docs" / "trial.md").read_text()
    assert "| run | delta | NLL [nats] |" in text and "| a/b | 0.01 | 8.00 ± 0.5 |" in text
    assert "`python evaluate.py n=3` (n: 3)" in text
    latex = (tmp_path / "docs" / "trial.tex").read_text().splitlines()
    assert latex[0] == "% elbo" and r"run & delta & NLL [nats] \\" in latex and r"a/b & $0.01$ & $8.00 \pm 0.5$ \\" in latex
    assert (tmp_path / "docs" / "trial.csv").read_text().startswith("time,run,mode,facts,command,delta,nll,nll_se\n")


def test_results_that_are_not_there_get_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["publish", "nothing", "--runs-dir", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        entry(publish.main)
    assert stop.value.code == 1
    assert "measure with experiment_name=nothing first" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n1,2\n",
        "time,run,mode,facts,command,metric,value\nx,y\n",
        "\x00\x00\x00\n\x00",
        "\udcff\udcfe",
        'a,"' + "x" * 200000,
        "",
        HEAD,
        HEAD + ROW[:20],
        HEAD + ROW[:-1],
        HEAD + ROW + ROW[:30] + "\n",
        HEAD + ROW[:-1] + ",more\n",
    ],
)
def test_a_table_that_is_none_or_is_cut_off_is_named(tmp_path, content):
    path = tmp_path / "trial.csv"
    path.write_text(HEAD + ROW)
    assert publish.measurements(path)[0][0]["nll"] == 8
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(ConfigError, match=r"trial\.csv (cannot be read|is no whole row|has no results|is cut off)"):
        publish.measurements(path)


@pytest.mark.parametrize("words", [["../x"], ["/tmp/x"], ["trial", "../../x"], ["trial", "a/b"]])
def test_a_table_stays_in_its_folder(words, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["publish", *words, "--runs-dir", str(tmp_path)])
    with pytest.raises(ConfigError, match="must be a name"):
        publish.main()
