"""data=mnist: 60,000 + 10,000 grey images of handwritten digits, 28x28 pixels."""

from heatgen.data.torchvision import IdxImages


class MNIST(IdxImages):
    """MNIST, (1, 28, 28). Source: LeCun et al. 1998."""

    torchvision_name = "MNIST"
    system_dir = "/usr/share/datasets/mnist"
