"""data=fashion_mnist: 60,000 + 10,000 grey images of clothing, 28x28 pixels."""

from heatgen.data.torchvision import IdxImages


class FashionMNIST(IdxImages):
    """Fashion-MNIST, (1, 28, 28); also read from Debian's package dataset-fashion-mnist. Source: Xiao et al. 2017."""

    torchvision_name = "FashionMNIST"
    system_dir = "/usr/share/datasets/fashion-mnist"
