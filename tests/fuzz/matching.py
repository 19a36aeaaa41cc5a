"""nearest_patch, refine_patch, shift_connection with its layer, and the votes of fill_exemplar.

Of an index its score is compared, in float64: of keys whose scores differ by less than a rounding
error any may win. Small integers leave no rounding errors, so there the lowest of equals must.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import inpaint_ops
from fuzz.case import ROUNDOFF, Entry, Failure, Results, close
from fuzz.draws import DTYPES, Case, Draw
from fuzz.tensors import Made, generator, poisoned_where, same_bits
from inpaint_ops import reference
from inpaint_ops.exemplar.vote import vote

KINDS = ("normal",) * 4 + ("integers", "integers", "sparse", "constant", "spike", "huge", "zeros")


def unit(dtype: str) -> float:
    """Roundoff of the sums."""
    return ROUNDOFF["float64" if dtype == "float64" else "float32"]


def growth(terms: int) -> float:
    """Roundoffs that a sum of so many products may lose."""
    return 16 + 2 * math.sqrt(terms) + terms / 8


def grid(size: int, patch: int, stride: int) -> int:
    return len(reference.patch_origins(size, patch, stride))


def patches(x: Tensor, patch: int, stride: int) -> Tensor:
    """(N, patches, C k k)."""
    rows = reference.patch_origins(x.shape[2], patch, stride)
    columns = reference.patch_origins(x.shape[3], patch, stride)
    dense = x.unfold(2, patch, 1).unfold(3, patch, 1)[:, :, rows][:, :, :, columns]
    return dense.permute(0, 2, 3, 1, 4, 5).reshape(x.shape[0], len(rows) * len(columns), -1)


class _Matching(Entry):
    """Query, key and a mask of valid key pixels, under which nothing may be read."""

    def draw_sizes(self, d: Draw, case: Case, patch: int) -> None:
        sizes = {"n": d.batch(), "c": d.size()}
        sizes |= {name: d.size(65) for name in ("hq", "wq", "hk", "wk")}
        case["sizes"] = sizes

        def cost() -> float:
            s = sizes
            keys = s["hk"] * s["wk"] / case["options"].get("key_stride", 1) ** 2
            queries = s["hq"] * s["wq"] / case["options"].get("stride", 1) ** 2
            depth = s["n"] * s["c"] * patch * patch
            return depth * (queries * keys + 4 * queries + 4 * keys) + s["n"] * queries * keys

        d.fit(sizes, cost, d.budget(2e6))
        if d.chance(0.93):
            for name in ("hq", "wq", "hk", "wk"):
                sizes[name] = max(sizes[name], patch)
        d.empty(sizes, ("n", "hq", "wk"))

    def draw_tensors(self, d: Draw, case: Case) -> None:
        case["dtype"] = d.of(DTYPES)
        case["query"] = d.tensor(KINDS)
        values = case["query"]["values"] if d.chance(0.7) else d.of(KINDS)
        case["key"] = {**d.tensor(KINDS), "values": values}
        case["valid"] = d.mask() if d.chance(0.5) else None
        case["where"] = d.mask() if d.chance(0.3) else None
        case["poisoned"] = d.chance(0.5)

    def match_specs(self, case: Case, queries: Sequence[int]) -> dict[str, dict[str, Any]]:
        s, dtype = case["sizes"], case["dtype"]
        specs = {
            "query": {"shape": (s["n"], s["c"], s["hq"], s["wq"]), "dtype": dtype, **case["query"]},
            "key": {"shape": (s["n"], s["c"], s["hk"], s["wk"]), "dtype": dtype, **case["key"]},
        }
        for name, size in (("valid", (s["hk"], s["wk"])), ("where", queries)):
            if case[name]:
                batch = s["n"] if case[name]["own"] else 1
                shape = (batch, 1, *size)
                specs[name] = {"shape": shape, **case[name], "mask": True, "valid": name == "valid"}
        return specs

    def prepare(self, case: Case, made: dict[str, Made]) -> None:
        if case["poisoned"] and "valid" in made:
            missing = (made["valid"].tensor == 0).expand_as(made["key"].tensor)
            g = generator(case["seed"], "poison")
            made["key"] = poisoned_where(made["key"], missing, g)

    def is_exact(self, case: Case) -> bool:
        """Whether all sums are of small integers; bfloat16 input is as good as float32."""
        whole = ("integers", "zeros")
        return case["query"]["values"] in whole and case["key"]["values"] in whole

    def exact(self, case: Case, again: str, name: str) -> bool:
        return bool(case["run"]["backend"] != "reference")


class NearestPatch(_Matching):
    name = "nearest_patch"

    def draw(self, d: Draw, case: Case) -> None:
        patch = d.of((1, 1, 2, 3, 3, 3, 4, 5, 7))
        case["options"] = {
            "patch_size": patch,
            "stride": d.of((1, 1, 1, 2, 3)),
            "key_stride": d.of((1, 1, 1, 2, 3)),
            "metric": d.of(("cosine", "l2")),
        }
        self.draw_sizes(d, case, patch)
        self.draw_tensors(d, case)
        if d.chance(0.3):
            self.draw_dense(d, case)

    def draw_dense(self, d: Draw, case: Case) -> None:
        """Compare all pairs of larger images: the way that csrc takes is the cheapest one."""
        case["options"] |= {"patch_size": d.of((3, 4, 5, 7, 7)), "stride": 1, "key_stride": 1}
        case["sizes"]["n"] = max(1, case["sizes"]["n"] % 2)
        case["sizes"]["c"] = d.of((1, 2, 3, 3, 4, 5, 8, 17))
        for name in ("hq", "wq", "hk", "wk"):
            case["sizes"][name] = d.between(12, 36)
        if d.chance(0.05):  # more key columns than a block of csrc/matching/by_products.h
            case["options"]["patch_size"] = 7
            case["sizes"] |= {"c": 8, "hq": 12, "wq": 70, "hk": 12, "wk": d.between(140, 160)}
        for name in ("valid", "where"):
            if case[name] and d.chance(0.6):
                case[name] = None

    def specs(self, case: Case) -> dict[str, dict[str, Any]]:
        s, o = case["sizes"], case["options"]
        size = [grid(s[name], o["patch_size"], o["stride"]) for name in ("hq", "wq")]
        return self.match_specs(case, size)

    def call(self, case: Case, t: dict[str, Tensor]) -> Sequence[Tensor]:
        masks = {n: t[n] for n in ("valid", "where") if n in t}
        index, score = inpaint_ops.nearest_patch(t["query"], t["key"], **masks, **case["options"])
        return [score, index]

    def check(self, case: Case, wide: dict[str, Tensor], results: Results) -> None:
        o, s = case["options"], case["sizes"]
        index, score = results["y1"], results["y"]
        n, k = s["n"], o["patch_size"]
        size = [grid(s[name], k, o["stride"]) for name in ("hq", "wq")]
        if tuple(index.shape) != (n, *size) or index.shape != score.shape:
            raise Failure(f"index has shape {tuple(index.shape)}, not {(n, *size)}")
        if index.numel() == 0:
            return
        keys = grid(s["hk"], k, o["key_stride"]) * grid(s["wk"], k, o["key_stride"])
        if keys == 0 or s["hk"] < k or s["wk"] < k:
            if (index != -1).any() or (score != -math.inf).any():
                raise Failure("there is no key, and yet an index")
            return
        self._check_scores(case, wide, index.flatten(1), score.double().flatten(1))

    def _check_scores(
        self, case: Case, wide: dict[str, Tensor], index: Tensor, score: Tensor
    ) -> None:
        o, n = case["options"], case["sizes"]["n"]
        key = wide["key"]
        usable = torch.ones_like(key[:, :1], dtype=torch.bool)
        if "valid" in wide:
            usable = (wide["valid"] != 0).expand(n, 1, *key.shape[2:])
            key = torch.where(usable, key, 0.0)
        q = patches(wide["query"], o["patch_size"], o["stride"])
        k = patches(key, o["patch_size"], o["key_stride"])
        whole = patches(usable.double(), o["patch_size"], o["key_stride"]).amin(2) > 0
        products = q @ k.transpose(1, 2)  # (N, queries, keys)
        u = unit(case["dtype"]) * growth(q.shape[2])
        if o["metric"] == "cosine":
            norms = [x.square().sum(2).sqrt().clamp_min(1e-8) for x in (q, k)]
            scores = products / norms[0][:, :, None] / norms[1][:, None]
            bound = torch.full_like(scores, 4 * u)
        else:
            square = k.square().sum(2)[:, None] / 2
            scores = products - square
            bound = u * (q.abs() @ k.abs().transpose(1, 2) + square)
        wanted = torch.ones_like(index, dtype=torch.bool)
        if "where" in wide:
            wanted = (wide["where"] != 0).flatten(1).expand_as(index)
        some = whole.any(1)[:, None] & wanted
        if not torch.equal(index >= 0, some):
            raise Failure("index is -1 where there is a match, or there is none and it is not")
        none = float("-inf")
        best = scores.masked_fill(~whole[:, None], none).amax(2)
        chosen = index.clamp_min(0)
        if (some & ~whole.gather(1, chosen)).any() or index.max() >= whole.shape[1]:
            raise Failure("a key was chosen that may not be used")
        at = scores.gather(2, chosen[..., None])[..., 0]
        limit = bound.amax(2)
        close(
            "score", torch.where(some, score, 0.0), torch.where(some, best, 0.0), limit, "float32"
        )
        close(
            "score of the index", at.where(some, 0.0), best.where(some, 0.0), 2 * limit, "float64"
        )
        if not torch.equal(score == none, ~some):
            raise Failure("score is -inf where there is a match, or not where there is none")
        if self.is_exact(case):
            self._check_ties(o["metric"], k, whole, scores, chosen, some)

    def _check_ties(
        self, metric: str, k: Tensor, whole: Tensor, scores: Tensor, chosen: Tensor, some: Tensor
    ) -> None:
        for i in range(k.shape[0]):
            if metric == "l2":
                ranked = scores[i].masked_fill(~whole[i], float("-inf"))
                lowest = (ranked == ranked.amax(1, keepdim=True)).double().argmax(1)
            else:
                # Equal patches have equal bits; multiples of each other need not.
                equal = (
                    (k[i][:, None] == k[i][None]).all(2) & whole[i] if k.shape[1] < 600 else None
                )
                if equal is None:
                    continue
                lowest = equal.double().argmax(1)[chosen[i]]
            wrong = some[i] & (chosen[i] != lowest)
            if wrong.any():
                at = int(wrong.nonzero()[0])
                raise Failure(f"query {at} took key {chosen[i][at]}, an equal one is {lowest[at]}")


class RefinePatch(_Matching):
    name = "refine_patch"

    def draw(self, d: Draw, case: Case) -> None:
        patch = d.of((1, 2, 3, 5, 7, 7, 8))
        radius = d.of((0, 1, 1, 2, 3))
        case["options"] = {"patch_size": patch, "radius": radius, "reach": d.of((1, 1, 2, 5))}
        self.draw_sizes(d, case, patch)
        s = case["sizes"]
        queries = {name: s[name] for name in ("hq", "wq", "c", "n")}
        window = 5 * (2 * radius + 1) ** 2 * patch * patch
        d.fit(queries, lambda: float(window * math.prod(queries.values())), 2e6)
        s.update(queries)
        self.draw_tensors(d, case)
        case["guess"] = {"layout": d.of(("contiguous", "transposed", "sliced", "offset"))}

    def specs(self, case: Case) -> dict[str, dict[str, Any]]:
        s, k = case["sizes"], case["options"]["patch_size"]
        size = [max(0, s[name] - k + 1) for name in ("hq", "wq")]
        size = size if min(size) else [0, 0]
        keys = max(1, s["hk"] - k + 1) * max(1, s["wk"] - k + 1)
        specs = self.match_specs(case, size)
        guess = {"values": "positions", "range": (-2, keys + 3), "dtype": "int64"}
        return {**specs, "guess": {"shape": (s["n"], *size), **guess, **case["guess"]}}

    def _apply(self, op: Any, case: Case, t: dict[str, Tensor]) -> Sequence[Tensor]:
        masks = {n: t[n] for n in ("valid", "where") if n in t}
        index, distance = op(t["query"], t["key"], t["guess"], **masks, **case["options"])
        return [distance, index]

    def call(self, case: Case, t: dict[str, Tensor]) -> Sequence[Tensor]:
        return self._apply(inpaint_ops.ops.refine_patch, case, t)

    def check(self, case: Case, wide: dict[str, Tensor], results: Results) -> None:
        distance, index = results["y"].double(), results["y1"]
        want, want_index = self._apply(reference.refine_patch, case, wide)
        if index.shape != want_index.shape or not torch.equal(index < 0, want_index < 0):
            raise Failure("index is -1 where there is a match, or there is none and it is not")
        if not torch.equal(distance == math.inf, index < 0):
            raise Failure("distance is inf where there is a match, or not where there is none")
        if index.numel() == 0 or not (index >= 0).any():
            return
        if self.is_exact(case):
            if not torch.equal(index, want_index):
                raise Failure("another index than the lowest of the nearest")
            return close("distance", distance, want, 0.0, "float64")
        some = index >= 0
        k = case["options"]["patch_size"]
        key = wide["key"]
        if "valid" in wide:
            key = torch.where(wide["valid"] != 0, key, 0.0)
        q, keys = patches(wide["query"], k, 1), patches(key, k, 1)
        chosen = index.flatten(1).clamp_min(0)
        found = keys.gather(1, chosen[..., None].expand(-1, -1, keys.shape[2]))
        real = (q - found).square().sum(2).view_as(distance)
        # Differences are exact to a rounding each; the sum of squares has only positive terms.
        limit = unit(case["dtype"]) * growth(q.shape[2]) * want
        limit = (
            limit + (q.abs() + found.abs()).square().sum(2).view_as(want) * unit(case["dtype"]) ** 2
        )
        close("distance", distance.where(some, 0.0), want.where(some, 0.0), limit, "float32")
        close(
            "distance of the index",
            real.where(some, 0.0),
            want.where(some, 0.0),
            2 * limit,
            "float32",
        )
        return None


class ShiftConnection(Entry):
    """shift_connection and ShiftConnection."""

    def __init__(self, name: str, layer: bool) -> None:
        self.name, self.layer = name, layer

    def draw(self, d: Draw, case: Case) -> None:
        case["dtype"] = d.of(DTYPES)
        sizes = {"n": d.batch(), "c": d.size(), "h": d.size(65), "w": d.size(65)}
        d.fit(
            sizes,
            lambda: float(sizes["n"] * sizes["c"] * (sizes["h"] * sizes["w"]) ** 2),
            d.budget(),
        )
        d.empty(sizes, ("n", "h"))
        case["sizes"], case["options"] = sizes, {"gradient_scale": d.of((1.0, 0.5, -2.0))}
        case["decoder"] = d.tensor(KINDS)
        values = case["decoder"]["values"] if d.chance(0.7) else d.of(KINDS)
        case["encoder"] = {**d.tensor(KINDS), "values": values}
        case["hole"], case["poisoned"] = d.mask(), d.chance(0.5)
        case["upstream"] = d.tensor(("normal", "normal", "sparse", "integers"))

    def specs(self, case: Case) -> dict[str, dict[str, Any]]:
        s = case["sizes"]
        shape = (s["n"], s["c"], s["h"], s["w"])
        common = {"shape": shape, "dtype": case["dtype"], "leaf": True}
        hole = {"shape": (s["n"] if case["hole"]["own"] else 1, 1, s["h"], s["w"]), "mask": True}
        return {
            "decoder": {**common, **case["decoder"]},
            "encoder": {**common, **case["encoder"]},
            "hole": {**hole, **case["hole"]},
        }

    def prepare(self, case: Case, made: dict[str, Made]) -> None:
        if case["poisoned"]:
            missing = (made["hole"].tensor != 0).expand_as(made["encoder"].tensor)
            g = generator(case["seed"], "poison")
            made["encoder"] = poisoned_where(made["encoder"], missing, g)

    def call(self, case: Case, t: dict[str, Tensor]) -> Sequence[Tensor]:
        scale = case["options"]["gradient_scale"]
        if not self.layer:
            where = (t["decoder"], t["encoder"], t["hole"])
            return inpaint_ops.shift_connection(*where, gradient_scale=scale)
        x = torch.cat([t["decoder"], t["encoder"]], 1)
        return inpaint_ops.ShiftConnection(scale)(x, t["hole"])

    def exact(self, case: Case, again: str, name: str) -> bool:
        return bool(case["run"]["backend"] != "reference")

    def check(self, case: Case, wide: dict[str, Tensor], results: Results) -> None:
        y, index = results["y"].double(), results["y1"]
        n, c, h, w = wide["encoder"].shape
        if tuple(index.shape) != (n, h, w):
            raise Failure(f"index has shape {tuple(index.shape)}, not {(n, h, w)}")
        if index.numel() == 0:
            return
        missing = (wide["hole"] != 0).expand(n, 1, h, w).flatten(2)
        self._check_index(case, wide, index.flatten(1), missing)
        picked = (
            wide["encoder"]
            .flatten(2)
            .gather(2, index.flatten(1).clamp_min(0)[:, None].expand(n, c, -1))
        )
        want = torch.where(index.flatten(1)[:, None] >= 0, picked, 0.0).view(n, c, h, w)
        if self.layer:
            want = torch.cat([wide["decoder"], wide["encoder"], want], 1)
        if not same_bits(y, want):
            raise Failure("what was shifted is not what the index says")
        self._check_gradients(case, wide, results, index.flatten(1))

    def _check_index(
        self, case: Case, wide: dict[str, Tensor], index: Tensor, missing: Tensor
    ) -> None:
        key = torch.where(missing, 0.0, wide["encoder"].flatten(2))
        query = wide["decoder"].flatten(2)
        norms = [x.square().sum(1, keepdim=True).sqrt() for x in (query, key)]
        key_length = norms[1].clamp_min(1e-8)
        cosine = query.transpose(1, 2) @ (key / key_length)
        some = missing[:, 0] & ~missing.all(2)
        if not torch.equal(index >= 0, some):
            raise Failure("index is -1 where something should move, or not where nothing should")
        best = cosine.masked_fill(missing, float("-inf")).amax(2)
        chosen = index.clamp_min(0)
        if (some & missing[:, 0].gather(1, chosen)).any():
            raise Failure("a feature was taken out of the hole")
        at = cosine.gather(2, chosen[..., None])[..., 0]
        u = unit(case["dtype"]) * growth(query.shape[1])
        limit = 8 * u * norms[0][:, 0]
        close("cosine", at.where(some, 0.0), best.where(some, 0.0), limit, "float64")
        whole = ("integers", "zeros")
        exact = case["decoder"]["values"] in whole and case["encoder"]["values"] in whole
        # torch's matrix product may round the cosines of equal features apart.
        if exact and case["run"]["backend"] != "reference":
            k = key.transpose(1, 2)
            for i in range(k.shape[0] if k.shape[1] < 600 else 0):
                equal = (k[i][:, None] == k[i][None]).all(2) & ~missing[i, 0]
                lowest = equal.double().argmax(1)[chosen[i]]
                if (some[i] & (chosen[i] != lowest)).any():
                    raise Failure("of equal features not the first was taken")

    def _check_gradients(
        self, case: Case, wide: dict[str, Tensor], results: Results, index: Tensor
    ) -> None:
        if "upstream" not in wide or not any(name.startswith("grad") for name in results):
            return
        g, scale = wide["upstream"], case["options"]["gradient_scale"]
        through = torch.zeros_like(wide["encoder"])
        if self.layer:
            grad_decoder, through, g = g.chunk(3, 1)
            close("grad decoder", results["grad decoder"], grad_decoder, 0.0, case["dtype"])
        moved, size = (self._scattered(x * scale, index) for x in (g, g.abs()))
        limit = roundings_of(index.shape[1], case["dtype"]) * size.abs()
        if self.layer and case["dtype"] in ("float16", "bfloat16"):
            # The two gradients are rounded before they are added.
            limit = limit + 2 * ROUNDOFF[case["dtype"]] * size.abs()
        close("grad encoder", results["grad encoder"], through + moved, limit, case["dtype"])

    def _scattered(self, g: Tensor, index: Tensor) -> Tensor:
        n, c, h, w = g.shape
        flat = torch.where((index >= 0)[:, None], g.flatten(2), 0.0)
        target = index.clamp_min(0)[:, None].expand(n, c, -1)
        return torch.zeros_like(flat).scatter_add_(2, target, flat).view(n, c, h, w)


def roundings_of(terms: int, dtype: str) -> float:
    return (4 + 2 * math.sqrt(terms)) * unit(dtype)


class VotePatches(Entry):
    """The votes of matched patches, which fill_exemplar takes."""

    name = "vote_patches"
    can_be_spoiled = False  # not public: fill_exemplar calls it

    def draw(self, d: Draw, case: Case) -> None:
        case["dtype"] = "float32"
        k = d.of((1, 2, 3, 5, 7, 8))
        sizes = {"c": d.size(65), "h": d.size(65), "w": d.size(65)}
        d.fit(sizes, lambda: float(math.prod(sizes.values()) * k * k), d.budget(1e6))
        sizes["h"], sizes["w"] = max(sizes["h"], k), max(sizes["w"], k)
        case["sizes"], case["options"] = sizes, {"patch_size": k, "best": d.chance(0.4)}
        case["unmatched"] = d.of((0.0, 0.1, 0.9, 1.0))
        case["features"] = {"layout": "contiguous", "values": d.of(("normal", "integers", "huge"))}
        case["hole"] = {"values": d.of(("box", "free form", "salt", "all", "none"))}

    def specs(self, case: Case) -> dict[str, dict[str, Any]]:
        s, k = case["sizes"], case["options"]["patch_size"]
        rows, columns = s["h"] - k + 1, s["w"] - k + 1
        hole = {"shape": (1, 1, s["h"], s["w"]), "mask": True, "dtype": "bool"}
        positions = {"values": "positions", "range": (0, rows * columns), "dtype": "int64"}
        features = {"shape": (1, s["c"], s["h"], s["w"]), "dtype": "float32"}
        plain = {"layout": "contiguous", "values": "normal", "dtype": "float32"}
        return {
            "features": {**features, **case["features"]},
            "hole": {**hole, "layout": "contiguous", **case["hole"]},
            "index": {"shape": (1, rows, columns), "layout": "contiguous", **positions},
            "distance": {"shape": (1, rows, columns), **plain},
            "penalty": {"shape": (1, 1, rows, columns), **plain},
        }

    def prepare(self, case: Case, made: dict[str, Made]) -> None:
        index = made["index"].tensor
        drawn = torch.rand(index.shape, generator=generator(case["seed"], "unmatched"))
        index[drawn < case["unmatched"]] = -1
        for name in ("distance", "penalty"):
            made[name].tensor.abs_()
        for one in made.values():
            one.before = one.memory.clone()

    def call(self, case: Case, t: dict[str, Tensor]) -> Sequence[Tensor]:
        k, best = case["options"]["patch_size"], case["options"]["best"]
        names = ("features", "features", "hole", "index", "distance", "penalty")
        return [vote(*(t[name] for name in names), k, best)]

    def exact(self, case: Case, again: str, name: str) -> bool:
        return again == "threads" and case["run"]["backend"] != "reference"

    def check(self, case: Case, wide: dict[str, Tensor], results: Results) -> None:
        k, best = case["options"]["patch_size"], case["options"]["best"]
        names = ("features", "features", "hole", "index", "distance", "penalty")
        with inpaint_ops.backend("reference"):
            want = vote(*(wide[name] for name in names), k, best)
        reach = wide["features"].abs().amax() if want.numel() else 0.0
        limit = 0.0 if best else 2e-5 * reach
        close("y", results["y"], want, limit, "float32")
