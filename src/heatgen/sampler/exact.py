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
    """u_0 from u_K: a draw of the posterior, its mean, or the end of the probability flow.

    Args:
        times: only the last one is used.
        rng: of the draw; None: the model's own.
        on_step: called once, with (0, u_0).
        answer: sample | mean | flow. For the others see `Sampler`.

    Raises:
        ConfigError: the answer is none of these.
    """
    check.choice("sampler.answer", answer, ANSWERS)
    u0 = model.exact(u, times[-1:].expand(len(u)), answer, rng)
    if on_step is not None:
        on_step(0, u0)
    return u0
