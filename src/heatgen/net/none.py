"""net=none: no network, for models that need none."""

from torch import nn


class Nothing(nn.Module):
    """It has no weights and answers nothing."""
