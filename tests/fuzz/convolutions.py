"""fused_conv2d, gated_conv2d and fused_conv_transpose2d, and their layers.

Bounds: the result of a sum of n products may be wrong by c(n) u sum |w| |x|, u the unit roundoff
of float32. Winograd sums mix the inputs of a tile, so that there |x| is the largest |x| of the
tile; the bound takes that of the whole channel, which no tile exceeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

import inpaint_ops
from fuzz.case import ROUNDOFF, SMALLEST, Entry, Results, close
from fuzz.draws import DTYPES, Case, Draw
from inpaint_ops import reference
from inpaint_ops.ops.convolution import plan
from inpaint_ops.ops.convolution.spec import ACTIVATIONS, Geometry

# Largest first and second derivatives.
SLOPE = {"silu": 1.1}
CURVATURE = {"elu": 1.0, "silu": 0.5, "tanh": 0.8, "sigmoid": 0.1}
KINKED = ("relu", "leaky_relu")


def roundings(terms: int, tiled: bool) -> float:
    """c(n) u: rounding errors of a sum of n products, relative to the sum of their magnitudes."""
    return (16 + 2 * math.sqrt(terms) + terms / 8) * (4 if tiled else 1) * ROUNDOFF["float32"]


def out_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def draw_geometry(d: Draw, case: Case) -> dict[str, Any]:
    """Kernel, stride, padding and dilation, and an image that they fit."""
    kernel = d.kernel()
    stride = d.pair(lambda: d.of((1, 1, 1, 2, 2, 3)), 0.15)
    dilation = d.pair(lambda: d.of((1, 1, 1, 1, 2, 3, 4)), 0.15)
    reach = [a * (k - 1) for a, k in zip(dilation, kernel)]
    padding: Any = [r // 2 for r in reach]
    choice = d.between(0, 9)
    if choice == 0:
        padding = "same"
    elif choice < 3:
        padding = [0, 0]
    elif choice < 5:
        padding = [d.between(0, r + 2) for r in reach]
    elif choice == 5:
        padding = [d.between(0, 20), d.between(0, 20)]
    case["kernel"] = kernel
    return {"stride": stride, "padding": padding, "dilation": dilation}


def shrink_image(
    case: Case,
    most: int,
    make_legal: Callable[[], None],
    result_size: Callable[[Case], tuple[int, int]],
) -> None:
    """Makes the image so small that the result has about so many pixels."""
    sizes, options = case["sizes"], case["options"]
    if options["padding"] != "same":
        reach = [a * (k - 1) for a, k in zip(options["dilation"], case["kernel"])]
        options["padding"] = [min(p, r // 2) for p, r in zip(options["padding"], reach)]
    sizes["h"] = sizes["w"] = 1
    make_legal()
    for turn in range(40):
        grown = {**sizes, "hw"[turn % 2]: sizes["hw"[turn % 2]] + 1}
        height, width = result_size({**case, "sizes": grown})
        if grown["n"] * height * width <= most:
            sizes.update(grown)


def heighten_image(case: Case, least: int, result_size: Callable[[Case], tuple[int, int]]) -> None:
    """Makes the image so high that it and its result have so many numbers."""
    sizes = case["sizes"]
    while True:
        height, width = result_size(case)
        image = sizes["c"] * sizes["h"] * sizes["w"]
        if min(height, width) >= 1 and image + sizes["f"] * height * width > least:
            return
        sizes["h"] = sizes["h"] * 5 // 4 + 1


def input_gradient_is_ours(case: Case, size: tuple[int, int]) -> bool:
    """Not the library's: uneven strides, wide padding of other kinds, one output for all inputs."""
    o, kernel = case["options"], case["kernel"]
    if size == (1, 1):
        return False
    if o.get("padding_mode", "zeros") != "zeros":
        return bool(o["stride"] == [1, 1] and max(kernel) <= 3 and min(size) > 16)
    if o["stride"] == [1, 1]:
        return True
    even = o["stride"][0] == o["stride"][1] and o["dilation"] == [1, 1]
    even = even and o["padding"] != "same" and o["padding"][0] == o["padding"][1]
    return bool(even and o.get("upsample", 1) == 1 and o["stride"][0] <= min(kernel))


