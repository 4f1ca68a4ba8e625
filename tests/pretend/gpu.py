"""A pretend GPU: tensors that say cuda:0 and compute on the CPU, with real numbers, so that any code runs as it would there.

    with Gpu() as gpu:
        model.to("cuda")  # .to, module.to and factories with device="cuda" give pretend tensors
        ...
    gpu.waits()  # {(kind, operation, file:line function): times} that the host would have stood still

Two devices in one operation are refused in PyTorch's own words, wherever a GPU refuses them: a CPU tensor of no dimensions
may meet a GPU tensor in elementwise operations, and a CPU index may index a GPU tensor, which copies it; nothing else.

A wait is a read of a value (.item(), bool(), .tolist(), ...), a copy to the host, a copy to the GPU that is blocking or of
memory that is not pinned, an operation whose result has a shape that depends on data (boolean masks, nonzero, unique, ...),
and a decomposition that looks at its own success. The batch that Lightning moves is none, as a loader pins it where there is
a GPU; nor is .to("cpu", non_blocking=True), which PyTorch copies into pinned memory.

It knows no autocast, no streams, no memory, and not which dtypes a kernel of CUDA takes.
"""

import collections
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

Site = tuple[str, str, str]  # kind, operation, file:line function

CUDA = torch.device("cuda", 0)
COPIES = ("_to_copy", "copy_", "copy")
INDEXING = ("index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put")
READS = ("_local_scalar_dense", "is_nonzero", "equal")
DATA_SHAPED = {
    *("nonzero", "masked_select", "_unique2", "_unique", "unique_dim", "unique_consecutive", "bincount", "histc"),
    *("repeat_interleave", "nonzero_numpy", "linalg_eig", "masked_scatter"),
}
DECOMPOSITIONS = {
    *("_linalg_eigh", "_linalg_svd", "linalg_qr", "_linalg_solve_ex", "_linalg_check_errors", "linalg_lstsq"),
}
ONE_DEVICE = {  # operations that take no CPU scalar either
    *("mm", "bmm", "addmm", "baddbmm", "matmul", "cat", "stack", "index_select", "gather", "scatter", "scatter_add"),
    *("searchsorted", "convolution", "native_group_norm", "embedding", "linear", "dot", "mv", "_cdist_forward", "index_add"),
    *("take_along_dim", "bincount", "isin", "_fft_r2c", "_fft_c2c", "topk", "sort", "cumsum", "masked_scatter", "kthvalue"),
    *("linalg_solve_triangular", "triangular_solve"),
}


