"""Whether torch.compile can be measured here."""

import shutil

from benchmarks.harness import Bench


def why_none(bench: Bench) -> str | None:
    """Why compiled networks are left out; None where they are measured."""
    if bench.on_gpu:
        return None
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return "torch.compile needs a C++ compiler, and there is none here"
    return None if bench.full else "torch.compile takes minutes on a CPU: --full measures it"