class Convolution(Entry):
    """fused_conv2d and gated_conv2d."""

    transposed = False

    def __init__(self, name: str, layer: bool, gated: bool) -> None:
        self.name, self.layer, self.gated = name, layer, gated
        self.op = getattr(inpaint_ops, "gated_conv2d" if gated else "fused_conv2d")
        self.plain = getattr(reference, "gated_conv2d" if gated else "fused_conv2d")

    def draw(self, d: Draw, case: Case) -> None:
        case["dtype"] = d.of(DTYPES)
        options = draw_geometry(d, case)
        groups = 1 if self.gated or d.chance(0.85) else d.of((2, 3, 4))
        sizes = {"n": d.batch(), "c": d.size(), "f": d.size(), "h": d.size(), "w": d.size()}
        if d.chance(0.15):
            sizes["f"] = d.between(1, 4)
        options["padding_mode"] = d.of(("zeros", "zeros", "zeros", "reflect", "replicate"))
        options["upsample"] = d.of((1, 1, 1, 1, 2))
        options["activation"] = d.of(ACTIVATIONS)
        case["sizes"], case["options"], case["groups"] = sizes, options, groups
        if groups > 1 or not d.deep(sizes, case):
            d.fit(sizes, lambda: self.cost(case), d.budget())
        elif d.chance(0.6):
            options["dilation"] = [1, 1]
            if d.chance(0.2):
                case["kernel"] = [3, 3]
                options |= {"stride": [1, 1], "padding": [1, 1], "upsample": 2}
        if not self.gated:
            options["groups"] = groups
        self.make_legal(case)
        d.empty(sizes, ("n",))
        weights = ("normal",) * 5 + ("sparse", "integers", "huge", "tiny")
        case["x"] = d.tensor()
        case["weight"] = d.tensor(weights if case["x"]["values"] in ("normal",) else ("normal",))
        case["bias"] = d.tensor(("normal", "integers")) if d.chance(0.7) else None
        case["upstream"] = d.tensor(
            ("normal", "normal", "normal", "sparse", "integers", "constant")
        )
        few = d.few_pixels(case, 2 if self.gated else 1) if groups == 1 else None
        if few:
            sizes["c"], sizes["f"] = few[:2]
            shrink_image(case, few[2], lambda: self.make_legal(case), self.result_size)
            return
        steps = d.steps(case) if groups == 1 else 0
        if steps:
            self.make_legal(case)
            heighten_image(case, steps, self.result_size)

    def cost(self, case: Case) -> float:
        s, o = case["sizes"], case["options"]
        h, w = self.result_size(case)
        sums = s["n"] * s["c"] * s["f"] * case["kernel"][0] * case["kernel"][1] * h * w
        pads = [0, 0] if o["padding"] == "same" else o["padding"]
        area = (s["h"] * o["upsample"] + 2 * pads[0]) * (s["w"] * o["upsample"] + 2 * pads[1])
        return sums + 4.0 * s["n"] * s["c"] * area

    def result_size(self, case: Case) -> tuple[int, int]:
        s, o = case["sizes"], case["options"]
        sizes = []
        for axis, name in enumerate(("h", "w")):
            size = s[name] * o["upsample"]
            if o["padding"] == "same":
                sizes.append(-(-size // o["stride"][axis]))
                continue
            pad = o["padding"][axis]
            where = (case["kernel"][axis], o["stride"][axis], pad, o["dilation"][axis])
            sizes.append(max(0, out_size(size, *where)))
        return sizes[0], sizes[1]

    def fixed(self, case: Case) -> Sequence[str]:
        s, (kh, kw) = case["sizes"], case["kernel"]
        height, width = self.result_size(case)
        filters = s["f"] * (2 if self.gated else 1)
        return weight_in_place(case, s["n"] * height * width, filters * s["c"] * kh * kw)

    def make_legal(self, case: Case) -> None:
        """Channels that the groups divide, images that the kernel fits and reflection does."""
        s = case["sizes"]
        groups = case["groups"]
        if groups > 1:
            s["c"], s["f"] = (-(-s[name] // groups) * groups for name in ("c", "f"))
        for axis, name in enumerate(("h", "w")):
            while not self._fits(case, axis, name):
                s[name] += 1

    def _fits(self, case: Case, axis: int, name: str) -> bool:
        s, o = case["sizes"], case["options"]
        size = s[name] * o["upsample"]
        reach = o["dilation"][axis] * (case["kernel"][axis] - 1) + 1
        if o["padding"] == "same":
            step = o["stride"][axis]
            total = max((-(-size // step) - 1) * step + reach - size, 0)
            before, after = total // 2, total - total // 2
        else:
            before = after = o["padding"][axis]
        if o["padding_mode"] == "reflect" and max(before, after) >= size:
            return False
        return bool(size > 0 and size + before + after >= reach)

    def specs(self, case: Case) -> dict[str, dict[str, Any]]:
        s = case["sizes"]
        filters = s["f"] * (2 if self.gated else 1)
        channels = s["c"] // case["options"].get("groups", 1)
        shape = (filters, channels, *case["kernel"])
        scale = 1 / math.sqrt(max(1, math.prod(shape[1:])))
        specs = {
            "x": {"shape": (s["n"], s["c"], s["h"], s["w"]), **case["x"]},
            "weight": {"shape": shape, "scale": scale, **case["weight"]},
        }
        if case["bias"]:
            specs["bias"] = {"shape": (filters,), **case["bias"]}
        return {n: {"dtype": case["dtype"], "leaf": True, **spec} for n, spec in specs.items()}

    def call(self, case: Case, t: dict[str, Tensor]) -> Sequence[Tensor]:
        o = _tuples(case["options"])
        if not self.layer:
            return [self.op(t["x"], t["weight"], t.get("bias"), **o)]
        kind = inpaint_ops.GatedConv2d if self.gated else inpaint_ops.FusedConv2d
        s = case["sizes"]
        layer = kind(s["c"], s["f"], tuple(case["kernel"]), bias="bias" in t, device="meta", **o)
        return [functional_call(layer, _parameters(t), (t["x"],))]

    def exact(self, case: Case, again: str, name: str) -> bool:
        """Groups, and a few strided and dilated filters, are the library's."""
        o = case["options"]
        filters = case["sizes"]["f"] * (2 if self.gated else 1)
        strided = o["stride"][1] > 1 and o["dilation"][1] > 1
        # In the gradient of the input channels and filters change places.
        few = min(filters, case["sizes"]["c"]) <= 4
        ours = o.get("groups", 1) == 1 and not (strided and few)
        if name == "grad x":
            ours = ours and input_gradient_is_ours(case, self.result_size(case))
        return ours and super().exact(case, again, name)

    def sums(self, case: Case, t: dict[str, Tensor]) -> Tensor:
        """The sums before activation and gate."""
        o = {**_tuples(case["options"]), "activation": "identity"}
        return reference.fused_conv2d(t["x"], t["weight"], t.get("bias"), **o)

    def is_tiled(self, case: Case) -> bool:
        one_group = case["options"].get("groups", 1) == 1
        return (
            case["run"]["backend"] in ("auto", "precise") and max(case["kernel"]) > 1 and one_group
        )

    def magnitudes(self, wide: dict[str, Tensor]) -> dict[str, Tensor]:
        """|x|, |weight| and |bias|, for bounds on sums."""
        return {n: wide[n].abs() for n in ("x", "weight", "bias") if n in wide}

    def terms(self, case: Case) -> int:
        return max(1, case["sizes"]["c"] * case["kernel"][0] * case["kernel"][1])

    def error_of_sums(self, case: Case, wide: dict[str, Tensor]) -> Tensor:
        if "error of sums" not in wide:
            tiled = self.is_tiled(case)
            size = self.sums(case, self.magnitudes(wide))
            if tiled and wide["x"].numel():
                weight = wide["weight"].abs().sum((2, 3))
                weight = weight.T if self.transposed else weight
                size = size + (_largest(wide["x"]) @ weight.T)[:, :, None, None] / 2
            wide["error of sums"] = roundings(self.terms(case), tiled) * size
        return wide["error of sums"]

    def upstream(self, case: Case, wide: dict[str, Tensor], grad: Tensor) -> Tensor:
        activation = case["options"]["activation"]
        if activation not in KINKED:
            return grad
        z, error = self.sums(case, wide), self.error_of_sums(case, wide)
        if self.gated:
            z, error = z.chunk(2, 1)[0], error.chunk(2, 1)[0]
        # Half precision keeps the sign of no number below its smallest.
        return torch.where(z.abs() > 2 * error + 2 * SMALLEST[case["dtype"]], grad, 0.0)

    def check(self, case: Case, wide: dict[str, Tensor], results: Results) -> None:
        leaves = {
            # Contiguous: torch's own float64 convolution fails with some layouts of a weight.
            n: wide[n].detach().contiguous().requires_grad_()
            for n in ("x", "weight", "bias")
            if n in wide
        }
        z = self.sums(case, leaves)
        error = self.error_of_sums(case, wide).detach()
        activation, dtype = case["options"]["activation"], case["dtype"]
        y, bound = _finished(z.detach(), error, activation, self.gated)
        close("y", results["y"], y, bound, dtype)
        if "upstream" not in wide or not any(name.startswith("grad") for name in results):
            return
        g = wide["upstream"]
        half = ROUNDOFF[dtype] if dtype in ("float16", "bfloat16") else 0.0
        through, wrong = _through(z.detach(), error, g, activation, self.gated, half)
        wanted = torch.autograd.grad(z, list(leaves.values()), through)
        bounds = self.gradient_bounds(case, wide, through, wrong)
        for name, want, limit in zip(leaves, wanted, bounds):
            close(f"grad {name}", results[f"grad {name}"], want, limit, dtype)

    def gradient_bounds(
        self, case: Case, wide: dict[str, Tensor], through: Tensor, wrong: Tensor
    ) -> Sequence[Tensor]:
        """Of x, weight and bias, from the gradient of the sums and its own error."""
        tiled = self.is_tiled(case)
        sizes = {n: v.requires_grad_() for n, v in self.magnitudes(wide).items()}
        pixels = max(1, through.numel() // max(1, through.shape[1]))
        terms = max(pixels, through.shape[1] * case["kernel"][0] * case["kernel"][1])
        c = roundings(terms, tiled)
        total = c * through.abs() + wrong
        limits = list(torch.autograd.grad(self.sums(case, sizes), list(sizes.values()), total))
        if tiled and through.numel():
            weight = wide["weight"].abs().sum((2, 3))
            weight = weight.T if self.transposed else weight
            g = _largest(through.abs() + wrong)
            limits[0] = limits[0] + c * (g @ weight)[:, :, None, None] / 2
            both = g.T @ _largest(wide["x"]) * pixels / len(g) / 8
            limits[1] = limits[1] + c * (both.T if self.transposed else both)[:, :, None, None]
        return limits


class TransposedConvolution(Convolution):
    """fused_conv_transpose2d."""

    transposed = True

    def __init__(self, name: str, layer: bool) -> None:
        super().__init__(name, layer, False)
        self.op = inpaint_ops.fused_conv_transpose2d
        self.plain = reference.fused_conv_transpose2d

    def draw(self, d: Draw, case: Case) -> None:
        case["dtype"] = d.of(DTYPES)
        case["kernel"] = d.kernel()
        stride = d.of((1, 2, 2, 2, 3, 4))
        padding = d.of((0, 1, 1, 2, d.between(0, 6)))
        sizes = {"n": d.batch(), "c": d.size(), "f": d.size(), "h": d.size(65), "w": d.size(65)}
        options = {"stride": stride, "padding": padding, "activation": d.of(ACTIVATIONS)}
        case["sizes"], case["options"] = sizes, options
        if d.deep(sizes, case):
            case["kernel"] = [4, 4] if stride == 2 else case["kernel"]
        else:
            d.fit(sizes, lambda: self.cost(case), d.budget())
        for axis, name in enumerate(("h", "w")):
            while (sizes[name] - 1) * stride - 2 * padding + case["kernel"][axis] < 1:
                sizes[name] += 1
        d.empty(sizes, ("n",))
        case["x"], case["weight"] = d.tensor(), d.tensor(("normal", "normal", "sparse"))
        case["bias"] = d.tensor(("normal", "integers")) if d.chance(0.7) else None
        case["upstream"] = d.tensor(("normal", "normal", "sparse", "integers", "constant"))
        few = d.few_pixels(case)
        if few:
            sizes["c"], sizes["f"] = few[:2]
            sizes["h"] = min(sizes["h"], max(1, few[2] // max(1, 2 * sizes["n"])))
            sizes["w"] = max(1, few[2] // max(1, sizes["n"] * sizes["h"]))
            options["padding"] = min(padding, (min(case["kernel"]) - 1) // 2)
            return
        steps = d.steps(case)
        if steps:
            heighten_image(case, steps, self.result_size)

    def result_size(self, case: Case) -> tuple[int, int]:
        s, o = case["sizes"], case["options"]
        height, width = (
            (s[name] - 1) * o["stride"] - 2 * o["padding"] + kernel
            for name, kernel in zip(("h", "w"), case["kernel"])
        )
        return height, width

    def cost(self, case: Case) -> float:
        s = case["sizes"]
        result = (s["h"] * case["options"]["stride"] + 12) * (
            s["w"] * case["options"]["stride"] + 12
        )
        work = s["n"] * s["c"] * s["f"] * s["h"] * s["w"] * case["kernel"][0] * case["kernel"][1]
        return work + 4.0 * s["n"] * s["f"] * result

    def specs(self, case: Case) -> dict[str, dict[str, Any]]:
        specs = super().specs({**case, "options": {}})
        f, c, *kernel = specs["weight"]["shape"]
        specs["weight"]["shape"] = (c, f, *kernel)
        return specs

    def call(self, case: Case, t: dict[str, Tensor]) -> Sequence[Tensor]:
        if not self.layer:
            return [self.op(t["x"], t["weight"], t.get("bias"), **case["options"])]
        s, kernel = case["sizes"], tuple(case["kernel"])
        layer = inpaint_ops.FusedConvTranspose2d(
            s["c"], s["f"], kernel, bias="bias" in t, device="meta", **case["options"]
        )
        return [functional_call(layer, _parameters(t), (t["x"],))]

    def fixed(self, case: Case) -> Sequence[str]:
        s, (kh, kw) = case["sizes"], case["kernel"]
        return weight_in_place(case, s["n"] * s["h"] * s["w"], s["f"] * s["c"] * kh * kw)

    def exact(self, case: Case, again: str, name: str) -> bool:
        """One pixel is a matrix product, and strides beyond the kernel are the library's."""
        s, o = case["sizes"], case["options"]
        product = s["h"] == s["w"] == 1 and o["padding"] == 0
        ours = not product and o["stride"] <= min(case["kernel"])
        return ours and Entry.exact(self, case, again, name)

    def sums(self, case: Case, t: dict[str, Tensor]) -> Tensor:
        o = {**case["options"], "activation": "identity"}
        return reference.fused_conv_transpose2d(t["x"], t["weight"], t.get("bias"), **o)


def weight_in_place(case: Case, pixels: int, weights: int) -> Sequence[str]:
    """The weight, where few pixels read a contiguous one as it lies, in one of the passes."""
    if case["run"]["backend"] not in ("auto", "precise"):
        return ()
    # The rule for gradients, which takes the most pixels, where there are any.
    geometry = Geometry((1, 1), (0, 0, 0, 0), (1, 1))
    what = plan.Convolution(geometry, kind="scattered", backward=case["run"]["grad"])
    shapes = plan.Shapes(1, (1, pixels), (weights, 1, 1, 1), (), in_place=True)
    return ("weight",) if plan.choose(what, shapes) == "unpacked" else ()


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def _parameters(t: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: t[n] for n in ("weight", "bias") if n in t}


def _largest(x: Tensor) -> Tensor:
    """(N, C), of each plane."""
    return x.abs().amax((2, 3))


def _finished(z: Tensor, error: Tensor, activation: str, gated: bool) -> tuple[Tensor, Tensor]:
    """Activation and gate of the sums, and the bound on their errors."""
    u = ROUNDOFF["float32"]
    own = 8 * u if activation not in (*KINKED, "identity") else 0.0
    slope = SLOPE.get(activation, 1.0)
    activate = reference.fused_conv2d.__globals__["activate"]
    if not gated:
        y = activate(z, activation)
        return y, slope * error + own * y.abs().clamp_max(1.0) + 4 * u * y.abs()
    f, gate = z.chunk(2, 1)
    error_f, error_gate = error.chunk(2, 1)
    s, a = gate.sigmoid(), activate(f, activation)
    bound = slope * error_f * s + a.abs() * (error_gate * s * (1 - s) + error_gate.square())
    return a * s, bound + 16 * u * (a * s).abs() + own * s * a.abs().clamp_max(1)


def _through(
    z: Tensor, error: Tensor, g: Tensor, activation: str, gated: bool, half: float
) -> tuple[Tensor, Tensor]:
    """The gradient of the sums, and the bound on its errors."""
    u = ROUNDOFF["float32"]
    curvature = CURVATURE.get(activation, 0.0)
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        activate = reference.fused_conv2d.__globals__["activate"]
        if gated:
            f, gate = leaf.chunk(2, 1)
            y = activate(f, activation) * gate.sigmoid()
        else:
            y = activate(leaf, activation)
        (through,) = torch.autograd.grad(y, leaf, g)
    if not gated:
        # Derivatives of tanh and its like are found again from the rounded result.
        return through, g.abs() * (curvature * error + 2 * half + 16 * u)
    f, gate = z.chunk(2, 1)
    error_f, error_gate = error.chunk(2, 1)
    a, slope = activate(f, activation).abs(), SLOPE.get(activation, 1.0)
    wrong_f = g.abs() * (curvature * error_f + slope * error_gate / 4 + 16 * u)
    wrong_gate = g.abs() * (slope * error_f / 4 + a * (error_gate / 8 + 16 * u))
    return through, torch.cat([wrong_f, wrong_gate], 1)
