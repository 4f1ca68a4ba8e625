"""Whether torch.compile can be measured here."""

from benchmarks.harness import Bench
from heatgen.runtime import engine


def why_none(bench: Bench) -> str | None:
    """Why compiled networks are left out; None where they are measured."""
    if lack := engine.lacking(bench.device):
        return f"torch.compile cannot act, as {lack}"
    return None if bench.full or bench.on_gpu else "torch.compile takes minutes on a CPU: --full measures it"
