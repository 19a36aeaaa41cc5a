"""contextual_attention, id_mrf_loss, and their layers.

A softmax of scores of several hundred multiplies rounding errors, by how much only the values tell.
So the reference runs again, on inputs that differ by a few roundings: what the kernel may be wrong
by is a multiple of what these runs differ by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import inpaint_ops
from fuzz.case import ROUNDOFF, Entry, Failure, Results, close
from fuzz.draws import DTYPES, Case, Draw
from fuzz.tensors import generator
from inpaint_ops import reference

KINDS = ("normal",) * 6 + ("integers", "sparse", "constant", "zeros")


def sensitivity(
    case: Case, run: Callable[[dict[str, Tensor]], Sequence[Tensor]], wide: dict[str, Tensor]
) -> tuple[list[Tensor], list[float]]:
    """Results of the reference, and how far each moves when inputs move by four roundings."""
    wanted = [x.detach() for x in run(wide)]
    u = ROUNDOFF["float64" if case["dtype"] == "float64" else "float32"]
    moved = [0.0] * len(wanted)
    g = generator(case["seed"], "sensitivity")
    neighbours = []
    for _ in range(3):
        near = {}
        for name, x in wide.items():
            noise = torch.rand(x.shape, generator=g, dtype=torch.float64) * 2 - 1
            floating = x.is_floating_point() and name != "upstream"
            near[name] = x * (1 + 8 * u * noise) if floating else x
        neighbours.append(near)
    if case["dtype"] != "float64":
        # What the formula itself loses in float32, where a vector is all but cancelled.
        narrow = {n: x.float() if x.is_floating_point() else x for n, x in wide.items()}
        neighbours.append(narrow)
    for near in neighbours:
        for i, value in enumerate(run(near)):
            apart = (value.detach().double() - wanted[i]).abs()
            moved[i] = max(moved[i], apart.amax().item() if apart.numel() else 0.0)
    return wanted, moved


class ContextualAttention(Entry):
    """contextual_attention and ContextualAttention."""

    def __init__(self, name: str, layer: bool) -> None:
        self.name, self.layer = name, layer

    def draw(self, d: Draw, case: Case) -> None:
        case["dtype"] = d.of(DTYPES)
        rate = d.of((1, 2, 2, 2, 3, 4))
        sizes = {"n": d.batch(), "c": d.size()}
        same = d.chance(0.5)
        names = ("h", "w") if same else ("h", "w", "hb", "wb")
        sizes |= {name: d.size(65) for name in names}
        case["sizes"] = sizes

        def cost() -> float:
            s = sizes
            queries = (s["h"] / rate + 1) * (s["w"] / rate + 1)
            keys = (s.get("hb", s["h"]) / rate + 1) * (s.get("wb", s["w"]) / rate + 1)
            return s["n"] * queries * keys * (s["c"] * (9 + 4 * rate * rate) + 30)

        d.fit(sizes, cost, d.budget(2e6))
        d.empty(sizes, ("n",))
        case["options"] = {
            "rate": rate,
            "softmax_scale": d.of((10.0, 10.0, 1.0, 0.1, -3.0, 0.0)),
            "fuse": d.chance(0.5),
            "pick": d.of(("floor", "align_corners")),
            "key_norm": d.of(("max", "sum")),
            "hole_mode": d.of(("zero", "exclude")),
            "overlap": d.of(("constant", "count")),
        }
        case["scale"] = d.of((0.3, 0.3, 0.1, 1.0))
        case["self"] = same and d.chance(0.5)
        case["fg"], case["bg"] = d.tensor(KINDS), d.tensor(KINDS)
        case["hole"] = d.mask() if d.chance(0.7) else None
        case["upstream"] = d.tensor(("normal", "normal", "sparse", "integers", "constant"))

    def specs(self, case: Case) -> dict[str, dict[str, Any]]:
        s, rate = case["sizes"], case["options"]["rate"]
        h, w = s.get("hb", s["h"]), s.get("wb", s["w"])
        common = {"dtype": case["dtype"], "leaf": True, "scale": case["scale"]}
        specs = {"fg": {"shape": (s["n"], s["c"], s["h"], s["w"]), **common, **case["fg"]}}
        if not case["self"]:
            specs["bg"] = {"shape": (s["n"], s["c"], h, w), **common, **case["bg"]}
        if case["hole"]:
            size = (h, w) if self.layer else (-(-h // rate), -(-w // rate))
            shape = (s["n"] if case["hole"]["own"] else 1, 1, *size)
            specs["hole"] = {"shape": shape, "mask": True, **case["hole"]}
        return specs

    def call(self, case: Case, t: dict[str, Tensor]) -> Sequence[Tensor]:
        pair = (t["fg"], t.get("bg", t["fg"]))
        if not self.layer:
            return inpaint_ops.contextual_attention(
                *pair, t.get("hole"), return_index=True, **case["options"]
            )
        layer = inpaint_ops.ContextualAttention(n_down=0, **case["options"])
        return layer.match(*pair, t.get("hole"))

    def exact(self, case: Case, again: str, name: str) -> bool:
        return bool(case["run"]["backend"] != "reference")

    def _hole(self, case: Case, t: dict[str, Tensor]) -> Tensor | None:
        """The layer's mask is as large as the image."""
        hole = t.get("hole")
        if hole is None or not self.layer:
            return hole
        rate, pick = case["options"]["rate"], case["options"]["pick"]
        picked = reference.contextual_attention.__globals__["picked_pixels"]
        rows, columns = (picked(size, rate, pick) for size in hole.shape[2:])
        return hole[:, :, rows][:, :, :, columns]

    def _run(self, case: Case, t: dict[str, Tensor], with_grad: bool) -> Sequence[Tensor]:
        names = [name for name in ("fg", "bg") if name in t]
        leaves = {n: t[n].detach().requires_grad_(with_grad) for n in names}
        y, _ = reference.contextual_attention(
            leaves["fg"],
            leaves.get("bg", leaves["fg"]),
            self._hole(case, t),
            return_index=True,
            **case["options"],
        )
        if not with_grad:
            return [y]
        held = list(leaves.values())
        if y.numel() == 0:
            return [y, *(torch.zeros_like(leaf) for leaf in held)]
        return [y, *torch.autograd.grad(y, held, t["upstream"])]

    def check(self, case: Case, wide: dict[str, Tensor], results: Results) -> None:
        with_grad = "upstream" in wide and "grad fg" in results
        wanted, moved = sensitivity(case, lambda t: self._run(case, t, with_grad), wide)
        names = ["y", *(f"grad {n}" for n in ("fg", "bg") if n in wide)]
        c = wide["fg"].shape[1]
        u = ROUNDOFF["float64" if case["dtype"] == "float64" else "float32"]
        for name, want, apart in zip(names, wanted, moved):
            largest = want.abs().amax().item() if want.numel() else 0.0
            limit = (8 + math.sqrt(9 * c)) * apart + (
                64 + 2 * math.sqrt(want.numel())
            ) * u * largest
            if name != "y":
                # A sum over cells of terms that may cancel; the softmax scales the roundings of
                # scores, which fusing sums by nines.
                o = case["options"]
                steep = 1 + abs(o["softmax_scale"]) * (9 if o["fuse"] else 1)
                steepest = wide["upstream"].abs().amax().item() * steep if want.numel() else 0.0
                limit += 64 * u * steepest
            if name == "grad fg" and case["self"]:
                # Two gradients, each rounded to the type, are added.
                limit += 8 * ROUNDOFF[case["dtype"]] * largest
            close(name, results[name], want, limit, case["dtype"])
        self._check_index(case, wide, results["y1"])

    def _check_index(self, case: Case, wide: dict[str, Tensor], index: Tensor) -> None:
        fg, bg, hole = wide["fg"], wide.get("bg", wide["fg"]), self._hole(case, wide)
        options = reference.contextual_attention.__globals__["AttentionOptions"](**case["options"])
        make = reference.contextual_attention.__globals__["_Matching"]
        fuse = reference.contextual_attention.__globals__["_fuse"]
        for i in range(fg.shape[0]):
            own = None if hole is None else hole[i % hole.shape[0]][None]
            sample = make(fg[i : i + 1], bg[i : i + 1], own, options)
            keys, cells = (
                sample.keys / sample.norm,
                torch.nn.functional.unfold(sample.f, 3, padding=1),
            )
            scores, sizes = keys @ cells, keys.abs() @ cells.abs()
            if options.fuse:
                where = (sample.h, sample.w, sample.hb, sample.wb)
                scores, sizes = fuse(scores, *where), fuse(sizes, *where)
            usable = sample.usable.flatten()
            flat = scores[0] * options.softmax_scale
            chosen = index[i].flatten()
            if not usable.any():
                if chosen.any():
                    raise Failure("no key may be used, and the index is not 0")
                continue
            if not usable[chosen].all():
                raise Failure("the index is of a key that may not be used")
            best = flat.masked_fill(~usable[:, None], float("-inf")).amax(0)
            at = flat.gather(0, chosen[None])[0]
            u = ROUNDOFF["float64" if case["dtype"] == "float64" else "float32"]
            limit = sizes[0].amax(0) * abs(options.softmax_scale) * u
            close(
                "score of the index",
                at,
                best,
                limit * (64 + 8 * math.sqrt(9 * fg.shape[1])),
                "float32",
            )


