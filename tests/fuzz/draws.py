"""Random choices of cases: sizes near the block sizes of the kernels, within a budget of work."""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

Case = dict[str, Any]

# Sizes where vectors, tiles, panels and tasks end, and one more and less.
EDGES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 23, 24, 25, 27, 28, 29)
WIDE = (31, 32, 33, 47, 48, 49, 63, 64, 65, 95, 96, 97, 127, 128, 129)
SIZES = (0, *EDGES, *WIDE)

# From so many on, few pixels do not pay for packing them.
MANY_WEIGHTS = 1 << 16

# Beyond so many numbers of an image and its result one thread copies contiguous ones in steps.
STEP_FLOATS = 1 << 19

DTYPES = ("float32", "float32", "float32", "float32", "float16", "bfloat16", "float64")
LAYOUTS = (
    *("contiguous", "contiguous", "channels_last", "channels_last"),
    *("transposed", "reversed", "sliced", "stepped", "offset"),
    *("expanded 0", "expanded 1", "expanded 3"),
)
VALUES = ("normal",) * 8 + ("integers", "sparse", "constant", "spike", "huge", "tiny", "zeros")


class Draw:
    """Random numbers of one case."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)

    def of(self, choices: Sequence[Any]) -> Any:
        return self.random.choice(choices)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def between(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def size(self, limit: int = 129) -> int:
        """A size from 1; small ones and those near the limit alike."""
        table = EDGES if self.chance(0.6) else WIDE
        fitting = [size for size in table if size <= limit]
        return self.of(fitting or [1])

    def pair(self, draw: Callable[[], int], apart: float = 0.3) -> list[int]:
        """Two of a kind, or each its own."""
        first = draw()
        return [first, draw() if self.chance(apart) else first]

    def batch(self) -> int:
        return self.of((1, 1, 1, 2, 2, 3))

    def kernel(self) -> list[int]:
        if self.chance(0.15):
            return [self.between(1, 11), self.between(1, 11)]
        return self.pair(lambda: self.of((1, 2, 3, 3, 3, 4, 5, 7)), 0.25)

    def budget(self, most: float = 4e6) -> float:
        """Work that a case may cost, mostly far below `most`."""
        return math.exp(self.random.uniform(math.log(2e3), math.log(most)))

    def many(self) -> int:
        """Channels or filters of a layer that pays for a change of domain."""
        return self.of((15, 16, 17, 24, 31, 32, 33, 40, 48, 49, 63, 64, 65, 80, 96))

    def deep(self, sizes: dict[str, int], case: Case) -> bool:
        """Makes some layers such that Winograd's algorithms take them, a few of them staged."""
        if not self.chance(0.28):
            return False
        case["dtype"] = self.of(("float32", "float32", "float32", "float16"))
        case["kernel"] = self.of(([3, 3], [3, 3], [3, 3], [4, 4], [5, 5], [2, 2], [3, 5], [7, 7]))
        case["kernel"] = list(case["kernel"])
        channels = [name for name in sizes if name.startswith("c")]
        for name in ("f", *channels):
            sizes[name] = self.many()
        for name in ("h", "w"):
            sizes[name] = self.of((5, 7, 8, 9, 12, 13, 16, 17, 21, 25, 32, 33))
        if self.chance(0.015):
            sizes[channels[0]], sizes["f"] = self.of((320, 352)), self.of((352, 384))
            sizes["n"], sizes["h"], sizes["w"] = 1, 16, self.of((13, 17))
            case["kernel"] = [3, 3]
            return True
        self.fit_some(sizes, case, 8e6)
        return True

    def few_pixels(self, case: Case, filters: int = 1) -> tuple[int, int, int] | None:
        """Makes some layers such that their weights are read where they lie, by few pixels.

        Args:
            case: gets a type and a kernel; drawn before, all else stays as it is.
            filters: rows of the weight for each of the layer's filters.

        Returns:
            Channels, filters and the most pixels, or None: the layer stays as it is. From numbers
            of their own, so that they change no other case.
        """
        own = Draw(f"{case['seed']} few pixels")
        if case["run"]["backend"] != "auto" or not own.chance(0.075):
            return None
        case["dtype"] = "float32"
        kernels = ([1, 1], [2, 2], [2, 3], [3, 3], [3, 3], [4, 4], [4, 4], [5, 3], [5, 5])
        case["kernel"] = list(own.of(kernels))
        number = own.of((33, 48, 64, 65, 66, 67, 96, 97, 127, 128, 129, 130, 131, 160, 257))
        area = case["kernel"][0] * case["kernel"][1]
        channels = -(-MANY_WEIGHTS // (number * area * filters)) + own.between(0, 5)
        case["weight"] = {
            "layout": "contiguous",
            "values": own.of(("normal", "normal", "integers")),
        }
        exchanged = own.chance(0.5)
        pair = (number, channels) if exchanged else (channels, number)
        return *pair, own.of((1, 2, 3, 4, 5, 6, 7, 8, 8, 12, 16))

    def steps(self, case: Case) -> int:
        """Makes some layers such that contiguous images are copied step by step; not their height.

        From numbers of their own, so that they change no other case.

        Returns:
            Numbers that an image and its result are to have at least; 0: the layer stays as it is.
        """
        own = Draw(f"{case['seed']} steps")
        if case["run"]["backend"] == "reference" or not own.chance(0.012):
            return 0
        few, many = own.between(1, 5), own.of((24, 33, 48, 49, 64))
        both = own.of((15, 16, 17)), own.of((15, 16, 17))
        channels, filters = own.of(((few, many), (many, few), both))
        wide = own.of((31, 64, 97, 130))
        case["sizes"] |= {"n": own.of((1, 1, 2)), "c": channels, "f": filters, "w": wide}
        case["dtype"] = "float32"
        kernels = ([1, 1], [2, 2], [3, 3], [3, 3], [3, 3], [4, 4], [5, 5], [7, 7])
        case["kernel"] = list(own.of(kernels))
        layouts = ("contiguous", "contiguous", "transposed", "reversed", "sliced", "offset")
        case["x"]["layout"] = own.of(layouts)
        case["run"] |= {"threads": 1, "again": own.of(("layout", "layout", "threads"))}
        return int(STEP_FLOATS * own.of((1, 1, 2.5)))

    def fit_some(self, sizes: dict[str, int], case: Case, budget: float) -> None:
        """Smaller images first, then fewer channels."""
        area = case["kernel"][0] * case["kernel"][1]

        def cost() -> float:
            return float(math.prod(sizes.values()) * area)

        images = {name: sizes[name] for name in ("n", "h", "w")}
        for _ in range(30):
            if cost() <= budget:
                return
            name = self.of(list(images))
            least = 1 if name == "n" else 7
            sizes[name] = max(least, sizes[name] * 3 // 4)
        self.fit(sizes, cost, budget)

    def fit(self, sizes: dict[str, int], cost: Callable[[], float], budget: float) -> None:
        """Makes sizes smaller, one at a time and at random, until the cost is within the budget."""
        names = list(sizes)
        for _ in range(400):
            if cost() <= budget:
                return
            name = self.of(names)
            smaller = [size for size in SIZES[1:] if size < sizes[name]]
            if smaller:
                sizes[name] = smaller[-self.between(1, min(6, len(smaller)))]

    def empty(self, sizes: dict[str, int], names: Sequence[str]) -> None:
        """Once in a while one of the sizes is 0."""
        if self.chance(0.03):
            sizes[self.of(names)] = 0

    def tensor(self, values: Sequence[str] = VALUES) -> dict[str, str]:
        """How a tensor lies in memory and what it holds."""
        return {"layout": self.of(LAYOUTS), "values": self.of(values)}

    def mask(self, soft: bool = False) -> dict[str, Any]:
        """A mask: what it marks, its type, and whether every sample has its own."""
        kinds = ("box", "box", "free form", "salt", "all", "none", "stripes")
        types = ("bool", "bool", "uint8", "float32", "float16", "float64")
        drawn = {"values": self.of(kinds), "dtype": self.of(types), "own": self.chance(0.7)}
        drawn["layout"] = self.of(LAYOUTS)
        if soft and drawn["dtype"] not in ("bool", "uint8") and self.chance(0.5):
            drawn["values"] = "soft"
        return drawn
