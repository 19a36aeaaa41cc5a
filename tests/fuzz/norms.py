"""instance_norm, channelwise_linear, and their layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

import inpaint_ops
from fuzz.case import ROUNDOFF, Entry, Results, close
from fuzz.convolutions import CURVATURE, KINKED, _finished, _parameters, roundings
from fuzz.draws import DTYPES, Case, Draw
from inpaint_ops import reference
from inpaint_ops.layers import InstanceNorm2d
from inpaint_ops.ops.convolution.spec import ACTIVATIONS


class InstanceNorm(Entry):
    """instance_norm and InstanceNorm2d.

    Bounds: x - mean is wrong by a few u |x|, times 1 / sqrt(variance + eps) of the channel.
    """

    def __init__(self, name: str, layer: bool) -> None:
        self.name, self.layer = name, layer

    def draw(self, d: Draw, case: Case) -> None:
        case["dtype"] = d.of(DTYPES)
        sizes = {"n": d.batch(), "c": d.size(), "h": d.size(), "w": d.size()}
        d.fit(sizes, lambda: 20.0 * math.prod(sizes.values()), d.budget())
        d.empty(sizes, ("n",))
        case["sizes"] = sizes
        case["options"] = {"eps": d.of((1e-5, 1e-5, 1e-3, 0.1)), "activation": d.of(ACTIVATIONS)}
        kinds = ("normal",) * 5 + ("integers", "constant", "spike", "tiny", "zeros", "sparse")
        case["x"] = d.tensor(kinds)
        affine = d.chance(0.6)
        for name, share in (("weight", 0.6), ("bias", 0.6), ("residual", 0.4)):
            held = affine if self.layer and name != "residual" else d.chance(share)
            case[name] = d.tensor(("normal", "normal", "integers")) if held else None
        case["upstream"] = d.tensor(("normal", "normal", "sparse", "integers", "constant"))

    def specs(self, case: Case) -> dict[str, dict[str, Any]]:
        s = case["sizes"]
        shape = (s["n"], s["c"], s["h"], s["w"])
        specs = {"x": {"shape": shape, **case["x"]}}
        for name in ("weight", "bias", "residual"):
            if case[name]:
                specs[name] = {"shape": shape if name == "residual" else (s["c"],), **case[name]}
        return {n: {"dtype": case["dtype"], "leaf": True, **spec} for n, spec in specs.items()}

    def call(self, case: Case, t: dict[str, Tensor]) -> Sequence[Tensor]:
        o = case["options"]
        if not self.layer:
            affine, residual = (t.get("weight"), t.get("bias")), t.get("residual")
            return [inpaint_ops.ops.instance_norm(t["x"], *affine, residual=residual, **o)]
        layer = InstanceNorm2d(case["sizes"]["c"], affine="weight" in t, device="meta", **o)
        return [functional_call(layer, _parameters(t), (t["x"], t.get("residual")))]

    def exact(self, case: Case, again: str, name: str) -> bool:
        """Images with the channels apart are the library's."""
        s = case["sizes"]
        pixel = s["h"] * s["w"] == 1
        together = case["x"]["layout"] in ("channels_last", "reversed") and s["c"] > 1
        ours = pixel or (together and again != "layout")
        return ours and super().exact(case, again, name)

    def _linear(self, case: Case, t: dict[str, Tensor]) -> Tensor:
        return reference.instance_norm(
            t["x"], t.get("weight"), t.get("bias"), eps=case["options"]["eps"]
        )

    def _error(self, case: Case, wide: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of the normalised value, before activation; and 1 / sqrt(variance + eps)."""
        x = wide["x"]
        variance = x.var((2, 3), unbiased=False, keepdim=True)
        inverse = (variance + case["options"]["eps"]).rsqrt()
        u = ROUNDOFF["float32"]
        n = x.shape[2] * x.shape[3]
        largest = x.abs().amax((2, 3), keepdim=True)
        # The error of the mean, which all values share, and of the variance.
        error = (8 + math.sqrt(n)) * u * largest * inverse
        normal = ((x - x.mean((2, 3), keepdim=True)) * inverse).abs()
        error = error + normal * ((16 + math.sqrt(n)) * u + error * 2)
        scale = wide["weight"].abs().view(1, -1, 1, 1) if "weight" in wide else 1.0
        shift = wide["bias"].abs().view(1, -1, 1, 1) if "bias" in wide else 0.0
        return error * scale + 4 * u * shift, inverse

    def _reference(self, case: Case, t: dict[str, Tensor]) -> Tensor:
        """torch's own norm refuses images of one pixel."""
        mean = t["x"].mean((2, 3), keepdim=True)
        centred = t["x"] - mean
        variance = centred.square().mean((2, 3), keepdim=True)
        y = centred * (variance + case["options"]["eps"]).rsqrt()
        if "weight" in t:
            y = y * t["weight"].view(1, -1, 1, 1)
        return y + t["bias"].view(1, -1, 1, 1) if "bias" in t else y

    def upstream(self, case: Case, wide: dict[str, Tensor], grad: Tensor) -> Tensor:
        if case["options"]["activation"] not in KINKED or grad.numel() == 0:
            return grad
        z, (error, _) = self._reference(case, wide), self._error(case, wide)
        return torch.where(z.abs() > 2 * error, grad, 0.0)

    def check(self, case: Case, wide: dict[str, Tensor], results: Results) -> None:
        names = [n for n in ("x", "weight", "bias") if n in wide]
        leaves = {n: wide[n].detach().requires_grad_() for n in names}
        z = self._reference(case, leaves)
        if z.numel() == 0:
            return close("y", results["y"], z.detach(), 0.0, case["dtype"])
        error, inverse = self._error(case, wide)
        activation, dtype = case["options"]["activation"], case["dtype"]
        y, bound = _finished(z.detach(), error, activation, False)
        residual = wide.get("residual", torch.zeros(()))
        bound = bound + 2 * ROUNDOFF["float32"] * (residual.abs() + y.abs())
        close("y", results["y"], y + residual, bound, dtype)
        if "upstream" not in wide or "grad x" not in results:
            return None
        self._check_gradients(case, wide, results, leaves, z, error, inverse)
        return None

    def _check_gradients(
        self,
        case: Case,
        wide: dict[str, Tensor],
        results: Results,
        leaves: dict[str, Tensor],
        z: Tensor,
        error: Tensor,
        inverse: Tensor,
    ) -> None:
        g, dtype, u = wide["upstream"], case["dtype"], ROUNDOFF["float32"]
        y = reference.fused_conv2d.__globals__["activate"](z, case["options"]["activation"])
        wanted = dict(zip(leaves, torch.autograd.grad(y, list(leaves.values()), g)))
        n = g.shape[2] * g.shape[3]
        curvature = CURVATURE.get(case["options"]["activation"], 0.0)
        wrong = g.abs() * (1.1 * (16 + 2 * math.sqrt(n)) * u + curvature * error)
        scale = wide["weight"].abs().view(1, -1, 1, 1) if "weight" in wide else 1.0
        x = wide["x"]
        largest = x.abs().amax((2, 3), keepdim=True)
        normal = (x - x.mean((2, 3), keepdim=True)).abs() * inverse
        # Of (x - mean) / sd, whose error all sums over an image share.
        lost = (32 + 4 * math.sqrt(n)) * u * (1 + largest * inverse)
        mean = (wrong.mean((2, 3), keepdim=True), (wrong * normal).mean((2, 3), keepdim=True))
        size = g.abs().mean((2, 3), keepdim=True)
        bound = wrong + mean[0] + normal * mean[1]
        bound = bound + lost * (size * (1 + normal) * (1 + normal.amax((2, 3), keepdim=True)))
        bound = bound + lost * lost * g.abs().amax((2, 3), keepdim=True)
        bounds = {"x": bound * inverse * scale * 1.1}
        bounds["weight"] = (
            (wrong * normal).sum((2, 3)) + g.abs().sum((2, 3)) * lost[:, :, 0, 0]
        ).sum(0)
        bounds["bias"] = wrong.sum((0, 2, 3))
        for name, want in wanted.items():
            close(f"grad {name}", results[f"grad {name}"], want, bounds[name], dtype)
        if "grad residual" in results:
            close("grad residual", results["grad residual"], g, 0.0, dtype)


class ChannelwiseLinear(Entry):
    """channelwise_linear and its layer; one library call."""

    def __init__(self, name: str, layer: bool) -> None:
        self.name, self.layer = name, layer

    def draw(self, d: Draw, case: Case) -> None:
        case["dtype"] = "float32" if self.layer else d.of(DTYPES)
        sizes = {"n": d.batch(), "c": d.size(65), "h": d.size(17), "w": d.size(17), "o": d.size(65)}
        d.fit(sizes, lambda: float(math.prod(sizes.values())), d.budget(1e6))
        if d.chance(0.4):
            sizes["o"] = sizes["h"] * sizes["w"]
            d.fit(sizes, lambda: float(math.prod(sizes.values())), 1e6)
        d.empty(sizes, ("n",))
        case["sizes"], case["options"] = sizes, {}
        case["x"] = d.tensor(("normal", "normal", "sparse", "integers", "huge"))
        case["weight"] = d.tensor(("normal", "normal", "sparse", "integers"))
        case["bias"] = d.tensor(("normal", "integers")) if d.chance(0.6) else None
        case["upstream"] = d.tensor(("normal", "sparse", "integers", "constant"))

    def specs(self, case: Case) -> dict[str, dict[str, Any]]:
        s = case["sizes"]
        specs = {
            "x": {"shape": (s["n"], s["c"], s["h"], s["w"]), **case["x"]},
            "weight": {"shape": (s["c"], s["o"], s["h"] * s["w"]), **case["weight"]},
        }
        if case["bias"]:
            specs["bias"] = {"shape": (s["c"], s["o"]), **case["bias"]}
        return {n: {"dtype": case["dtype"], "leaf": True, **spec} for n, spec in specs.items()}

    def call(self, case: Case, t: dict[str, Tensor]) -> Sequence[Tensor]:
        if not self.layer:
            return [inpaint_ops.channelwise_linear(t["x"], t["weight"], t.get("bias"))]
        s = case["sizes"]
        size = (s["h"], s["w"])
        layer = inpaint_ops.ChannelwiseLinear(s["c"], size, (s["o"], 1), bias="bias" in t)
        return [functional_call(layer, _parameters(t), (t["x"],))]

    def exact(self, case: Case, again: str, name: str) -> bool:
        return False

    def check(self, case: Case, wide: dict[str, Tensor], results: Results) -> None:
        names = [n for n in ("x", "weight", "bias") if n in wide]
        leaves = {n: wide[n].detach().requires_grad_() for n in names}
        sizes = {n: wide[n].abs().requires_grad_() for n in names}
        y, total = (
            reference.channelwise_linear(t["x"], t["weight"], t.get("bias")).reshape(
                results["y"].shape
            )
            for t in (leaves, sizes)
        )
        s, dtype = case["sizes"], case["dtype"]
        terms = max(s["h"] * s["w"], s["o"], s["n"])
        # Half precision is multiplied by the library, by its own rules.
        c = roundings(terms, False) + (
            4 * ROUNDOFF[dtype] if dtype in ("float16", "bfloat16") else 0
        )
        close("y", results["y"], y.detach(), c * total.detach(), dtype)
        if "upstream" not in wide or "grad x" not in results:
            return
        g = wide["upstream"]
        wanted = torch.autograd.grad(y, list(leaves.values()), g)
        limits = torch.autograd.grad(total, list(sizes.values()), g.abs())
        for name, want, limit in zip(leaves, wanted, limits):
            close(f"grad {name}", results[f"grad {name}"], want, c * limit, dtype)