class IDMRFLoss(Entry):
    """id_mrf_loss and IDMRFLoss."""

    def __init__(self, name: str, layer: bool) -> None:
        self.name, self.layer = name, layer

    def draw(self, d: Draw, case: Case) -> None:
        case["dtype"] = d.of(DTYPES)
        sizes = {"n": d.batch(), "c": d.size(), "h": d.size(65), "w": d.size(65)}
        d.fit(
            sizes,
            lambda: float(sizes["n"] * (sizes["c"] + 30) * (sizes["h"] * sizes["w"]) ** 2),
            d.budget(2e6),
        )
        reduction = d.of(("sum", "mean") if self.layer else ("sum", "mean", "none"))
        if reduction != "mean":
            d.empty(sizes, ("n",))
        case["sizes"] = sizes
        positions = sizes["h"] * sizes["w"]
        case["options"] = {
            "bandwidth": d.of((0.5, 0.5, 0.1, 2.0)),
            "eps": d.of((1e-5, 1e-3, 0.1)),
            "center": d.of(("channel", "spatial")),
            "reduction": reduction,
            "exclude_self": d.chance(0.4),
            "max_patches": d.between(1, positions) if d.chance(0.2) else None,
        }
        case["mix"] = d.of((0.0, 0.3, 0.6))
        case["generated"] = d.tensor(("normal",) * 5 + ("integers", "sparse", "constant"))
        case["target"] = d.tensor(("normal",) * 5 + ("integers", "sparse", "zeros"))
        case["upstream"] = d.tensor(("normal", "integers"))

    def specs(self, case: Case) -> dict[str, dict[str, Any]]:
        s = case["sizes"]
        common = {"shape": (s["n"], s["c"], s["h"], s["w"]), "dtype": case["dtype"]}
        return {
            "generated": {**common, **case["generated"], "leaf": True},
            "target": {**common, **case["target"], "leaf": not self.layer},
        }

    def _apply(self, op: Any, case: Case, t: dict[str, Tensor]) -> Tensor:
        g = generator(case["seed"], "patches")
        return op(t["generated"], t["target"], generator=g, **case["options"])

    def call(self, case: Case, t: dict[str, Tensor]) -> Sequence[Tensor]:
        if not self.layer:
            return [self._apply(inpaint_ops.id_mrf_loss, case, t)]
        layer = inpaint_ops.IDMRFLoss(lambda x: {"a": x}, {"a": 2.0}, **case["options"])
        return [layer(t["generated"], t["target"], generator(case["seed"], "patches"))]

    def exact(self, case: Case, again: str, name: str) -> bool:
        return bool(again == "threads" and case["run"]["backend"] != "reference")

    def _run(self, case: Case, t: dict[str, Tensor], with_grad: bool) -> Sequence[Tensor]:
        leaves = {n: t[n].detach().requires_grad_(with_grad) for n in ("generated", "target")}
        o, g = case["options"], generator(case["seed"], "patches")
        module = reference.id_mrf_loss.__globals__
        pair = module["drawn"](leaves["generated"], leaves["target"], o["max_patches"], g)
        units = module["unit_vectors"](*pair, o["center"])
        wanted = module["IdMrfOptions"](o["bandwidth"], o["eps"], o["exclude_self"])
        similar = module["similarity"](*(x.flatten(2) for x in units), wanted)
        y = -similar.max(2).values.mean(1).log()
        if o["reduction"] != "none":
            y = y.sum() if o["reduction"] == "sum" else y.mean()
        y = y * (2.0 if self.layer else 1.0)
        if not with_grad:
            return [y]
        held = [leaves[n] for n in self._held()]
        grads = torch.autograd.grad(y, [*held, *units], t["upstream"], allow_unused=True)
        return [
            y,
            *(torch.zeros_like(x) if v is None else v for v, x in zip(grads, [*held, *units])),
        ]

    def _held(self) -> list[str]:
        return ["generated"] if self.layer else ["generated", "target"]

    def _cancelled(self, case: Case, wide: dict[str, Tensor], loss: Tensor) -> float:
        """Size of the terms of a gradient, over the length of the vectors: most may cancel.

        The loss has the slope exp(loss) in the mean similarity, a similarity 1 / bandwidth / eps at
        most in a distance, and each position is one of many.
        """
        over = (1,) if case["options"]["center"] == "channel" else (0, 2, 3)
        mean = wide["target"].mean(over, keepdim=True)
        shortest = 1.0
        for name in ("generated", "target"):
            length = (wide[name] - mean).square().sum(1).sqrt()
            shortest = min([shortest, *length[length > 0].flatten().tolist()])
        slope = loss.max().clamp_max(30).exp().item() / case["options"]["bandwidth"]
        size = wide["upstream"].abs().amax().item() * slope / case["options"]["eps"]
        return size / shortest / (case["sizes"]["h"] * case["sizes"]["w"])

    def check(self, case: Case, wide: dict[str, Tensor], results: Results) -> None:
        with_grad = "upstream" in wide and "grad generated" in results
        wanted, moved = sensitivity(case, lambda t: self._run(case, t, with_grad), wide)
        u = ROUNDOFF["float64" if case["dtype"] == "float64" else "float32"]
        s = case["sizes"]
        names = ["y", *(f"grad {name}" for name in self._held())]
        cancelled = self._cancelled(case, wide, wanted[0]) if with_grad and s["n"] else 0.0
        lost = self._lost(case, wide, u) if s["n"] else 0.0
        if lost > 0.3:
            return  # distances that are all rounding, measured against eps
        if with_grad and s["n"] and self._tied(case, wide, u):
            names = names[:1]
        for name, want, apart in zip(names, wanted, moved):
            largest = want.abs().amax().item() if want.numel() else 0.0
            terms = math.sqrt(s["h"] * s["w"])
            limit = (16 + 2 * math.sqrt(s["c"])) * apart + (64 * u * terms + lost) * largest
            limit += 64 * u + lost if name == "y" else 8 * u * cancelled
            got = results[name]
            if name.startswith("grad ") and want.numel():
                leaf = wide[name.removeprefix("grad ")]
                # Each of the gradients that are added was rounded to the type.
                rounded = ROUNDOFF[case["dtype"]] * _of_equal_vectors(got.double().abs(), leaf)
                got, want = (_of_equal_vectors(g, leaf) for g in (got.double(), want.double()))
                limit = limit * s["h"] * s["w"] / len(got) * s["n"] + rounded
            close(name, got, want, limit, case["dtype"])

    def _tied(self, case: Case, wide: dict[str, Tensor], u: float) -> bool:
        """Whether different vectors are equally near: which of them has the gradient is open."""
        o, g = case["options"], generator(case["seed"], "patches")
        module = reference.id_mrf_loss.__globals__
        pair = module["drawn"](wide["generated"], wide["target"], o["max_patches"], g)
        made, target = (x.flatten(2) for x in module["unit_vectors"](*pair, o["center"]))
        wanted = module["IdMrfOptions"](o["bandwidth"], o["eps"], o["exclude_self"])
        similar = module["similarity"](made, target, wanted)
        near = target.transpose(1, 2) @ made
        over = (1,) if o["center"] == "channel" else (0, 2, 3)
        # Gradients are divided by the lengths of these.
        centred = [x - pair[1].mean(over, keepdim=True) for x in pair]
        limit = 16 * u
        return _has_tie(similar, centred[0], 2, 1, limit) or (
            _has_tie(near, centred[1], 1, 2 if o["exclude_self"] else 1, limit)
        )

    def _lost(self, case: Case, wide: dict[str, Tensor], u: float) -> float:
        """How far exponents of the softmax may be wrong: distances are divided by the least."""
        o, g = case["options"], generator(case["seed"], "patches")
        module = reference.id_mrf_loss.__globals__
        pair = module["drawn"](wide["generated"], wide["target"], o["max_patches"], g)
        made, target = (x.flatten(2) for x in module["unit_vectors"](*pair, o["center"]))
        least = ((1 - target.transpose(1, 2) @ made) / 2).amin().clamp_min(0.0).item()
        over = (1,) if o["center"] == "channel" else (0, 2, 3)
        mean = wide["target"].mean(over, keepdim=True)
        digits = 1.0  # that centring takes from a vector
        for name in ("generated", "target"):
            length = (wide[name] - mean).square().sum(1).sqrt().amin().item()
            digits = max(digits, wide[name].abs().amax().item() / max(length, 1e-300))
        of_cosine = u * (4 + math.sqrt(case["sizes"]["c"])) * digits
        return 8 * of_cosine / (o["bandwidth"] * (least + o["eps"]))


def _has_tie(score: Tensor, leaf: Tensor, axis: int, ranks: int, limit: float) -> bool:
    """Whether one of the best along an axis is followed by a different vector just as good."""
    best, which = score.topk(min(ranks + 1, score.shape[axis]), axis)
    close_by = best.diff(dim=axis).abs() <= limit
    vectors = leaf.flatten(2).transpose(1, 2)
    for sample in range(len(vectors)):
        of = vectors[sample][which[sample]]  # the axis is one less without samples
        first = of.narrow(axis - 1, 0, of.shape[axis - 1] - 1)
        other = of.narrow(axis - 1, 1, of.shape[axis - 1] - 1)
        if (close_by[sample] & (first != other).any(-1)).any():
            return True
    return False


def _of_equal_vectors(gradient: Tensor, leaf: Tensor) -> Tensor:
    """(vectors, C): sums over positions with equal vectors, any of which may be the nearest."""
    sums = []
    for g, x in zip(gradient.flatten(2), leaf.flatten(2)):
        vectors, group = x.T.unique(dim=0, return_inverse=True)
        sums.append(g.new_zeros(vectors.shape).index_add_(0, group, g.T))
    return torch.cat(sums)