class Pretend(torch.Tensor):
    """A tensor of the pretend GPU, around the CPU tensor `host`."""

    host: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> "Pretend":
        with no_dispatch():
            offset = host.storage_offset() if host.numel() else 0
            meta = torch.empty_strided(host.shape, host.stride(), dtype=host.dtype, device="meta")
            if offset:
                memory = torch.empty(offset + len(meta.untyped_storage()) // host.itemsize, dtype=host.dtype, device="meta")
                meta = memory.as_strided(host.shape, host.stride(), offset)
            # a meta tensor with the dispatch keys of CUDA: the autograd engine looks for no thread of a real GPU
            made = torch.Tensor._make_subclass(cls, meta, False, device_for_backend_keys=CUDA)
        made.host = host
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if Gpu.on is None:
            raise RuntimeError("a tensor of the pretend GPU is used outside of `with Gpu()`")
        return Gpu.on.run(func, args, kwargs or {})

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = is_meta = property(lambda self: False)  # type: ignore[assignment]

    def get_device(self) -> int:
        return 0

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor first.")

    __array__ = numpy

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Pretend({self.host!r})"

    def __format__(self, spec: str) -> str:
        return format(self.item() if self.dim() == 0 else repr(self), spec)

    def __reduce_ex__(self, protocol: Any) -> Any:  # in a checkpoint: what map_location="cpu" would make of it
        return self.host.detach().__reduce_ex__(protocol)


class Gpu(TorchDispatchMode):
    """While it is entered, "cuda" is the pretend GPU.

    sites: every wait and every batch that was moved; mismatches: operations on two devices, each of which is refused too.
    """

    on: "Gpu | None" = None

    def __init__(self) -> None:
        super().__init__()
        self.sites: collections.Counter[Site] = collections.Counter()
        self.mismatches: collections.Counter[Site] = collections.Counter()

    def waits(self) -> collections.Counter[Site]:
        """How often the host has waited so far, by place."""
        return collections.Counter({site: n for site, n in self.sites.items() if not is_batch(site)})

    def __enter__(self) -> "Gpu":
        assert Gpu.on is None, "there is one pretend GPU"
        Gpu.on, self._patches = self, patched()
        self._patches.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.__exit__(None, None, None)
        Gpu.on = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation: judged, counted, and computed on the CPU."""
        name = func._schema.name.split("::")[-1]
        flat = list(leaves((args, *kwargs.values())))
        ours = [x for x in flat if isinstance(x, Pretend)]
        asked = kwargs.get("device")
        asked = None if asked is None else torch.device(asked)
        if asked is not None and asked.type == "meta":  # C++ took it off a pretend tensor
            asked = CUDA
        if not ours and (asked is None or asked.type != "cuda"):
            return (torch.zeros if name == "_efficientzerotensor" else func)(*args, **kwargs)
        to_gpu = bool(ours) if asked is None else asked.type == "cuda"
        self.judge(func, name, args, kwargs, flat, to_gpu)

        args_here = swapped(args, Pretend, lambda x: x.host)
        kwargs_here = {key: swapped(value, Pretend, lambda x: x.host) for key, value in kwargs.items()}
        if asked is not None:
            kwargs_here["device"] = torch.device("cpu")
        kwargs_here.pop("pin_memory", None)
        if name == "_to_copy":
            kwargs_here["non_blocking"] = False
        out = computed(func, name, args_here, kwargs_here)
        if name == "copy_":
            return args[0]
        if not to_gpu:
            return out
        wrapped = swapped(out, torch.Tensor, Pretend)
        return wrapped if is_fresh(func, ours, out) else return_and_correct_aliasing(func, args, kwargs, wrapped)

    def judge(self, func: Any, name: str, args: Any, kwargs: Any, flat: list[Any], to_gpu: bool) -> None:
        """Refuse what a GPU refuses, and note what it waits for."""
        ours = [x for x in flat if isinstance(x, Pretend)]
        others = [x for x in flat if isinstance(x, torch.Tensor) and not isinstance(x, Pretend)]
        base = name.rstrip("_")
        if name in COPIES:
            self.judge_copy(func, name, args, kwargs, to_gpu)
        elif name in INDEXING:
            self.judge_index(func, args)
        elif ours and not is_mixed(name) and any(x.dim() or base in ONE_DEVICE for x in others):
            self.refuse(func, "Expected all tensors to be on the same device, but found at least two, cuda:0 and cpu!")
        generator = kwargs.get("generator")
        if generator is not None and to_gpu and generator.device.type == "cpu":
            self.refuse(func, "Expected a 'cuda' device type for generator but found 'cpu'")
        if ours and (name in READS or base in DATA_SHAPED or name in DECOMPOSITIONS):
            self.note("read" if name in READS else "shape" if base in DATA_SHAPED else "decomposition", func)

    def judge_copy(self, func: Any, name: str, args: Any, kwargs: Any, to_gpu: bool) -> None:
        source, target = (args[0], to_gpu) if name == "_to_copy" else (args[1], isinstance(args[0], Pretend))
        from_gpu = isinstance(source, Pretend)
        waits_not = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
        if from_gpu and not target and not (waits_not and name == "_to_copy"):
            self.note("to host", func)
        elif target and not from_gpu:
            self.note("to device, not blocking" if waits_not else "to device", func)

    def judge_index(self, func: Any, args: Any) -> None:
        itself, indices = args[0], [index for index in args[1] if index is not None]
        for index in indices:
            if isinstance(itself, Pretend) and not isinstance(index, Pretend):
                self.note("to device (CPU index)", func)
            if isinstance(index, Pretend) and not isinstance(itself, Pretend):
                self.refuse(func, "indices should be either on cpu or on the same device as the indexed tensor (cpu)")
            if index.dtype in (torch.bool, torch.uint8) and isinstance(index, Pretend):
                self.note("shape (mask)", func)
        if (
            len(args) > 2
            and isinstance(itself, Pretend) != isinstance(args[2], Pretend)
            and (args[2].dim() or isinstance(args[2], Pretend))
        ):
            self.refuse(func, "expected self and values to be on the same device")

    def note(self, kind: str, func: Any) -> None:
        self.sites[kind, func.__name__, place()] += 1

    def refuse(self, func: Any, sentence: str) -> None:
        self.mismatches["mismatch", func.__name__, place()] += 1
        raise RuntimeError(f"{sentence} ({func} at {place()})")


def leaves(values: Any) -> Iterator[Any]:
    """What stands in nested lists and tuples."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from leaves(value)
        else:
            yield value


def swapped(value: Any, kind: type, change: Any) -> Any:
    """Nested lists and tuples with another thing in the place of each of a kind."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(swapped(x, kind, change) for x in value)
    return value


def is_mixed(name: str) -> bool:
    """Whether an operation may have tensors of both devices: lists of an optimizer, and what is not on its device yet."""
    return name.startswith("_foreach") or "lift_fresh" in name


def is_batch(site: Site) -> bool:
    """Whether it is the batch that Lightning moves, pinned and without a wait where there is a GPU."""
    return site[0] == "to device, not blocking" and "lightning/fabric/utilities/apply_func.py" in site[2]


def computed(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """The operation on the CPU."""
    if name == "_efficientzerotensor":  # of forward-mode differentiation; kernels here know no tensors without memory
        return torch.zeros(*args, **kwargs)
    if func.namespace == "prims" and hasattr(torch, name):  # of decompositions under torch.func
        return getattr(torch, name)(*args, **kwargs)
    return func(*args, **kwargs)


def is_fresh(func: Any, ours: list[Pretend], out: Any) -> bool:
    """Whether what came out shares no memory with what went in, whatever the schema allows, as of .to(dtype)."""
    if func._schema.is_mutable or not isinstance(out, torch.Tensor):
        return False
    return all(x.host.untyped_storage()._cdata != out.untyped_storage()._cdata for x in ours)


def place() -> str:
    """The innermost line that is neither PyTorch's nor of this file, as file:line function."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path != __file__ and "/torch/" not in path and not path.startswith("<") and not path.endswith("contextlib.py"):
            roots = [root for root in ("/heatgen/", "site-packages/") if root in path]
            file = path.split(roots[0])[-1] if roots else os.path.basename(path)
            return f"{file}:{frame.f_lineno} {frame.f_code.co_qualname}"
        frame = frame.f_back  # type: ignore[assignment]
    return "?"


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """What of torch looks for a GPU before any operation runs."""
    amp, autocast = torch.cuda.amp.common, torch.autocast.__init__
    old = {
        (amp, "amp_definitely_not_available"): lambda: False,
        (torch.cuda, "is_bf16_supported"): lambda *_, **__: True,
        (torch.cuda, "_lazy_init"): lambda: None,
        (torch.autocast, "__init__"): lambda self, device_type, *args, **kwargs: autocast(
            self, "cuda" if device_type == "meta" else device_type, *args, **kwargs
        ),
    }
    before = {key: getattr(*key) for key in old}
    lift, overwrite = torch._C._only_lift_cpu_tensors(), torch.__future__.get_overwrite_module_params_on_conversion()
    torch._C._ensureCUDADeviceGuardSet()
    try:
        for (owner, name), value in old.items():
            setattr(owner, name, value)
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(x, device="cuda"): made here, then copied
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        yield
    finally:
        for (owner, name), value in before.items():
            setattr(owner, name, value)
        torch._C._set_only_lift_cpu_tensors(lift)
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
