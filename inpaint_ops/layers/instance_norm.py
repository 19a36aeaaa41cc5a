"""Instance normalisation layer with activation and residual fused in."""

import torch
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.ops.convolution import spec
from inpaint_ops.ops.instance_norm import instance_norm


class InstanceNorm2d(nn.Module):
    """Layer activation(norm(x)) + residual with the state dict of nn.InstanceNorm2d.

    Mean and variance are always those of the image. No running statistics are kept, so training and
    evaluation agree.

    Args:
        num_features: channels of x.
        eps: added to the variance.
        affine: learn weight (ones at first) and bias (zeros at first).
        activation: of `instance_norm`.
        device, dtype: of the parameters.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: nn.InstanceNorm2d(track_running_stats=False).
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = False,
        *,
        activation: str = "identity",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        checks.check_int("InstanceNorm2d", "num_features", num_features)
        checks.check_finite("InstanceNorm2d", "eps", eps)
        checks.check_choice("InstanceNorm2d", "activation", activation, spec.ACTIVATIONS)
        self.num_features = num_features
        self.eps = eps
        self.affine = affine
        self.activation = activation
        if affine:
            self.weight = nn.Parameter(torch.ones(num_features, device=device, dtype=dtype))
            self.bias = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype))
        else:
            self.register_parameter("weight", None)
            self.register_parameter("bias", None)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalise (N, num_features, H, W), see `instance_norm`."""
        if isinstance(x, Tensor) and x.dim() == 4 and checks.sizes(x)[1] != self.num_features:
            raise ValueError(
                f"InstanceNorm2d: x must have {self.num_features} channels, got {x.shape[1]}"
            )
        return instance_norm(
            x,
            self.weight,
            self.bias,
            eps=self.eps,
            activation=self.activation,
            residual=residual,
        )

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return (
            f"{self.num_features}, eps={self.eps}, affine={self.affine}, "
            f"activation={self.activation!r}"
        )
