"""The benchmarks: what they compute is right, every one of them is found, and the guard refuses in one sentence."""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import scipy.fft
import torch

from benchmarks import cost, guard, original, suite
from benchmarks.floors import FLOAT32, Floors, Work
from benchmarks.gpu import __main__ as gpu_command
from benchmarks.gpu import carry, parts
from benchmarks.harness import Bench, Entry, Growth, Note, Row, as_json, exponent, interleave, of_json, row_of
from benchmarks.report import cells, markdown
from heatgen import compose
from heatgen.check import ConfigError
from heatgen.forward.heat import Heat
from heatgen.net.unet import UNet

CPU = torch.device("cpu")
FLOORS = Floors(1e9, {FLOAT32: 1e10}, 1e-6)


def test_the_transforms_of_the_original_are_those_of_scipy_and_its_blur_is_ours() -> None:
    for n in (7, 8, 28):
        u = torch.rand(2, 1, n, n, dtype=torch.float64)
        expected = torch.from_numpy(scipy.fft.dctn(u.numpy(), axes=(2, 3), norm="ortho"))
        assert torch.allclose(original.dct_2d(u), expected, atol=1e-12)
        assert torch.allclose(original.idct_2d(expected), u, atol=1e-12)
    heat, k, u = Heat((1, 28, 28), num_levels=50, sigma_max=20), torch.tensor([0, 1, 50]), torch.rand(3, 1, 28, 28)
    assert torch.allclose(original.Blur(28, 50, 20.0)(u, k).float(), heat.mean(u, heat.times[k]), atol=1e-5)


def test_the_network_of_the_original_has_as_many_weights_as_ours() -> None:
    with torch.device("meta"):
        theirs = original.UNet(1, 128, (1, 2, 2), 4, (2,), 0.1)
    ours = UNet((1, 28, 28), 32, (1, 2, 2), 4, (2,), 0.1)
    own = original.UNet(1, 32, (1, 2, 2), 4, (2,), 0.1)
    assert sum(p.numel() for p in theirs.parameters()) == 42_082_049  # that of its published MNIST setting
    assert sum(p.numel() for p in own.parameters()) == sum(p.numel() for p in ours.parameters())


def test_its_training_lowers_the_loss() -> None:
    torch.manual_seed(0)
    net = original.UNet(1, 8, (1, 2), 1, (), 0.0, 4)
    step = original.Training(net, original.Blur(8, 10, 6.0), torch.rand(8, 1, 8, 8), rate=1e-3, warmup=1)
    losses = [step() for _ in range(40)]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert not torch.equal(step.averages.shadows[0], step.parameters[0])


def test_functions_run_in_turn_and_the_ratio_is_that_of_each_round() -> None:
    called, now = [], [0.0]

    def function(name: str, seconds: float) -> object:
        called.append(name)
        now[0] += seconds
        return None

    ways = {"a": lambda: function("a", 0.1), "b": lambda: function("b", 0.3)}
    times = interleave(ways, CPU, 0.0, 4, lambda: now[0])
    assert called[4:] == ["a", "b", "b", "a", "a", "b", "b", "a"]
    row = row_of("x", "y", "a", "b", times["a"], times["b"], FLOORS.of(Work(flops=1e8)))
    assert row.ratio == pytest.approx(3) and row.low == pytest.approx(3) and row.rounds == 4
    assert row.floor == pytest.approx(10) and row.bound == "operations" and "10 % (operations)" in cells(row)


def test_an_exponent_is_that_of_a_power_and_an_entry_survives_json() -> None:
    slope, error = exponent([(x, 3 * x**1.5) for x in (1.0, 4.0, 9.0)])
    assert slope == pytest.approx(1.5) and error == pytest.approx(0, abs=1e-9)
    assert math.isnan(exponent([(1.0, 1.0)])[0])
    row = row_of("b", "n", "a", "c", [1.0, 2.0], [2.0, 2.0])
    for entry in (row, Growth("b", "n", "K", ((1.0, 2.0), (2.0, 4.0))), Note("b", "n", "none")):
        assert of_json(json.loads(json.dumps(as_json(entry)))) == entry
    assert FLOORS.of(Work(bytes=1e9))[1] == "bytes"


