"""The rows of experiment=neural_processes are compared at one size."""

from pathlib import Path

from heatgen.app.build import build
from heatgen.app.compose import compose

ROWS = Path(__file__).parents[2] / "conf" / "experiment" / "neural_processes"


def test_all_rows_of_the_neural_processes_have_as_many_weights():
    sizes = {}
    for row in sorted(path.stem for path in ROWS.glob("*.yaml")):
        model, _ = build(compose("experiment=neural_processes", f"experiment/neural_processes={row}"))
        sizes[row] = sum(weight.numel() for weight in model.net.parameters())
    assert len(sizes) == 9 and all(abs(size - 228_000) < 2_280 for size in sizes.values()), sizes
