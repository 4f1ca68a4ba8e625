"""The pretend GPU itself: what it refuses, what it counts, and that its numbers are the CPU's."""

import collections

import pytest
import torch
from pretend.gpu import Gpu


def test_it_refuses_what_a_gpu_refuses() -> None:
    with Gpu() as gpu:
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        for wrong in (
            lambda: there + here,
            lambda: torch.stack([there, here]),
            lambda: here[there.long()],
            lambda: there.numpy(),
            lambda: torch.nn.functional.linear(here[None], there[None]),
            lambda: torch.rand(3, device="cuda", generator=torch.Generator()),
        ):
            with pytest.raises((RuntimeError, TypeError), match="device"):
                wrong()
        assert len(gpu.mismatches) == 5 and not gpu.waits()
        assert (there * torch.tensor(2.0)).device.type == "cuda"  # one number of the CPU may be there


def test_it_counts_what_the_host_waits_for_and_where() -> None:
    with Gpu() as gpu:
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        for wait in (
            lambda: there.sum().item(),
            lambda: bool((there > 0).all()),
            lambda: there.tolist(),
            lambda: here.to("cuda"),
            lambda: there[[0, 1]],
            lambda: there[there > 0],
            lambda: there.unique(),
            lambda: torch.tensor([1.0, 2.0], device="cuda"),
            lambda: torch.linalg.cholesky(torch.eye(2, device="cuda")),
        ):
            before = gpu.waits().total()
            wait()
            assert gpu.waits().total() > before
        kinds = collections.Counter(kind for kind, _, _ in gpu.waits().elements())
        assert kinds["read"] >= 2 and kinds["to host"] == 1 and kinds["shape (mask)"] == 1
        assert {place.split(":")[0] for _, _, place in gpu.waits()} == {"test_pretend.py"}
        before = gpu.waits().total()
        _ = there + 1, there.cumsum(0), there.to("cpu", non_blocking=True), torch.arange(3, device="cuda"), there[None, :2]
        _ = torch.where(there > 0, there, 0.0), there[torch.zeros(2, dtype=torch.long, device="cuda")], there.max(0)
        assert gpu.waits().total() == before


def test_a_training_has_the_bits_of_one_on_the_cpu() -> None:
    def trained(device: str) -> list[torch.Tensor]:
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3), torch.nn.GroupNorm(2, 4), torch.nn.SiLU(), torch.nn.Conv2d(4, 1, 3)
        )
        x = torch.randn(2, 1, 8, 8)
        net, x = net.to(device), x.to(device)
        optimizer = torch.optim.Adam(net.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        return [p.detach().cpu() for p in net.parameters()]

    with Gpu():
        there = trained("cuda")
    assert all(torch.equal(a, b) for a, b in zip(trained("cpu"), there, strict=True))