def test_every_case_is_found_by_its_file_and_says_how_long_it_takes() -> None:
    assert set(suite.FIRST) <= set(suite.names())
    modules = [suite.module_of(name) for name in suite.names()]
    assert all(module.SECONDS > 0 and callable(module.measure) and module.__doc__ for module in modules)
    assert sum(module.SECONDS for module in modules) <= 21 * 60
    with pytest.raises(ConfigError, match="--only"):
        suite.module_of("nothing")


def test_what_is_measured_is_kept_by_name_and_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []

    def measure(bench: Bench) -> Iterator[Entry]:
        runs.append("x")
        yield from bench.compare("toy", "sum", {"a": lambda: 1, "b": lambda: 2}, "b")
        yield Growth("toy", "sum", "n", ((1.0, 1.0), (2.0, 2.0)))

    monkeypatch.setattr(suite, "module_of", lambda name: SimpleNamespace(SECONDS=1, measure=measure))
    bench = Bench(CPU, FLOORS, quick=True)
    for again, count in ((False, 1), (False, 1), (True, 2)):
        suite.Suite(bench, tmp_path, "page", "the command", again).run(["toy"])
        assert len(runs) == count
    page = (tmp_path / "page.md").read_text()
    assert "the command" in page and "| sum | a | b |" in page and (tmp_path / "page.png").exists()
    kinds = [row["kind"] for row in json.loads((tmp_path / "page.json").read_text())]
    assert kinds == ["machine", "row", "growth"]
    assert markdown("t", "c", {}, {}).startswith("# t")


def test_the_guard_names_a_ratio_that_is_too_low_twice_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([2.0, 0.69, 0.71, 0.1, 0.2])

    def measured(bench: Bench) -> Row:
        return Row("guard", "it", "ours", "the other", 1, 1, next(found), 1, 1, 5)

    monkeypatch.setattr(guard, "RATIOS", dict.fromkeys(("first", "second", "third"), measured))
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    said: list[str] = []
    with pytest.raises(ConfigError, match=r"^third \(ours beside the other\) is 0.20, .* budget 1 in .*budget.json"):
        guard.guard(Bench(CPU, FLOORS), {"first": 1.0, "second": 1.0, "third": 1.0}, said.append)
    assert [line.split(":")[0] for line in said] == ["first", "second", "second", "third", "third"]


def test_the_budget_is_of_the_ratios_that_are_measured() -> None:
    assert set(guard.budget()) == set(guard.RATIOS) and all(value > 0 for value in guard.budget().values())


