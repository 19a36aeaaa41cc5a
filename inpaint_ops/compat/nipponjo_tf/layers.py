"""Gated convolutions, attention and critic layers."""

from torch import Tensor, nn

from inpaint_ops.compat import _arguments, _deepfill
from inpaint_ops.compat._convolution import Conv2d


class GConv(nn.Module):
    """activation(f) * sigmoid(g), [f | g] = conv(x), padded as TensorFlow's SAME does.

    Without activation, and with 3 channels of result, it is a plain convolution.

    State dict: ``conv.weight`` (2 cnum_out filters if gated, features first) and ``conv.bias``.

    Args:
        cnum_in: channels of x.
        cnum_out: channels of the result.
        ksize: side of the kernel.
        stride: pixels; out = ceil(in / stride).
        rate: dilation.
        padding: kept, not read, as in the port.
        activation: module, of the features, or None.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: nipponjo/deepfillv2-pytorch at 4899fd3: model/networks_tf.py.
    """

    def __init__(
        self,
        cnum_in: int,
        cnum_out: int,
        ksize: int,
        stride: int = 1,
        rate: int = 1,
        padding: int | str = "same",
        activation: nn.Module | None = nn.ELU(),  # noqa: B008 - has no state
    ) -> None:
        super().__init__()
        _arguments.check_counts(
            "GConv", cnum_in=cnum_in, cnum_out=cnum_out, ksize=ksize, stride=stride, rate=rate
        )
        if not isinstance(padding, (int, str)):
            raise TypeError(f"GConv: padding must be an int or a str, got {type(padding).__name__}")
        _arguments.check_activation("GConv", activation, needed=False)
        gated = cnum_out != 3 and activation is not None
        self.activation = activation
        self.cnum_out = cnum_out
        self.conv = Conv2d(
            cnum_in, 2 * cnum_out if gated else cnum_out, ksize, stride, dilation=rate
        )
        _deepfill.draw_weights(self.conv, activation)
        self.ksize = ksize
        self.stride = stride
        self.rate = rate
        self.padding = padding

    def forward(self, x: Tensor, *, upsample: int = 1) -> Tensor:
        """(N, cnum_in, H, W) to (N, cnum_out, Ho, Wo); `upsample` 2 doubles x first."""
        gated = self.cnum_out != 3 and self.activation is not None
        y: Tensor = self.conv(
            x,
            activation=self.activation if gated else None,
            gated=gated,
            upsample=upsample,
            padding="same",
        )
        return y

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return (
            f"{self.cnum_out} channels out, ksize={self.ksize}, stride={self.stride}, "
            f"rate={self.rate}, padding={self.padding!r}"
        )


class GDeConv(nn.Module):
    """Nearest upsampling by 2, then a gated 3x3 convolution, in one pass.

    Args:
        cnum_in, cnum_out, padding: of `GConv`.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: nipponjo/deepfillv2-pytorch at 4899fd3: model/networks_tf.py.
    """

    def __init__(self, cnum_in: int, cnum_out: int, padding: int | str = 1) -> None:
        super().__init__()
        self.conv = GConv(cnum_in, cnum_out, 3, 1, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cnum_in, H, W) to (N, cnum_out, 2 H, 2 W)."""
        y: Tensor = self.conv(x, upsample=2)
        return y


class ContextualAttention(_deepfill.Attention):
    """Every cell of f rebuilt from the patches of b most like its own, without those of the hole.

    As `inpaint_ops.compat.nipponjo.ContextualAttention`, but a cell stands for a pixel picked
    evenly from the first to the last of the image, `fuse` is on by default, and there is no buffer.

    Args:
        ksize, fuse_k: sides of patches and fuse kernel, cells; 3.
        stride: between patches; 1.
        rate: feature pixels a cell. The port works with 2 alone.
        softmax_scale: factor on the scores.
        n_down: halvings between the image, and with it the mask, and the features.
        fuse: whether neighbours' scores are added up.
        return_flow: whether forward returns the picture of displacements.
        device_ids: kept, not read.

    Raises:
        ValueError: ksize or fuse_k other than 3.
        TypeError, ValueError: wrong type or value.

    Source: nipponjo/deepfillv2-pytorch at 4899fd3: model/networks_tf.py.
    """

    def __init__(
        self,
        ksize: int = 3,
        stride: int = 1,
        rate: int = 1,
        fuse_k: int = 3,
        softmax_scale: float = 10.0,
        n_down: int = 2,
        fuse: bool = True,
        return_flow: bool = False,
        device_ids: list[int] | None = None,
    ) -> None:
        super().__init__(
            *(ksize, stride, rate, fuse_k, softmax_scale, n_down, fuse, return_flow, device_ids),
            pick="align_corners",
        )


class Conv2DSpectralNorm(_deepfill.SpectralConv2d):
    """Convolution that divides its stored weight by its largest singular value at every call.

    Args:
        cnum_in, cnum_out: channels.
        kernel_size, stride, padding, bias: of nn.Conv2d.
        n_iter: power iterations a call.
        eps: least norm of a vector.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: nipponjo/deepfillv2-pytorch at 4899fd3: model/networks_tf.py.
    """

    def __init__(
        self,
        cnum_in: int,
        cnum_out: int,
        kernel_size: int,
        stride: int,
        padding: int | str = 0,
        n_iter: int = 1,
        eps: float = 1e-12,
        bias: bool = True,
    ) -> None:
        super().__init__(cnum_in, cnum_out, kernel_size, stride, padding, bias, n_iter, eps)


class DConv(nn.Module):
    """SAME padding, `Conv2DSpectralNorm` and a leaky ReLU (slope 0.2).

    Args:
        cnum_in, cnum_out: channels.
        ksize, stride: of the convolution.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: nipponjo/deepfillv2-pytorch at 4899fd3: model/networks_tf.py.
    """

    def __init__(self, cnum_in: int, cnum_out: int, ksize: int = 5, stride: int = 2) -> None:
        super().__init__()
        self.conv_sn = Conv2DSpectralNorm(cnum_in, cnum_out, ksize, stride)
        self.leaky = nn.LeakyReLU(negative_slope=0.2)
        self.ksize = ksize
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, cnum_in, H, W) to (N, cnum_out, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.conv_sn(x, activation=self.leaky, padding="same")
        return y
