"""The one likelihood of every neural process: a Gaussian whose deviation has one named floor."""

from torch import Tensor, nn

from heatgen import check


class GaussianLikelihood(nn.Module):
    """y = mean + std eps, std = min_std + softplus(raw).

    min_std: the least deviation; ln p <= -ln min_std - 0.92 for each dimension, so it should be well below the noise of the
    data, and is reported with every likelihood.
    """

    outputs: int  # how many numbers a pixel the network gives

    def __init__(self, min_std: float = 0.01):
        super().__init__()
        self.min_std = check.number("net.likelihood.min_std", min_std, above=0)

    def forward(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """The parameters of the law of frames.

        Args:
            outputs: of the decoder, (..., outputs C, H, W).

        Returns:
            Mean and deviation, (..., C, H, W) each, and F, (..., C, H, W, rank), of low_rank.
        """
        raise NotImplementedError
