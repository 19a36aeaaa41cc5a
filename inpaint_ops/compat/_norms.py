"""Normalisations that ports wrote for themselves."""

from typing import Any

import torch
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.compat import _arguments


class LayerNorm(nn.Module):
    """(x - mean) / (deviation + eps) over each sample, times gamma, plus beta.

    The deviation is the unbiased one.

    Args:
        num_features: channels.
        eps: added to the deviation.
        affine: whether there are ``gamma`` (uniform in [0, 1) at first) and ``beta`` (zeros).

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: zhaoyuzhi/deepfillv2 at 84a13c0: deepfillv2/network_module.py.
    """

    def __init__(self, num_features: int, eps: float = 1e-8, affine: bool = True) -> None:
        super().__init__()
        _arguments.check_counts("LayerNorm", num_features=num_features)
        checks.check_finite("LayerNorm", "eps", eps)
        checks.check_flag("LayerNorm", "affine", affine)
        self.num_features = num_features
        self.affine = affine
        self.eps = eps
        if affine:
            self.gamma = nn.Parameter(torch.zeros(num_features).uniform_())
            self.beta = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """(N, num_features, ...) to the same."""
        ones = [1] * (x.dim() - 1)
        values = x.flatten(1)
        mean = values.mean(1).view(-1, *ones)
        x = (x - mean) / (values.std(1).view(-1, *ones) + self.eps)
        if not self.affine:
            return x
        shape = (1, -1, *ones[1:])
        return x * self.gamma.view(shape) + self.beta.view(shape)

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return f"{self.num_features}, eps={self.eps}, affine={self.affine}"


def l2normalize(v: Tensor, eps: float = 1e-12) -> Tensor:
    """V / (|v| + eps)."""
    result: Tensor = v / (v.norm() + eps)
    return result


class SpectralNorm(nn.Module):
    """A module whose weight is divided by its largest singular value at every call.

    Power iterations run in evaluation too. The gradient flows through the singular value.

    State dict: ``module.<name>_bar``, the weight, and the vectors ``module.<name>_u`` and
    ``module.<name>_v``, parameters without gradient.

    Args:
        module: has the weight.
        name: of the weight.
        power_iterations: in each call.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: zhaoyuzhi/deepfillv2 at 84a13c0: deepfillv2/network_module.py.
    """

    def __init__(self, module: nn.Module, name: str = "weight", power_iterations: int = 1) -> None:
        super().__init__()
        _arguments.check_module("SpectralNorm", "module", module)
        if not isinstance(name, str):
            raise TypeError(f"SpectralNorm: name must be a str, got {type(name).__name__}")
        _arguments.check_counts("SpectralNorm", power_iterations=power_iterations)
        self.module = module
        self.name = name
        self.power_iterations = power_iterations
        if not hasattr(module, f"{name}_bar"):
            self._make_params()

    def _make_params(self) -> None:
        weight = getattr(self.module, self.name, None)
        if not isinstance(weight, nn.Parameter):
            raise ValueError(f"SpectralNorm: module must have a parameter {self.name!r}")
        rows = weight.data.flatten(1)
        u = l2normalize(rows.new_empty(rows.shape[0]).normal_(0, 1))
        v = l2normalize(rows.new_empty(rows.shape[1]).normal_(0, 1))
        del self.module._parameters[self.name]
        parameters = {
            "u": nn.Parameter(u, requires_grad=False),
            "v": nn.Parameter(v, requires_grad=False),
            "bar": nn.Parameter(weight.data),
        }
        for kind, parameter in parameters.items():
            self.module.register_parameter(f"{self.name}_{kind}", parameter)

    def normalised(self) -> Tensor:
        """One more power iteration; then the weight over its largest singular value."""
        u, v, bar = (getattr(self.module, f"{self.name}_{kind}") for kind in ("u", "v", "bar"))
        rows = bar.flatten(1)
        with torch.no_grad():
            for _ in range(self.power_iterations):
                v.data = l2normalize(rows.t() @ u)
                u.data = l2normalize(rows @ v)
        result: Tensor = bar / u.dot(rows @ v)
        return result

    def forward(self, *args: Any, **neighbours: Any) -> Any:
        """The module's result with the normalised weight."""
        setattr(self.module, self.name, self.normalised())
        try:
            return self.module.forward(*args, **neighbours)
        finally:  # copies and pickles of the module hold no part of a graph
            delattr(self.module, self.name)

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return f"name={self.name!r}, power_iterations={self.power_iterations}"
