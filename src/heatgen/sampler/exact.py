"""sampler=exact: u_0 given u_K in closed form, for model=oracle."""

from torch import Tensor

from heatgen import check
from heatgen.noise import Noise
from heatgen.sampler.interface import ExactModel, OnStep

ANSWERS = ("sample", "mean", "flow")


def exact(
    model: ExactModel,
    u: Tensor,
    times: Tensor,
    rng: Noise | None = None,
    on_step: OnStep | None = None,
    answer: str = "sample",
) -> Tensor:
    """u_0 from u_K = u, (B, C, H, W): a draw of the posterior, its mean, or the end of the probability flow.

    model: needs `exact(u, t, answer, generator)`. on_step(0, u_0) is called once. ConfigError for an unknown answer.
    """
    check.choice("sampler.answer", answer, ANSWERS)
    u0 = model.exact(u, times[-1:].expand(len(u)), answer, rng)
    if on_step is not None:
        on_step(0, u0)
    return u0
