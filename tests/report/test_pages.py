"""Pages of runs: what they hold, that they need nothing else, and what becomes of files that are damaged or hostile."""

import json
import logging
import os
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from page_toys import FILM, make_run, measure, picture
from PIL import Image

from heatgen.app import cli, pages
from heatgen.check import ConfigError
from heatgen.picture import save_gif
from heatgen.report import site
from heatgen.report.films import film
from heatgen.report.gallery import write_gallery
from heatgen.report.run_page import write_report
from heatgen.report.story import Story, thinned
from heatgen.runtime.files import shown

EVIL = "</script><img src=x onerror=alert(1)>"


class Parser(HTMLParser):
    """Keeps the elements of a page, its addresses, its text, and its data."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text, self.inside = "", [""]
        self.data: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.text += " "
        self.addresses += [value for key, value in attributes if key in ("src", "href", "action", "srcset", "poster")]
        self.inside.append(tag)
        assert not [key for key, _ in attributes if key.startswith("on")], tag

    def handle_endtag(self, tag):
        self.inside.append("")

    def handle_data(self, data):
        if self.inside[-1] in ("script", "style"):
            self.data[self.inside[-1]] = self.data.get(self.inside[-1], "") + data
        else:
            self.text += data


def test_of_many_numbers_a_page_shows_the_headline_first_and_the_training_stands_last(tmp_path):
    run = make_run(tmp_path)
    many = {f"value_{i}": float(i) for i in range(20)}
    measure(run, "suite", many, references={"exact": many}, notes=["metric.draws = 3 are few."])
    text = write_report(run).read_text()
    measured = text[text.index('id="measured"') : text.index('id="files"')]
    first, rest = measured[measured.index("<h3>suite") :].split("<details>")[:2]
    assert first.count("<tr>") == 2 and rest.startswith("<summary>All 20 numbers") and rest.count("<tr>") == 21
    assert "<details><summary>Known: exact" in measured and "metric.draws = 3 are few." in measured
    assert measured.index("<h3>suite") < measured.index("<h3>training") > measured.index("<h3>fid")


def test_a_page_tells_what_was_run_and_what_was_found(tmp_path):
    page = Parser(write_report(make_run(tmp_path, forward="kinematics")).read_text())
    words = " ".join(page.text.split())
    for told in (
        *("seed=0 trainer.max_steps=8", "trainer.max_steps 1200 8", "forward=kinematics", "12.50 ± 0.25", "Few images."),
        *("after 4 steps", "after 8 steps", "lower is better", "heatgen 0.2.0", f"level 0 of {FILM}", "config.yaml"),
    ):
        assert told in words, told
    assert page.data["script"].startswith('{"charts": [{"series": [{"label": "training", "points": [[1.0, 1.0], [2.0, 0.5]')


@pytest.mark.parametrize("gallery", [False, True])
def test_a_page_needs_nothing_else_and_links_only_to_its_folder(tmp_path, gallery):
    run = make_run(tmp_path)
    path = write_gallery(tmp_path)[0] if gallery else write_report(run)
    page = Parser(path.read_text())
    assert all(re.match(r"data:|#|\./", address) for address in page.addresses)
    links = [address for address in page.addresses if address.startswith("./")]
    assert links and all((path.parent / link).is_file() for link in links)
    assert "url(" not in page.data["style"] and "@import" not in page.data["style"]
    assert "http" not in page.data["script"].replace("http://www.w3.org/2000/svg", "")


def test_what_a_stranger_wrote_is_text(tmp_path):
    run = make_run(tmp_path, model=EVIL.replace("/", "∕"))
    by_name = {"labels": {"kid": EVIL}, "units": {"kid": EVIL}, "facts": {EVIL: EVIL}}
    measure(run, "kid", {"kid": 1.0}, notes=[EVIL], variant=EVIL, **by_name)
    (run / "overrides.txt").write_text(f"'name={EVIL}'\n")
    (run / "env.txt").write_text(f"started {EVIL}\n{EVIL} {EVIL}\n")
    (run / "metrics.csv").write_text(f'step,"{EVIL}"\n1,2\n')
    (run / "javascript:alert(1)").write_text("")
    (run / "<b>").write_text("")
    for path in (write_report(run), write_gallery(tmp_path)[0]):
        page = Parser(path.read_text())
        assert page.tags.count("script") == 2 and EVIL in page.text
        assert not [address for address in page.addresses if not re.match(r"data:|#|\./", address)]


DAMAGES = {
    "config.yaml": b"name: [",
    "choices.json": b'{"options": 3}',
    "overrides.txt": b"'open",
    "env.txt": b"\xff\xfe",
    "metrics.csv": b"step,loss\nnine,x\n",
    "evaluation/fid_2026-01-01_12-00-00.json": b'{"mode": "fid"',
    "evaluation/fid_2026-01-01_12-00-00.png": b"\x89PNG\r\n\x1a\n...",
    "samples/step_000004.png": b"",
    "samples/process.gif": b"GIF89a\x00",
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_costs_its_own_page_alone(tmp_path, name, caplog):
    whole, run = make_run(tmp_path, "whole"), make_run(tmp_path, "torn")
    (run / name).write_bytes(DAMAGES[name])
    with pytest.raises(ConfigError, match=re.escape(str(run / name))):
        write_report(run)
    caplog.set_level(logging.INFO, "heatgen")
    pages.refresh(run)  # at the end of a command that has done its work
    (record,) = caplog.records
    assert record.levelname == "WARNING" and record.message.startswith(f"Note: {run / 'report.html'} is not written: ")
    index, count, wrong = write_gallery(tmp_path)
    assert count == 2 and [str(place) for place in wrong] == ["torn"] and (whole / "report.html").is_file()
    assert "Damaged" in index.read_text() and 'href="./whole/report.html"' in index.read_text()


def test_a_pipe_and_an_error_of_ours_cost_a_command_nothing(tmp_path, monkeypatch, caplog):
    run = make_run(tmp_path)
    (run / "samples" / "step_000008.png").unlink()
    os.mkfifo(run / "samples" / "step_000008.png")
    pages.refresh(run)
    monkeypatch.setattr(pages, "write_report", lambda _: 1 / 0)
    pages.refresh(run)
    assert [("no file" in record.message, "ZeroDivisionError" in record.message) for record in caplog.records] == [
        (True, False),
        (False, True),
    ]


def test_the_page_stands_in_one_block_with_what_else_is_written(tmp_path, monkeypatch, caplog):
    run = make_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, "heatgen")
    pages.tell([(run / "a.json", "numbers"), (run / "a.json", "numbers")], run)
    pages.tell([], None)  # a data set's, of which nothing is written
    first, second = caplog.records[0].message.split("\n")
    assert len(caplog.records) == 1 and first.split() == ["written:", shown(run / "a.json"), "numbers"]
    assert second.startswith(f"         {shown(run / 'report.html')}  ")


def test_a_page_is_written_again_where_something_is_newer(tmp_path):
    run = make_run(tmp_path)
    first = write_report(run).stat().st_mtime_ns
    assert write_report(run).stat().st_mtime_ns == first
    measure(run, "elbo", {"nll": 3.5})
    assert write_report(run).stat().st_mtime_ns != first and "elbo" in (run / "report.html").read_text()


def test_a_gallery_finds_runs_however_deep_and_no_page_of_others_is_lost(tmp_path):
    for name in ("a", "sweeps/x/1-b", "sweeps/x/.hydra", "debug/c"):
        make_run(tmp_path, name)
    index, count, wrong = write_gallery(tmp_path)
    assert (count, wrong) == (2, {}) and "sweeps/x/1-b/report.html" in index.read_text()
    write_gallery(tmp_path)  # over its own
    index.write_text("<html>mine</html>")
    with pytest.raises(ConfigError, match=r"index\.html was not written by heatgen; move it"):
        write_gallery(tmp_path)
    assert index.read_text() == "<html>mine</html>"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="There is no run in"):
        write_gallery(tmp_path / "empty")


def test_the_command_writes_both_and_says_what_is_damaged(tmp_path, monkeypatch, capsys):
    good, bad = make_run(tmp_path, "good"), make_run(tmp_path, "bad")
    (bad / "metrics.csv").write_bytes(b"\xff")
    monkeypatch.setattr(sys, "argv", ["heatgen", "report", str(good), str(tmp_path)])
    cli.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"written: {good / 'report.html'}", f"written: {tmp_path / 'index.html'}, a gallery of 2 runs"]
    assert lines[2].startswith("damaged: bad: ") and len(lines) == 3
    monkeypatch.setattr(sys, "argv", ["heatgen report", str(tmp_path / "none")])
    with pytest.raises(ConfigError, match="is not a folder"):
        site.main()


def test_frames_of_a_way_back_are_named_by_what_is_left_also_where_states_are_equal(tmp_path):
    path = tmp_path / "process.gif"

    def save(*values):
        save_gif(path, [picture(np.full((8, 8), value)) for value in values])
        with Image.open(path) as gif:
            return gif.n_frames

    assert save(0, 0, 0, 0.5, 1, 1) == 3  # a GIF keeps those that differ
    assert film(path, 5, levels=True).labels == ["level 5 of 5", "level 2 of 5", "level 1 of 5"]
    assert film(path, 5).labels[-1] == "1 of 5 steps left"
    assert film(path, 99).labels == ["frame 1 of 3", "frame 2 of 3", "frame 3 of 3"]  # of another way
    assert save(*np.linspace(0, 1, 35)) == 35  # of 102 steps the first state is kept, and every third
    assert film(path, 102).labels == [f"{left} of 102 steps left" for left in (102, *range(99, -1, -3))]
    assert save(*np.linspace(0, 1, 200)) == 200
    labels = film(path).labels
    assert len(labels) == 61 and labels[0] == "frame 1 of 200" and labels[-1] == "frame 200 of 200"


def test_a_curve_is_thinned_to_means(tmp_path):
    assert thinned([(float(i), float(i % 2)) for i in range(8)], 4) == [(0.5, 0.5), (2.5, 0.5), (4.5, 0.5), (6.5, 0.5)]
    assert thinned([(1.0, 2.0)], 4) == [(1.0, 2.0)] and thinned([], 4) == []
    run = make_run(tmp_path)
    assert Story.of(run).curves["val/loss"] == [(4.0, 0.5), (8.0, 0.5)]  # behind as many optimizer steps


def test_a_run_that_does_not_say_its_options_is_known_by_its_classes(tmp_path):
    run = make_run(tmp_path, model="diffusion", forward="composed")
    (run / "choices.json").unlink()
    story = Story.of(run)
    assert [story.option(group) for group in ("model", "forward", "data")] == ["diffusion", "composed", "digits"]
    assert "This run does not say" in write_report(run).read_text()
    (run / "choices.json").write_text(json.dumps({"options": {"model": "edm"}, "differs": None}))
    assert Story.of(run).option("model") == "edm" and Story.of(run).differs is None


@pytest.mark.slow
def test_sixty_runs_of_large_pictures_make_a_gallery_of_moderate_size(tmp_path):
    for i in range(60):
        run = make_run(tmp_path, f"{i}-run")
        noise = np.random.default_rng(i).integers(0, 255, (400, 400, 3), np.uint8)  # which nothing compresses
        Image.fromarray(noise).save(run / "samples" / "step_000008.png")
    index, count, _ = write_gallery(tmp_path)
    assert count == 60 and index.stat().st_size < 10e6
