"""The optimal corrections beside a physics step, for Gaussian data: what a network trained in rollouts should become.

The step back from t to s is u - P + c Q^2 s_theta with the physics increment P of `process.increment`, that is, mode by mode
(2 - a) u + c Q^2 s_theta, a = A(t) / A(s), and Q^2 the variance of the step forward.
Source: Holzschuh et al. 2023, section 2.
"""

from torch import Tensor

from heatgen.oracle.gaussian import GaussianOracle, divide


def reverse_factor(oracle: GaussianOracle, t: Tensor, s: Tensor) -> Tensor:
    """E[u_s | u_t] / u_t by coefficient: a V(s) / V(t), a = A(t) / A(s); (B, C, H, W)."""
    return oracle.process.ratio(s.double(), t.double()) * divide(oracle.variance(s), oracle.variance(t))


def correction(oracle: GaussianOracle, t: Tensor, s: Tensor) -> Tensor:
    """What the physics step lacks of the exact reverse mean, a V(s) / V(t) - (2 - a), by coefficient; (B, C, H, W)."""
    return reverse_factor(oracle, t, s) - (2 - oracle.process.ratio(s.double(), t.double()))


def optimal_score(oracle: GaussianOracle, t: Tensor, s: Tensor, factor: float = 1.0, both: bool = False) -> Tensor:
    """The s_theta / u_t that minimises the loss, by coefficient; (B, C, H, W).

    correction / (factor Q^2) for the loss of the step back alone, whatever the length of a rollout without noise; half of
    that with the loss of the step forward beside it (both), which pulls s_theta to 0 with equal weight.
    """
    optimum = divide(correction(oracle, t, s), factor * oracle.process.step_std(s.double(), t.double()) ** 2)
    return optimum / 2 if both else optimum


def backward_loss(oracle: GaussianOracle, t: Tensor, s: Tensor, corrected: bool = True) -> float:
    """The expected squared error a pixel of one step back, with the optimal correction or with none."""
    q2 = oracle.process.step_std(s.double(), t.double()) ** 2
    unavoidable = divide(oracle.variance(s) * q2, oracle.variance(t))
    lacking = correction(oracle, t, s) ** 2 * oracle.variance(t)
    return (unavoidable if corrected else unavoidable + lacking).mean().item()
