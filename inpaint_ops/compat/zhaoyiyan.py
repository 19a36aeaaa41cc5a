"""Zhaoyi-Yan/Shift-Net_pytorch: models/shift_net."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops import checks, layers


class InnerShiftTriple(layers.ShiftConnection):
    """Appends the shifted encoder feature: [D | E] -> [D | E | N]. No parameters, no state dict.

    `set_mask` comes before the first call. After a call ``flag`` (batch of the mask, h w) holds 1
    at the cells of the hole, ``cur_mask`` the mask, ``bz``, ``c``, ``h``, ``w`` the input's sizes.

    Args:
        shift_sz: side of the window over which the mask is averaged, cells, odd. Features are
            compared one by one whatever it is, as in the port.
        stride: 1.
        mask_thred: a cell is hole where at least so many of the window's shift_sz ** 2 are.
        triple_weight: factor on the gradient that N sends to E.
        layer_to_last: halvings between the image, and with it the mask, and the features.
        device: kept. With a mask of more samples than the input, those of the input's GPU are
            taken, as nn.DataParallel deals them out.

    Raises:
        TypeError, ValueError: wrong type or value.

    Differs from the port: features of zeros match the first known cell (NaN there); samples may
    have holes of different size, or none (errors there); the flow of sources is not drawn.

    Source: Zhaoyi-Yan/Shift-Net_pytorch at a353431: models/shift_net/InnerShiftTriple.py.
    """

    def __init__(
        self,
        shift_sz: int = 1,
        stride: int = 1,
        mask_thred: float = 1,
        triple_weight: float = 1,
        layer_to_last: int = 3,
        device: str = "gpu",
    ) -> None:
        name = "InnerShiftTriple"
        checks.check_int(name, "shift_sz", shift_sz)
        checks.check_int(name, "stride", stride)
        if shift_sz % 2 == 0:
            raise ValueError(f"{name}: shift_sz must be odd, got {shift_sz}")
        if stride != 1:
            raise ValueError(f"{name}: stride must be 1, got {stride}")
        checks.check_finite(name, "mask_thred", mask_thred)
        checks.check_finite(name, "triple_weight", triple_weight)
        _check_place(name, layer_to_last, device)
        super().__init__(triple_weight)
        self.shift_sz = shift_sz
        self.stride = stride
        self.mask_thred = mask_thred
        self.triple_weight = triple_weight
        self.layer_to_last = layer_to_last
        self.device = device
        self.show_flow = False
        self.flow_srcs: Tensor | None = None
        self.mask_all: Tensor | None = None

    def set_mask(self, mask_global: Tensor) -> None:
        """Take the hole of the image.

        Args:
            mask_global: (N or 1, 1, H, W), 1 = missing; bool, uint8 or float.

        Raises:
            TypeError, ValueError: wrong type or shape.
        """
        self.mask_all = _on_features("InnerShiftTriple", mask_global, self.layer_to_last).byte()

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        """Shift.

        Args:
            input: (N, 2 C, h, w), decoder feature first, encoder feature second, after ReLU.

        Returns:
            (N, 3 C, h, w): decoder, encoder and shifted feature.

        Raises:
            RuntimeError: `set_mask` was not called, or `set_flow_true` was (the port stops there).
            TypeError, ValueError: wrong type or shape, of the mask too.
        """
        if self.show_flow:
            raise RuntimeError("InnerShiftTriple: set_flow_true was called, and no flow is drawn")
        checks.check_image("InnerShiftTriple", "input", input)
        self.bz, self.c, self.h, self.w = input.shape
        self.cur_mask = _current("InnerShiftTriple", self.mask_all, input)
        hole = self.cur_mask.float()
        if self.shift_sz != 1:
            # Sums, not means.
            size = self.shift_sz
            hole = F.avg_pool2d(hole, size, 1, size // 2, divisor_override=1)
        masked = hole >= self.mask_thred
        self.flag = masked.flatten(1).long()
        self.gradient_scale = self.triple_weight
        return super().forward(input, masked.to(input.device))[0]

    def get_flow(self) -> Tensor | None:
        """None: the flow of sources is not drawn."""
        return self.flow_srcs

    def set_flow_true(self) -> None:
        """Ask for the flow of sources; the next call raises."""
        self.show_flow = True

    def set_flow_false(self) -> None:
        """Take `set_flow_true` back."""
        self.show_flow = False

    def extra_repr(self) -> str:
        """Options, for printing."""
        return f"triple_weight={self.triple_weight}, layer_to_last={self.layer_to_last}"


class InnerCos(nn.Module):
    """Identity whose backward pass adds the gradient of the guidance loss to the decoder feature.

    Each iteration calls it twice: with features [D | E] of the true image, whose E becomes the
    target T, and with those of the masked image. Its backward pass then adds to the gradient of D,
    at all positions, that of strength * criterion(M D, T) for M D: in the hole D is pulled towards
    T; outside, where M D is 0, the gradient is one of T alone. So the port does; the paper masks T
    too: `inpaint_ops.GuidanceLoss`.

    After a call ``target`` holds the encoder feature, ``cur_mask`` the mask, ``bz`` and ``c`` the
    input's sizes, and ``loss`` the value of the loss whose gradient will be added, without a graph.

    Args:
        crit: "MSE"; any other word means the mean absolute difference.
        strength: factor on the gradient.
        skip: do nothing at all.
        layer_to_last: halvings between the image, and with it the mask, and the features.
        device: kept, see `InnerShiftTriple`.

    Raises:
        TypeError, ValueError: wrong type or value.

    Differs from the port: the gradient that arrives is not changed in place.

    Source: Zhaoyi-Yan/Shift-Net_pytorch at a353431: models/shift_net/InnerCos.py.
    """

    def __init__(
        self,
        crit: str = "MSE",
        strength: float = 1,
        skip: int = 0,
        layer_to_last: int = 3,
        device: str = "gpu",
    ) -> None:
        super().__init__()
        if not isinstance(crit, str):
            raise TypeError(f"InnerCos: crit must be a str, got {type(crit).__name__}")
        checks.check_finite("InnerCos", "strength", strength)
        checks.check_flag("InnerCos", "skip", skip)
        _check_place("InnerCos", layer_to_last, device)
        self.crit = crit
        self.criterion = nn.MSELoss() if crit == "MSE" else nn.L1Loss()
        self.strength = strength
        self.skip = skip
        self.layer_to_last = layer_to_last
        self.device = device
        self.target = torch.tensor(1.0)
        self.mask_all: Tensor | None = None
        self.loss: Tensor | None = None

    def set_mask(self, mask_global: Tensor) -> None:
        """Take the hole of the image.

        Args:
            mask_global: (N or 1, 1, H, W), 1 = missing; bool, uint8 or float.

        Raises:
            TypeError, ValueError: wrong type or shape.
        """
        self.mask_all = _on_features("InnerCos", mask_global, self.layer_to_last).float()

    def forward(self, in_data: Tensor) -> Tensor:
        """(N, 2 C, h, w), decoder feature first, to the same.

        Raises:
            RuntimeError: `set_mask` was not called.
            TypeError, ValueError: wrong type or shape, of the mask too.
        """
        checks.check_image("InnerCos", "in_data", in_data)
        if in_data.shape[1] % 2:
            raise ValueError(
                f"InnerCos: in_data must have an even number of channels, got {in_data.shape[1]}"
            )
        self.bz, self.c = in_data.shape[:2]
        self.cur_mask = _current("InnerCos", self.mask_all, in_data).to(in_data)
        if self.skip:
            return in_data
        decoder, encoder = in_data.detach().chunk(2, 1)
        # A target of another batch size: the last batch of an epoch before this one, or the first
        # number of all.
        known = self.target.to(in_data)
        whole = known.shape == decoder.shape
        target = known if whole else (known[:1] if known.dim() else known).expand_as(decoder)
        with torch.no_grad():
            self.loss = self.strength * self.criterion(decoder * self.cur_mask, target)
        squared = isinstance(self.criterion, nn.MSELoss)
        output: Tensor = _Guide.apply(in_data, target, self.cur_mask, self.strength, squared)
        self.target = encoder
        return output

    def extra_repr(self) -> str:
        """Options, for printing."""
        return (
            f"crit={self.crit!r}, strength={self.strength}, skip={bool(self.skip)}, "
            f"layer_to_last={self.layer_to_last}"
        )


class _Guide(torch.autograd.Function):
    """Identity that adds the gradient of strength * criterion(M D, T) for M D to that of D."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, target: Tensor, mask: Tensor, strength: float, squared: bool) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, target, mask, ctx.strength, ctx.squared = inputs
        ctx.save_for_backward(x, target, mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, target, mask = ctx.saved_tensors
        difference = x.chunk(2, 1)[0] * mask - target
        pull = 2 * difference if ctx.squared else difference.sign()
        pull = pull * (ctx.strength / difference.numel())
        decoder, encoder = grad.chunk(2, 1)
        return torch.cat([decoder + pull, encoder], 1), None, None, None, None


def _check_place(layer: str, layer_to_last: Any, device: Any) -> None:
    checks.check_int(layer, "layer_to_last", layer_to_last, 0)
    if not isinstance(device, str):
        raise TypeError(f"{layer}: device must be a str, got {type(device).__name__}")


def _on_features(layer: str, mask: Tensor, halvings: int) -> Tensor:
    if not isinstance(mask, Tensor):
        raise TypeError(f"{layer}: mask_global must be a Tensor, got {type(mask).__name__}")
    if mask.dim() != 4 or mask.shape[1] != 1:
        raise ValueError(f"{layer}: mask_global must be (N, 1, H, W), got {tuple(mask.shape)}")
    size = (mask.shape[2] // 2**halvings, mask.shape[3] // 2**halvings)
    return layers.reduce_hole(mask, size)


def _current(layer: str, mask: Tensor | None, x: Tensor) -> Tensor:
    """The masks of the samples of x."""
    if mask is None:
        raise RuntimeError(f"{layer}: call set_mask with the hole of the image first")
    n, _, h, w = x.shape
    if mask.shape[0] not in (1, n):
        first = n * (x.device.index or 0) if x.is_cuda else 0
        mask = mask[first : first + n]
    if mask.shape[0] not in (1, n) or mask.shape[2:] != (h, w):
        raise ValueError(
            f"{layer}: the mask must be ({n} or 1, 1, {h}, {w}) on the features, got "
            f"{tuple(mask.shape)}"
        )
    return mask
