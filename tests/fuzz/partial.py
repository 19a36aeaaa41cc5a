"""partial_conv2d of one tensor and of several, and PartialConv2d."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

import inpaint_ops
from fuzz.case import ROUNDOFF, SMALLEST, Entry, Failure, Results, close
from fuzz.convolutions import (
    _largest,
    _parameters,
    _tuples,
    draw_geometry,
    input_gradient_is_ours,
    out_size,
    roundings,
    shrink_image,
    weight_in_place,
)
from fuzz.draws import DTYPES, Case, Draw
from fuzz.tensors import Made, generator, poisoned_where
from inpaint_ops import reference


class PartialConvolution(Entry):
    """partial_conv2d and its layer; `parts`: channels and factor of each tensor."""

    def __init__(self, name: str, layer: bool) -> None:
        self.name, self.layer = name, layer

    def draw(self, d: Draw, case: Case) -> None:
        case["dtype"] = d.of(DTYPES)
        options = draw_geometry(d, case)
        if self.layer and options["padding"] == "same" and options["stride"] != [1, 1]:
            options["padding"] = [0, 0]  # nn.Conv2d takes "same" without strides only
        count = 1 if self.layer or d.chance(0.5) else d.of((2, 2, 3))
        doubled = not self.layer and d.chance(0.35)
        sizes = {"n": d.batch(), "f": d.size(), "h": d.size(65), "w": d.size(65)}
        sizes |= {f"c{i}": d.size(65) for i in range(count)}
        case["factors"] = [d.of((1, 2)) if doubled else 1 for _ in range(count)]
        case["sizes"], case["options"] = sizes, options
        if doubled:
            sizes["h"], sizes["w"] = (-(-sizes[k] // 2) for k in ("h", "w"))
        if d.deep(sizes, case):
            options["dilation"] = [1, 1]
        else:
            d.fit(sizes, lambda: self.cost(case), d.budget())
        self.make_legal(case)
        if d.chance(0.1):
            groups = d.of((2, 3))
            channels = sum(sizes[f"c{i}"] for i in range(count))
            sizes["c0"] += -channels % groups
            sizes["f"] = -(-sizes["f"] // groups) * groups
            options["groups"] = groups
        if not self.layer:
            options["normalise"] = d.of(("window", "window", "sum"))
        d.empty(sizes, ("n",))
        mask = d.mask(soft=True)
        case["many"] = d.chance(0.3)
        for i in range(count):
            case[f"x{i}"] = d.tensor(("normal",) * 4 + ("integers", "sparse", "spike", "huge"))
            own = d.mask(soft=mask["dtype"] not in ("bool", "uint8"))
            case[f"valid{i}"] = {**own, "dtype": mask["dtype"], "planes": d.of(("one", "many"))}
        if self.layer:
            case["valid0"]["planes"] = "many" if case["many"] else "one"
        case["poisoned"] = d.chance(0.5)
        case["weight"] = d.tensor(("normal", "normal", "normal", "sparse", "integers"))
        case["bias"] = d.tensor(("normal", "integers")) if d.chance(0.7) else None
        case["upstream"] = d.tensor(("normal", "normal", "sparse", "integers", "constant"))
        few = d.few_pixels(case) if options.get("groups", 1) == 1 else None
        if few:
            channels, sizes["f"] = few[:2]
            sizes |= {f"c{i}": 1 + i for i in range(1, count)}
            sizes["c0"] = channels - sum(sizes[f"c{i}"] for i in range(1, count))
            shrink_image(case, few[2], lambda: self.make_legal(case), self.result_size)

    def result_size(self, case: Case) -> tuple[int, int]:
        o, sizes = case["options"], []
        for axis, size in enumerate(self._full(case)):
            if o["padding"] == "same":
                sizes.append(-(-size // o["stride"][axis]))
                continue
            where = (case["kernel"][axis], o["stride"][axis], o["padding"][axis])
            sizes.append(max(0, out_size(size, *where, o["dilation"][axis])))
        return sizes[0], sizes[1]

    def _full(self, case: Case) -> tuple[int, int]:
        """Height and width of the image that is convolved."""
        twice = 2 if 2 in case["factors"] else 1
        return case["sizes"]["h"] * twice, case["sizes"]["w"] * twice

    def cost(self, case: Case) -> float:
        s, k, o = case["sizes"], case["kernel"], case["options"]
        h, w = self._full(case)
        pads = [0, 0] if o["padding"] == "same" else o["padding"]
        channels = sum(s[f"c{i}"] for i in range(len(case["factors"])))
        area = (h + 2 * pads[0]) * (w + 2 * pads[1])
        work = s["f"] * k[0] * k[1] / (o["stride"][0] * o["stride"][1])
        return float(s["n"] * channels * area * (work + 8))

    def make_legal(self, case: Case) -> None:
        s, o = case["sizes"], case["options"]
        if o["padding"] == "same":
            return
        for axis, name in enumerate(("h", "w")):
            where = (case["kernel"][axis], o["stride"][axis], o["padding"][axis])
            while out_size(self._full(case)[axis], *where, o["dilation"][axis]) < 1:
                s[name] += 1

    def specs(self, case: Case) -> dict[str, dict[str, Any]]:
        s = case["sizes"]
        h, w = self._full(case)
        specs: dict[str, dict[str, Any]] = {}
        channels = 0
        for i, factor in enumerate(case["factors"]):
            c, size = s[f"c{i}"], (h // factor, w // factor)
            channels += c
            x = case[f"x{i}"]
            specs[f"x{i}"] = {"shape": (s["n"], c, *size), "dtype": case["dtype"], **x}
            specs[f"x{i}"]["leaf"] = True
            mask = case[f"valid{i}"]
            planes = c if mask["planes"] == "many" else 1
            batch = s["n"] if mask["own"] or s["n"] == 0 else 1
            specs[f"valid{i}"] = {"shape": (batch, planes, *size), **mask, "mask": True}
            specs[f"valid{i}"]["valid"] = True
        shape = (s["f"], channels // case["options"].get("groups", 1), *case["kernel"])
        scale = 1 / math.sqrt(math.prod(shape[1:]))
        common = {"dtype": case["dtype"], "leaf": True}
        specs["weight"] = {"shape": shape, "scale": scale, **case["weight"], **common}
        if case["bias"]:
            specs["bias"] = {"shape": shape[:1], **case["bias"], **common}
        return specs

    def prepare(self, case: Case, made: dict[str, Made]) -> None:
        if not case["poisoned"]:
            return
        for i in range(len(case["factors"])):
            x, valid = made[f"x{i}"], made[f"valid{i}"].tensor
            missing = (valid == 0).expand(x.tensor.shape)
            made[f"x{i}"] = poisoned_where(x, missing, generator(case["seed"], f"poison{i}"))

    def call(self, case: Case, t: dict[str, Tensor]) -> Sequence[Tensor]:
        if self.layer:
            layer = inpaint_ops.PartialConv2d(
                case["sizes"]["c0"],
                case["sizes"]["f"],
                tuple(case["kernel"]),
                bias="bias" in t,
                device="meta",
                multi_channel=case["valid0"]["planes"] == "many",
                return_mask=True,
                **{k: tuple(v) if isinstance(v, list) else v for k, v in case["options"].items()},
            )
            y, valid = functional_call(layer, _parameters(t), (t["x0"], t["valid0"]))
            return [y, valid[:, :1]]
        return list(self._apply(inpaint_ops.partial_conv2d, case, t))

    def _apply(self, op: Any, case: Case, t: dict[str, Tensor]) -> Sequence[Tensor]:
        o = _tuples(case["options"])
        count = len(case["factors"])
        x, valid = ([t[f"{name}{i}"] for i in range(count)] for name in ("x", "valid"))
        if count == 1:
            factor = case["factors"][0]
            return op(x[0], valid[0], t["weight"], t.get("bias"), upsample=factor, **o)
        factors = tuple(case["factors"])
        return op(x, valid, t["weight"], t.get("bias"), upsample=factors, **o)

    def fixed(self, case: Case) -> Sequence[str]:
        s = case["sizes"]
        channels = sum(s[f"c{i}"] for i in range(len(case["factors"])))
        weights = s["f"] * channels * case["kernel"][0] * case["kernel"][1]
        return weight_in_place(case, s["n"] * math.prod(self.result_size(case)), weights)

    def exact(self, case: Case, again: str, name: str) -> bool:
        o = case["options"]
        channels = [case["sizes"][f"c{i}"] for i in range(len(case["factors"]))]
        strided = o["stride"][1] > 1 and o["dilation"][1] > 1
        few = min(case["sizes"]["f"], *channels) <= 4
        ours = o.get("groups", 1) == 1 and not (strided and few)
        if name.startswith("grad x"):
            h, w = self._full(case)
            known = input_gradient_is_ours({**case, "options": {**o, "upsample": 2}}, (2, 2))
            ours = ours and known and o["stride"] == [1, 1] and min(h, w) > 11
        return ours and super().exact(case, again, name)

    def check(self, case: Case, wide: dict[str, Tensor], results: Results) -> None:
        names = [n for n in wide if n.startswith("x") or n in ("weight", "bias")]
        count = len(case["factors"])
        # What nobody may read is 0 here, so that sums of magnitudes stay finite.
        given = dict(wide)
        for i in range(count):
            given[f"x{i}"] = torch.where(wide[f"valid{i}"] != 0, wide[f"x{i}"], 0.0)
        leaves = {n: given[n].detach().requires_grad_() for n in names}
        y, share = self._apply(reference.partial_conv2d, case, {**given, **leaves})
        tiled = case["run"]["backend"] in ("auto", "precise") and max(case["kernel"]) > 1
        sizes = {n: given[n].abs().requires_grad_() for n in names}
        total, _ = self._apply(reference.partial_conv2d, case, {**given, **sizes})
        size = total.detach()
        if tiled and size.numel():
            size = size + self._of_tiles(case, wide, given, share)
        terms = sum(case["sizes"][f"c{i}"] for i in range(count)) * math.prod(case["kernel"])
        bound = roundings(terms, tiled) * size
        dtype = case["dtype"]
        close("y", results["y"], y.detach(), bound, dtype)
        self._check_share(case, results["y1"], share)
        if "upstream" not in wide or not any(name.startswith("grad") for name in results):
            return
        g = wide["upstream"]
        wanted = torch.autograd.grad(y, list(leaves.values()), g)
        terms = max(g.numel() // max(1, g.shape[1]), g.shape[1] * math.prod(case["kernel"]))
        limits = torch.autograd.grad(total, list(sizes.values()), g.abs())
        # Only a bound on what a tile mixes in: the largest anywhere.
        mixed = [limit.amax() / 4 if tiled and limit.numel() else 0.0 for limit in limits]
        for name, want, limit, more in zip(leaves, wanted, limits, mixed):
            limit = (limit + more) * roundings(terms, tiled)
            close(f"grad {name}", results[f"grad {name}"], want, limit, dtype)
            if name.startswith("x"):
                valid = wide[f"valid{name[1:]}"].expand_as(want)
                if results[f"grad {name}"][valid == 0].any():
                    raise Failure(f"grad {name} is not 0 in the hole")

    def _of_tiles(
        self, case: Case, wide: dict[str, Tensor], given: dict[str, Tensor], share: Tensor
    ) -> Tensor:
        """What the inputs of a tile may add to a sum that does not see them."""
        images = [given[f"x{i}"] for i in range(len(case["factors"]))]
        largest = torch.cat([_largest(x) for x in images], 1)
        if case["options"].get("groups", 1) > 1:
            return torch.zeros(())
        weight = wide["weight"].abs().sum((2, 3))
        total = (largest @ weight.T)[:, :, None, None] / 2
        terms = math.prod(case["kernel"])
        if case["options"].get("normalise") == "sum":
            return total * (share != 0)
        return total * terms * (share != 0)

    def _check_share(self, case: Case, got: Tensor, want: Tensor) -> None:
        dtype = case["valid0"]["dtype"]
        if got.dtype != getattr(torch, dtype):
            raise Failure(f"valid_out has dtype {got.dtype}, not {dtype}")
        soft = any(case[f"valid{i}"]["values"] == "soft" for i in range(len(case["factors"])))
        u = max(ROUNDOFF.get(dtype, 0.0), 1e-5) if soft else 0.0
        wrong = (got.double() - want.double()).abs() > u * want.double().abs() + SMALLEST["float16"]
        if got.shape != want.shape or bool(wrong.any()):
            raise Failure(
                f"valid_out of {tuple(got.shape)} is not {tuple(want.shape)} as it should"
            )
