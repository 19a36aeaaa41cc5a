"""Generator and critics."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inpaint_ops.compat import _arguments, _chain
from inpaint_ops.compat.daa233.layers import ContextualAttention, dis_conv, gen_conv

_ENCODER = "{0}conv1 {0}conv2_downsample {0}conv3 {0}conv4_downsample {0}conv5 {0}conv6"
_ATROUS = "conv7_atrous conv8_atrous conv9_atrous conv10_atrous"
# A + doubles what goes into the layer.
_DECODER = "{0}conv11 {0}conv12 {0}conv13+ {0}conv14 {0}conv15+ {0}conv16 {0}conv17"


def _encoder(module: nn.Module, prefix: str, inputs: int, widths: tuple[int, ...]) -> None:
    """Six convolutions, the second and the fourth of stride 2; the last keeps the width."""
    rows = []
    for i, (name, outputs) in enumerate(
        zip(_ENCODER.format(prefix).split(), (*widths, widths[-1]))
    ):
        kernel, stride = (5, 1) if i == 0 else (3, 2 if i in (1, 3) else 1)
        activation = "relu" if prefix == "pm" and i == 5 else "elu"
        rows.append((name, inputs, outputs, kernel, stride, kernel // 2, 1, activation))
        inputs = outputs
    _chain.add(module, rows, gen_conv)


def _atrous(module: nn.Module, width: int) -> None:
    rates = zip(_ATROUS.split(), (2, 4, 8, 16))
    _chain.add(module, [(n, width, width, 3, 1, rate, rate) for n, rate in rates], gen_conv)


def _decoder(module: nn.Module, prefix: str, inputs: int, cnum: int, outputs: int) -> None:
    widths = (inputs, 4 * cnum, 4 * cnum, 2 * cnum, 2 * cnum, cnum, cnum // 2, outputs)
    rows = []
    for i, name in enumerate(_DECODER.format(prefix).replace("+", "").split()):
        activation = "none" if i == 6 else "elu"
        rows.append((name, widths[i], widths[i + 1], 3, 1, 1, 1, activation))
    _chain.add(module, rows, gen_conv)


def _with_ones(x: Tensor, mask: Tensor) -> Tensor:
    """[x | 1 | mask], of which the ones show where the image ends."""
    return torch.cat([x, torch.ones_like(x[:, :1]), mask.to(x)], 1)


class CoarseGenerator(nn.Module):
    """First stage.

    Args:
        input_dim: channels of the image.
        cnum: width.
        use_cuda, device_ids: kept, not read: the work is done where x is.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: daa233/generative-inpainting-pytorch at c6cdaea: model/networks.py.
    """

    def __init__(
        self,
        input_dim: int,
        cnum: int,
        use_cuda: bool = True,
        device_ids: list[int] | None = None,
    ) -> None:
        super().__init__()
        _arguments.check_counts("CoarseGenerator", input_dim=input_dim, cnum=cnum)
        self.use_cuda = use_cuda
        self.device_ids = device_ids
        wide = 4 * cnum
        _encoder(self, "", input_dim + 2, (cnum, 2 * cnum, 2 * cnum, wide, wide))
        _atrous(self, wide)
        _decoder(self, "", wide, cnum, input_dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(N, input_dim, H, W) and its hole (N, 1, H, W), 1 = missing, to an image in [-1, 1]."""
        names = f"{_ENCODER} {_ATROUS} {_DECODER}".format("")
        return _chain.run(self, names, _with_ones(x, mask)).clamp(-1.0, 1.0)


