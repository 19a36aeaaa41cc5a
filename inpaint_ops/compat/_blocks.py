"""Modules that the ports name by words, and blocks of padding, convolution, norm, activation."""

from collections.abc import Callable

from torch import Tensor, nn

from inpaint_ops import layers

_PADS: dict[str, Callable[[int], nn.Module]] = {
    "reflect": nn.ReflectionPad2d,
    "replicate": nn.ReplicationPad2d,
    "zero": nn.ZeroPad2d,
}
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "elu": lambda: nn.ELU(inplace=True),
    "lrelu": lambda: nn.LeakyReLU(0.2, inplace=True),
    "prelu": nn.PReLU,
    "selu": lambda: nn.SELU(inplace=True),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def pad(word: str, pixels: int) -> nn.Module | None:
    """Return the padding module of a word; None for "none"."""
    return None if word == "none" else _PADS[word](pixels)


def activation(word: str) -> nn.Module | None:
    """Return the activation module of a word; None for "none"."""
    return None if word == "none" else _ACTIVATIONS[word]()


def norm(word: str, channels: int) -> nn.Module | None:
    """Return the normalisation module of "bn" or "in"; None for "none"."""
    if word == "bn":
        return nn.BatchNorm2d(channels)
    return layers.InstanceNorm2d(channels) if word == "in" else None


def convolve(
    conv: nn.Module,
    x: Tensor,
    padding: nn.Module | None,
    normalisation: nn.Module | None,
    act: nn.Module | None,
    upsample: int = 1,
) -> Tensor:
    """activation(norm(conv(pad(upsample(x))))), in one pass up to the normalisation."""
    inside = act if normalisation is None else None
    y: Tensor = conv(x, pad=padding, activation=inside, upsample=upsample)
    return finish(y, normalisation, act) if normalisation is not None else y


def finish(y: Tensor, normalisation: nn.Module | None, act: nn.Module | None) -> Tensor:
    """activation(norm(y))."""
    if normalisation is not None:
        y = normalisation(y)
    return y if act is None else act(y)
