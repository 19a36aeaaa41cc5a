"""Gated convolutions, attention and critic layers."""

import torch
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.compat import _arguments, _deepfill
from inpaint_ops.compat._convolution import Conv2d


class GConv(nn.Module):
    """activation(f) * sigmoid(g), [f | g] = conv(x); a plain convolution if not `gated`.

    State dict: ``conv.weight`` (2 cnum_out filters if gated, features first) and ``conv.bias``.
    ELU (alpha 1), ReLU, LeakyReLU (slope 0.2), SiLU, tanh and sigmoid run inside the convolution,
    any other module after it.

    Args:
        cnum_in: channels of x.
        cnum_out: channels of the result.
        ksize: side of the kernel.
        stride: pixels.
        padding: zeros on both sides; "auto": rate (ksize - 1) // 2.
        rate: dilation.
        activation: module, of the features; without gate it is not applied.
        bias: whether there is one.
        gated: whether there is a gate.

    Weights start Kaiming-uniform (fan-out) where the activation is a (leaky) ReLU or ELU, biases
    from 0.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: nipponjo/deepfillv2-pytorch at 4899fd3: model/networks.py.
    """

    def __init__(
        self,
        cnum_in: int,
        cnum_out: int,
        ksize: int,
        stride: int = 1,
        padding: int | str = "auto",
        rate: int = 1,
        activation: nn.Module | None = nn.ELU(),  # noqa: B008 - has no state
        bias: bool = True,
        gated: bool = True,
    ) -> None:
        super().__init__()
        _arguments.check_counts(
            "GConv", cnum_in=cnum_in, cnum_out=cnum_out, ksize=ksize, stride=stride, rate=rate
        )
        if padding != "auto":
            checks.check_int("GConv", "padding", padding, 0)  # type: ignore[arg-type]
        checks.check_flag("GConv", "bias", bias)
        checks.check_flag("GConv", "gated", gated)
        _arguments.check_activation("GConv", activation, needed=bool(gated))
        padding = rate * (ksize - 1) // 2 if padding == "auto" else padding
        self.activation = activation
        self.cnum_out = cnum_out
        self.conv = Conv2d(
            *(cnum_in, 2 * cnum_out if gated else cnum_out, ksize, stride, padding, rate),
            bias=bool(bias),
        )
        _deepfill.draw_weights(self.conv, activation)
        self.ksize = ksize
        self.stride = stride
        self.rate = rate
        self.padding = padding
        self.gated = gated

    def forward(self, x: Tensor, *, upsample: int = 1) -> Tensor:
        """(N, cnum_in, H, W) to (N, cnum_out, Ho, Wo); `upsample` 2 doubles x first."""
        activation = self.activation if self.gated else None
        y: Tensor = self.conv(x, activation=activation, gated=bool(self.gated), upsample=upsample)
        return y

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return (
            f"gated={self.gated}, ksize={self.ksize}, stride={self.stride}, "
            f"padding={self.padding}, rate={self.rate}"
        )


class GDeConv(nn.Module):
    """Nearest upsampling by 2, then a gated 3x3 convolution, in one pass.

    Args:
        cnum_in, cnum_out, padding: of `GConv`.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: nipponjo/deepfillv2-pytorch at 4899fd3: model/networks.py.
    """

    def __init__(self, cnum_in: int, cnum_out: int, padding: int | str = 1) -> None:
        super().__init__()
        self.conv = GConv(cnum_in, cnum_out, ksize=3, stride=1, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cnum_in, H, W) to (N, cnum_out, 2 H, 2 W)."""
        y: Tensor = self.conv(x, upsample=2)
        return y


class GDownsamplingBlock(nn.Module):
    """Gated 3x3 convolution of stride 2 and one of stride 1.

    Args:
        cnum_in, cnum_out: channels.
        cnum_hidden: channels between; None for cnum_out.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: nipponjo/deepfillv2-pytorch at 4899fd3: model/networks.py.
    """

    def __init__(self, cnum_in: int, cnum_out: int, cnum_hidden: int | None = None) -> None:
        super().__init__()
        cnum_hidden = cnum_out if cnum_hidden is None else cnum_hidden
        self.conv1_downsample = GConv(cnum_in, cnum_hidden, ksize=3, stride=2)
        self.conv2 = GConv(cnum_hidden, cnum_out, ksize=3, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cnum_in, H, W) to (N, cnum_out, H / 2, W / 2), rounded up."""
        y: Tensor = self.conv2(self.conv1_downsample(x))
        return y