class FineGenerator(nn.Module):
    """Second stage: a branch of dilated convolutions and one of contextual attention.

    Args:
        input_dim, cnum, use_cuda, device_ids: of `CoarseGenerator`.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: daa233/generative-inpainting-pytorch at c6cdaea: model/networks.py.
    """

    def __init__(
        self,
        input_dim: int,
        cnum: int,
        use_cuda: bool = True,
        device_ids: list[int] | None = None,
    ) -> None:
        super().__init__()
        _arguments.check_counts("FineGenerator", input_dim=input_dim, cnum=cnum)
        self.use_cuda = use_cuda
        self.device_ids = device_ids
        wide = 4 * cnum
        _encoder(self, "", input_dim + 2, (cnum, cnum, 2 * cnum, 2 * cnum, wide))
        _atrous(self, wide)
        _encoder(self, "pm", input_dim + 2, (cnum, cnum, 2 * cnum, wide, wide))
        # The port's spelling.
        self.contextul_attention = ContextualAttention(
            rate=2, fuse=True, use_cuda=use_cuda, device_ids=device_ids
        )
        _chain.add(self, [(f"pmconv{i}", wide, wide, 3, 1, 1) for i in (9, 10)], gen_conv)
        _decoder(self, "all", 2 * wide, cnum, input_dim)

    def forward(self, xin: Tensor, x_stage1: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Refine.

        Args:
            xin: (N, input_dim, H, W), sides multiples of 8.
            x_stage1: of the first stage.
            mask: (N, 1, H, W), 1 = missing.

        Returns:
            The image in [-1, 1], and the flow of `ContextualAttention`.
        """
        joined = _with_ones(x_stage1 * mask + xin * (1.0 - mask), mask)
        dilated = _chain.run(self, f"{_ENCODER.format('')} {_ATROUS}", joined)
        y = _chain.run(self, _ENCODER.format("pm"), joined)
        y, flow = self.contextul_attention(y, y, mask)
        y = torch.cat([dilated, _chain.run(self, "pmconv9 pmconv10", y)], 1)
        return _chain.run(self, _DECODER.format("all"), y).clamp(-1.0, 1.0), flow


class Generator(nn.Module):
    """Both stages.

    Args:
        config: mapping with "input_dim", channels of the image, and "ngf", the width.
        use_cuda, device_ids: kept, not read.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: daa233/generative-inpainting-pytorch at c6cdaea: model/networks.py.
    """

    def __init__(self, config: Mapping[str, Any], use_cuda: bool, device_ids: Any) -> None:
        super().__init__()
        self.input_dim, self.cnum = _sizes("Generator", config, "ngf")
        self.use_cuda = use_cuda
        self.device_ids = device_ids
        rest = (self.input_dim, self.cnum, use_cuda, device_ids)
        self.coarse_generator = CoarseGenerator(*rest)
        self.fine_generator = FineGenerator(*rest)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Complete.

        Args:
            x: (N, input_dim, H, W), masked image in [-1, 1]; sides multiples of 8.
            mask: (N, 1, H, W), 1 = missing.

        Returns:
            The images of both stages, and the flow of `ContextualAttention`.
        """
        first = self.coarse_generator(x, mask)
        return first, *self.fine_generator(x, first, mask)


class DisConvModule(nn.Module):
    """Four convolutions of stride 2.

    Args:
        input_dim: channels of x.
        cnum: channels of the first convolution.
        use_cuda, device_ids: kept, not read.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: daa233/generative-inpainting-pytorch at c6cdaea: model/networks.py.
    """

    def __init__(
        self,
        input_dim: int,
        cnum: int,
        use_cuda: bool = True,
        device_ids: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.use_cuda = use_cuda
        self.device_ids = device_ids
        widths = (input_dim, cnum, 2 * cnum, 4 * cnum, 4 * cnum)
        rows = [(f"conv{i + 1}", widths[i], widths[i + 1], 5, 2, 2) for i in range(4)]
        _chain.add(self, rows, dis_conv)

    def forward(self, x: Tensor) -> Tensor:
        """(N, input_dim, H, W) to (N, 4 cnum, H / 16, W / 16), rounded up."""
        return _chain.run(self, "conv1 conv2 conv3 conv4", x)


class _Critic(nn.Module):
    def __init__(self, config: Mapping[str, Any], side: int, use_cuda: bool, ids: Any) -> None:
        super().__init__()
        self.input_dim, self.cnum = _sizes(type(self).__name__, config, "ndf")
        self.use_cuda = use_cuda
        self.device_ids = ids
        self.dis_conv_module = DisConvModule(self.input_dim, self.cnum)
        self.linear = nn.Linear(4 * self.cnum * side * side, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, input_dim, H, W) to (N, 1), H and W being 16 times the side of the last maps."""
        y: Tensor = self.linear(self.dis_conv_module(x).flatten(1))
        return y


class LocalDis(_Critic):
    """Critic of 128 x 128 patches.

    Args:
        config: mapping with "input_dim", channels of the image, and "ndf", the width.
        use_cuda, device_ids: kept, not read.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: daa233/generative-inpainting-pytorch at c6cdaea: model/networks.py.
    """

    def __init__(
        self, config: Mapping[str, Any], use_cuda: bool = True, device_ids: Any = None
    ) -> None:
        super().__init__(config, 8, use_cuda, device_ids)


class GlobalDis(_Critic):
    """Critic of 256 x 256 images.

    Args:
        config, use_cuda, device_ids: of `LocalDis`.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: daa233/generative-inpainting-pytorch at c6cdaea: model/networks.py.
    """

    def __init__(
        self, config: Mapping[str, Any], use_cuda: bool = True, device_ids: Any = None
    ) -> None:
        super().__init__(config, 16, use_cuda, device_ids)


def _sizes(layer: str, config: Mapping[str, Any], width: str) -> tuple[int, int]:
    if not isinstance(config, Mapping):
        raise TypeError(f"{layer}: config must be a mapping, got {type(config).__name__}")
    for name in ("input_dim", width):
        if name not in config:
            raise ValueError(f"{layer}: config must have {name!r}, got {sorted(config)}")
    sizes = (config["input_dim"], config[width])
    _arguments.check_counts(
        layer, **{"config['input_dim']": sizes[0], f"config[{width!r}]": sizes[1]}
    )
    return sizes