def test_a_queue_is_carried_in_pieces_and_a_lost_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carry, "PIECE", 4096)
    state, files, other = tmp_path / "state", tmp_path / "carry", tmp_path / "other"
    content = {"runs/a/last.ckpt": 50, "runs/b/last.ckpt": 1, "runs/b/metrics.csv": 1, "runs/note": 1, "runs/a/x.png": 1}
    for name, times in content.items():
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_bytes(bytes(range(256)) * times)
    carry.pack(state, files, lambda name: name == "b")
    assert len(list(files.glob("queue.a0*"))) > 2 and carry.unpack(files, other)
    there = {str(path.relative_to(other)): path.read_bytes() for path in other.rglob("*") if path.is_file()}
    assert there == {name: (state / name).read_bytes() for name in ("runs/a/last.ckpt", "runs/b/metrics.csv", "runs/note")}
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(carry, "write_text", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        carry.pack(state, files, lambda name: False)
    assert carry.unpack(files, tmp_path / "third")  # what was packed before
    (files / "queue.a001").unlink()
    with pytest.raises(ConfigError, match="bring them all"):
        carry.unpack(files, tmp_path / "fourth")
    carry.pack(state, files, lambda name: False)
    assert carry.unpack(files, tmp_path / "fifth") and not list(files.glob("queue.a*"))


@pytest.mark.slow
def test_a_benchmark_of_real_steps_gives_rows(tmp_path: Path) -> None:
    own = suite.Suite(replace(Bench(CPU, FLOORS), quick=True), tmp_path, "page", "c")
    own.run(["noise"])
    rows = [entry for entry in own.found["noise"] if isinstance(entry, Row)]
    assert len(rows) == 3 and all(row.ratio > 0 and row.floor for row in rows)


def test_tests_that_were_cut_off_are_told_by_their_lines(tmp_path: Path) -> None:
    lines = (
        "[gw0] [ 20%] PASSED tests/cuda/test_cuda.py::test_a[one two] ",
        "tests/cuda/test_cuda.py::test_b FAILED                    [ 40%]",
        "tests/cuda/test_cuda.py::test_c SKIPPED (needs a GPU)     [ 60%]",
        "FAILED tests/cuda/test_cuda.py::test_b - AssertionError: assert False",
        "tests/cuda/test_cuda.py::test_d ",
    )
    (tmp_path / "tests.log").write_text("\n".join(lines))
    found = parts.test_results(parts.Way("cpu", True, tmp_path))
    assert (found["tests"], found["passed"]) == (4, 1)
    assert found["failed"] == ["tests/cuda/test_cuda.py::test_b AssertionError: assert False"]
    assert found["skipped"] == ["tests/cuda/test_cuda.py::test_c"] and found["not ended"] == [
        "tests/cuda/test_cuda.py::test_d"
    ]


def test_a_part_that_cannot_even_begin_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(way: parts.Way, seconds: float) -> list[str]:
        raise ImportError("no scikit-learn")

    sleeps = "import time; print('begun', flush=True); time.sleep(60)"
    own = (
        parts.Part("broken", 30, broken, lambda way: {}),
        parts.Part("slow", 1, lambda way, seconds: [sys.executable, "-c", sleeps], lambda way: {"rows": [][1]}),
        parts.Part("quick", 30, lambda way, seconds: [sys.executable, "-c", ""], lambda way: {"steps": 3}),
    )
    monkeypatch.setattr(gpu_command, "PARTS", own)
    monkeypatch.setattr(gpu_command, "ENDING", 1)
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--work", str(tmp_path / "w"), "--out", str(tmp_path)])
    gpu_command.main()
    found = json.loads((tmp_path / "gpu.json").read_text())[1]
    assert found["broken"]["ended"] == "ImportError: no scikit-learn"
    assert found["slow"]["ended"] == "its time was over" and "begun" in found["slow"]["said"]
    assert "IndexError" in found["slow"]["nothing to read"] and found["quick"]["steps"] == 3
    assert "## broken" in (tmp_path / "gpu.md").read_text()


def test_a_setting_that_nobody_timed_costs_as_much_as_its_operations_say(tmp_path: Path) -> None:
    row = {"kind": "row", "benchmark": "steps", "name": "small, batch 2, training", "value": 40.0, "other_value": 20.0}
    quick = {**row, "value": 1.0, "other_value": 1.0}
    for name, content in {
        "cpu.json": [{"kind": "machine", "device": "X"}, row],
        "gpu.json": [{"kind": "machine", "card": "Y"}, {"table": {"rows": [{"kind": "machine", "device": "X"}, row]}}],
        "quick.json": [{"kind": "machine", "device": "X", "quick": True}, quick],
        "cut.json": [{"kind": "machine", "card": "Y"}, {"table": {"ended": "its time was over"}}],
    }.items():
        (tmp_path / name).write_text(json.dumps(content))
        expected = ("X", {"small": 0.01}) if name in ("cpu.json", "gpu.json") else None
        assert cost.timed(tmp_path / name) == expected
    wanted = [cost.Setting("small", 1000, 8, 1e9), cost.Setting("large", 86400, 100, 4e9)]
    small, large = cost.rows(wanted, {"small": 0.01})
    assert small[4:] == ["80 ms", "80 s", "measured"]
    assert large[4:] == ["4 s", "4 days", "estimate, as fast as small"]


@pytest.mark.slow
def test_the_operations_of_a_published_network_are_counted_without_it() -> None:
    assert cost.flops(compose("experiment=ihd_mnist")) == pytest.approx(43.1e9, rel=0.01)
    assert cost.flops(compose("experiment=smdp_released")) > 0