class GUpsamplingBlock(nn.Module):
    """`GDeConv` and a gated 3x3 convolution.

    Args:
        cnum_in, cnum_out: channels.
        cnum_hidden: channels between; None for cnum_out.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: nipponjo/deepfillv2-pytorch at 4899fd3: model/networks.py.
    """

    def __init__(self, cnum_in: int, cnum_out: int, cnum_hidden: int | None = None) -> None:
        super().__init__()
        cnum_hidden = cnum_out if cnum_hidden is None else cnum_hidden
        self.conv1_upsample = GDeConv(cnum_in, cnum_hidden)
        self.conv2 = GConv(cnum_hidden, cnum_out, ksize=3, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cnum_in, H, W) to (N, cnum_out, 2 H, 2 W)."""
        y: Tensor = self.conv2(self.conv1_upsample(x))
        return y


class ContextualAttention(_deepfill.Attention):
    """Every cell of f rebuilt from the patches of b most like its own, without those of the hole.

    State dict: the constant buffer ``fuse_weight`` (1, 1, fuse_k, fuse_k), not read.

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

    Differs from the port: the flow is on the device of f and counts along the background's own
    width; a key of zeros has the gradient 0, not NaN.

    Source: nipponjo/deepfillv2-pytorch at 4899fd3: model/networks.py.
    """

    def __init__(
        self,
        ksize: int = 3,
        stride: int = 1,
        rate: int = 1,
        fuse_k: int = 3,
        softmax_scale: float = 10.0,
        n_down: int = 2,
        fuse: bool = False,
        return_flow: bool = False,
        device_ids: list[int] | None = None,
    ) -> None:
        super().__init__(
            ksize, stride, rate, fuse_k, softmax_scale, n_down, fuse, return_flow, device_ids
        )
        self.register_buffer("fuse_weight", torch.eye(fuse_k).view(1, 1, fuse_k, fuse_k))


class Conv2DSpectralNorm(_deepfill.SpectralConv2d):
    """Convolution that divides its stored weight by its largest singular value at every call.

    Args:
        cnum_in, cnum_out: channels.
        kernel_size, stride, padding, bias: of nn.Conv2d.
        n_iter: power iterations a call.
        eps: least norm of a vector.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: nipponjo/deepfillv2-pytorch at 4899fd3: model/networks.py.
    """


class DConv(nn.Module):
    """`Conv2DSpectralNorm` and a leaky ReLU (slope 0.2).

    Args:
        cnum_in, cnum_out: channels.
        ksize, stride: of the convolution.
        padding: zeros on both sides; "auto": (ksize - 1) // 2.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: nipponjo/deepfillv2-pytorch at 4899fd3: model/networks.py.
    """

    def __init__(
        self,
        cnum_in: int,
        cnum_out: int,
        ksize: int = 5,
        stride: int = 2,
        padding: int | str = "auto",
    ) -> None:
        super().__init__()
        _arguments.check_counts("DConv", ksize=ksize)
        if padding != "auto":
            checks.check_int("DConv", "padding", padding, 0)  # type: ignore[arg-type]
        padding = (ksize - 1) // 2 if padding == "auto" else padding
        self.conv_sn = Conv2DSpectralNorm(cnum_in, cnum_out, ksize, stride, padding)
        self.leaky = nn.LeakyReLU(negative_slope=0.2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cnum_in, H, W) to (N, cnum_out, Ho, Wo)."""
        y: Tensor = self.conv_sn(x, activation=self.leaky)
        return y
