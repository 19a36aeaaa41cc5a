"""Parts of both files of nipponjo/deepfillv2-pytorch: attention, initial weights, critics."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.compat import _arguments
from inpaint_ops.compat._attention import PortAttention
from inpaint_ops.compat._convolution import Conv2d


class Attention(PortAttention):
    """Forward of `ContextualAttention` in both files."""

    def forward(
        self, f: Tensor, b: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            f: (N, C, H, W) foreground features.
            b: (N, C, Hb, Wb) background features; in the networks `f` again.
            mask: not 0 = missing; (batch, 1, Hm, Wm) with Hm and Wm 2 ** n_down times Hb and Wb.
                The first mask of the batch holds for all samples.

        Returns:
            y: (N, C, H, W).
            flow: None, or with `return_flow` (N, 3, h rate, w rate) float32, colours 0 to 1 of the
                displacements of h x w cells.

        Raises:
            TypeError, ValueError: wrong type, shape or option.
        """
        y, index = self.match(f, b, mask)
        if not self.return_flow:
            return y, None
        flow = self.picture(index, b)
        if self.rate != 1:
            flow = F.interpolate(flow, scale_factor=self.rate, mode="bilinear", align_corners=True)
        return y, flow


def draw_weights(conv: nn.Conv2d, activation: Any) -> None:
    """Draw Kaiming-uniform weights (fan-out) for an activation that has a gain; zero the bias."""
    if isinstance(activation, nn.LeakyReLU):
        nn.init.kaiming_uniform_(
            conv.weight, a=activation.negative_slope, nonlinearity="leaky_relu", mode="fan_out"
        )
    elif isinstance(activation, (nn.ReLU, nn.ELU)):
        nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu", mode="fan_out")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class SpectralConv2d(Conv2d):
    """Convolution that divides its stored weight by its largest singular value at every call.

    The division is in place and unknown to autograd, as in the port: the optimiser works on
    normalised weights. One power iteration a call, in evaluation too.

    State dict: ``weight``, ``bias`` and the buffer ``weight_u`` (filters, 1).
    """

    weight_u: Tensor

    def __init__(
        self,
        cnum_in: int,
        cnum_out: int,
        kernel_size: int,
        stride: int,
        padding: int | str = 0,
        bias: bool = True,
        n_iter: int = 1,
        eps: float = 1e-12,
    ) -> None:
        name = "Conv2DSpectralNorm"
        _arguments.check_counts(name, cnum_in=cnum_in, cnum_out=cnum_out, n_iter=n_iter)
        _arguments.check_sizes(name, 1, kernel_size=kernel_size, stride=stride)
        checks.check_flag(name, "bias", bias)
        checks.check_finite(name, "eps", eps)
        super().__init__(cnum_in, cnum_out, kernel_size, stride, padding, bias=bool(bias))
        self.register_buffer("weight_u", nn.init.trunc_normal_(torch.zeros(cnum_out, 1)))
        self.n_iter = n_iter
        self.eps = eps

    def forward(self, input: Tensor, **neighbours: Any) -> Tensor:
        """(N, cnum_in, H, W) to (N, cnum_out, Ho, Wo)."""
        with torch.no_grad():
            weight = self.weight.flatten(1)
            for _ in range(self.n_iter):
                v = self.l2_norm(weight.t() @ self.weight_u)
                self.weight_u = self.l2_norm(weight @ v)
            self.weight.data.div_(self.weight_u.t() @ weight @ v)
        return super().forward(input, **neighbours)

    def l2_norm(self, x: Tensor) -> Tensor:
        """Columns of length 1."""
        return F.normalize(x, p=2, dim=0, eps=self.eps)

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return f"{super().extra_repr()}, n_iter={self.n_iter}, eps={self.eps}"


def output_to_image(out: Tensor) -> Any:
    """Return the first sample of (N, C, H, W) in [-1, 1] as (H, W, C) uint8 array, truncated."""
    picture = (out[0].detach().cpu().permute(1, 2, 0) + 1) * 127.5
    return picture.to(torch.uint8).numpy()


class Completing(nn.Module):
    """Loading, and `infer`, of both generators."""

    return_flow: bool

    def start(self, checkpoint: Any) -> None:
        """Load the generator of a file, if there is one, and switch to evaluation."""
        if checkpoint is not None:
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
            self.load_state_dict(state["G"], strict=True)
        self.eval()

    def pictures(self, image: Tensor, mask: Tensor, wanted: list[str]) -> list[Any]:
        """Complete one image.

        Args:
            image: (1, C, H, W) in [0, 1].
            mask: (1, 1, H, W), more than 0 = missing.
            wanted: names among "inpainted", "stage1", "stage2" and, with `return_flow`, "flow".

        Returns:
            For each name an (H, W, C) uint8 array; for "flow" the picture of the displacements.

        Raises:
            ValueError: another name.
        """
        names = [word.lower() for word in wanted]
        known = {"inpainted", "stage1", "stage2"} | ({"flow"} if self.return_flow else set())
        if not known.issuperset(names):
            raise ValueError(f"infer: return_vals must be among {sorted(known)}, got {wanted}")
        image = image * 2 - 1
        mask = (mask > 0).to(image.dtype)
        ones = torch.ones_like(image[:, :1])
        first, second, *flow = self(torch.cat([image * (1 - mask), ones, ones * mask], 1), mask)
        stages = {
            "stage1": first,
            "stage2": second,
            "inpainted": image * (1 - mask) + second * mask,
        }
        return [flow[0] if name == "flow" else output_to_image(stages[name]) for name in names]


class PatchCritic(nn.Module):
    """Six critic layers and a flattening.

    Args:
        layer: class of the layers.
        cnum_in: channels of x.
        cnum: channels of the first layer.
    """

    def __init__(self, layer: Any, cnum_in: int, cnum: int) -> None:
        super().__init__()
        _arguments.check_counts("Discriminator", cnum_in=cnum_in, cnum=cnum)
        widths = [cnum_in] + [cnum * factor for factor in (1, 2, 4, 4, 4, 4)]
        for i in range(6):
            self.add_module(f"conv{i + 1}", layer(widths[i], widths[i + 1]))

    def forward(self, x: Tensor) -> Tensor:
        """(N, cnum_in, H, W) to (N, 4 cnum Ho Wo), each side halved six times."""
        for i in range(6):
            x = self.get_submodule(f"conv{i + 1}")(x)
        return x.flatten(1)
