"""The base class of the ten methods: completion of a picture of any size."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops import checks, needed
from inpaint_ops.checkpoints import State
from inpaint_ops.exporting import Graph
from inpaint_ops.models.blocks import lines, pictures
from inpaint_ops.models.describing import described
from inpaint_ops.models.training import Features, Phase, TrainingRecipe, Wrap
from inpaint_ops.models.weights.layouts import Implied, Layout
from inpaint_ops.models.windows import Fill, Windows
from inpaint_ops.progress import Progress, check_progress, following

if TYPE_CHECKING:
    from typing_extensions import Self

# Least side of a window; what surrounds a hole in a smaller one tells nothing.
_LEAST_WINDOW = 32


class InpaintingModel(nn.Module):
    """A method: its networks as submodules, and the way they complete a picture.

    A subclass stores every option of its constructor as an attribute of the same name, defines
    `_fill` and `read_options`, and overrides the class attributes below where they differ.
    `register_model` gives it its name and its recipes.

    Args:
        channel_order: "rgb", or "bgr" if the weights were trained on pictures in that order.
    """

    # `_fill` takes sides that are multiples of `multiple` and not less than `minimum`.
    multiple: int = 8
    minimum: int = 16
    # What windows of `complete` are like: the side of the pictures that the weights were trained
    # on, and the longest box of missing pixels as a share of a window's side.
    trained_size: int = 256
    hole_share: float = 0.5
    # Meaning of padded pixels: "known" (edge pixels repeated) or "hole" (missing).
    pad_as: ClassVar[str] = "known"
    # Names of the submodules that hold weights.
    networks: ClassVar[tuple[str, ...]] = ("generator", "discriminator")
    # Those that `complete` runs: files given to `create_model` must hold them.
    completion_networks: ClassVar[tuple[str, ...]] = ("generator",)
    # Whether every pixel that is filled depends on all that the networks see, through a bottleneck:
    # then `complete` has nothing to leave out.
    needs_all: ClassVar[bool] = False
    # Names of the planes of `hints`; "sketch" and "edges" are those that `complete` takes, too.
    hint_names: tuple[str, ...] = ()
    # Public files that the method reads and writes.
    layouts: ClassVar[tuple[Layout, ...]] = ()
    # Set by `register_model`: the name, the recipe, and the recipes of variants that have another.
    name: ClassVar[str] = ""
    recipe_class: ClassVar[type[TrainingRecipe]]
    variant_recipes: ClassVar[Mapping[str, type[TrainingRecipe]]] = {}
    # Names of the options that the user gave. They take precedence over those of a file's layout.
    given: frozenset[str] = frozenset()

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Remember which options were given."""
        model = super().__new__(cls)
        object.__setattr__(model, "given", frozenset(options))
        return model

    def __init__(self, *, channel_order: str = "rgb") -> None:
        super().__init__()
        checks.check_choice(self.name, "channel_order", channel_order, ("rgb", "bgr"))
        self.channel_order = channel_order

    @classmethod
    def read_options(cls, state: State) -> Implied:
        """Read the options from the model's own state dict, or a part with whole networks."""
        return Implied({}, ("channel_order",))

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the weights, in which `complete` and training steps run."""
        return next(self.get_submodule(self.completion_networks[0]).parameters()).dtype

    def __repr__(self) -> str:
        return described(self, self.name, self.trained_size, super().__repr__())

    def hints(self, image: Tensor, hole: Tensor) -> tuple[Tensor, ...]:
        """Return planes that the networks need besides, if the user gives none.

        Args:
            image: (N, 3, H, W) RGB in [0, 1]; missing pixels may hold anything.
            hole: (N or 1, 1, H, W), 1 = missing.

        Returns:
            (N, C, H, W) in `dtype` for each of `hint_names`, 0 where nothing is told; H and W are
            those of the picture as the networks take it, padded.
        """
        return ()

    def _fill_with(
        self,
        image: Tensor,
        hole: Tensor,
        hints: tuple[Tensor, ...],
        *,
        wanted: Tensor | None,
        seed: int,
    ) -> Tensor:
        """As `_fill`, with the planes of `hints` and the `wanted` pixels of `completed`.

        For methods that have hints, or that look at those of the missing pixels that are filled.
        """
        return self._fill(image, hole, seed=seed)

    def _separated(self, fill: Fill) -> Fill:
        """Return what fills the holes of a picture, of what fills a picture.

        A method that looks at one hole at a time calls `fill` for each; see `models.squares`.
        """
        return fill

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        """Return the prediction, (N, 3, H, W) in [0, 1]; only its missing pixels are used.

        Args:
            image: (N, 3, H, W) in [0, 1], `dtype`, channels in `channel_order`, 0 where missing.
            hole: (N, 1, H, W), `dtype`, 1 = missing.
            seed: of the method's random numbers, if it draws any.
        """
        raise NotImplementedError

    @property
    def _recipe(self) -> type[TrainingRecipe]:
        variant = getattr(self, "variant", "")
        return self.variant_recipes.get(variant, self.recipe_class)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Return the phases of the training, in order, of the variant that this is."""
        return self._recipe.phases

    def recipe(
        self,
        phase: str | None = None,
        *,
        features: Features | None = None,
        scaler: torch.amp.GradScaler | None = None,
        wrap: Wrap | None = None,
        **overrides: Any,
    ) -> TrainingRecipe:
        """Return the recipe of one phase of training, the first if None; see `TrainingRecipe`."""
        return self._recipe(self, phase, features=features, scaler=scaler, wrap=wrap, **overrides)

    def as_trained(self) -> Self:
        """Return the model, or a view of it that completes with what training changes alone."""
        return self

    def forward(self, image: Tensor, hole: Tensor) -> Tensor:
        """As `complete`."""
        return self.complete(image, hole)

    @torch.no_grad()
    def complete(
        self,
        image: Tensor,
        hole: Tensor,
        *,
        compute: str = "needed",
        window: int | str | None = None,
        sketch: Tensor | None = None,
        edges: Tensor | None = None,
        seed: int = 0,
        progress: Progress = None,
    ) -> Tensor:
        """Fill the missing pixels.

        The networks run in evaluation mode and without gradients; their mode is restored
        afterwards. The picture is padded to a size that they take, and the result cropped.

        Networks run in the dtype of their weights, whatever that of the picture: after
        ``model.bfloat16()``, ``half()`` or ``double()`` pictures of any dtype are completed, and
        the result has the dtype of the picture. Under autocast they follow its rules.

        Args:
            image: (N, 3, H, W) RGB in [0, 1], floating; missing pixels may hold anything.
            hole: (N or 1, 1, H, W), 1 = missing.
            compute: "needed": of each layer those pixels that reach the hole, on the CPU and where
                it saves something (`inpaint_ops.needed`); "all": all pixels of every layer. Both
                give the same bits.
            window: None: the networks see the whole picture. Pixels: they see squares of this side
                around the holes, in pictures with a longer side; see `window_side` for the least.
                "auto": squares of the side that the method was trained for, in pictures with a side
                of more than twice that. docs/guides/large_pictures.md says what differs.
            sketch: (N or 1, 1, H, W), bool or in [0, 1], 1 = line: what is drawn into the hole, for
                networks that were trained so (`DeepFillV2` with sketch=True). None: nothing.
            edges: the same of the edges of what is known, for `EdgeConnect`. None: it finds them.
            seed: of methods that draw random numbers; equal seeds give equal results.
            progress: called with the done fraction, which rises from 0 to 1 over windows, holes and
                steps of an optimisation (one pass of the networks is one step); True: a bar on
                standard error, where that is a terminal or a notebook; None: nothing.

        Returns:
            (N, 3, H, W), dtype of image: known pixels bit for bit as given, the others in [0, 1].

        Raises:
            TypeError: wrong type or dtype.
            ValueError: wrong shape, device, range or option; lines for networks that take none.
        """
        op = f"{self.name}.complete"
        checks.check_choice(op, "compute", compute, ("needed", "all"))
        side = self.window_side(window)
        check_progress(op, progress)
        missing = self._check(image, hole)
        given = lines.given(op, self.hint_names, image, sketch=sketch, edges=edges)
        if image.numel() == 0 or not missing.any():
            with following(progress, op):
                return image.clone()
        training = self.training
        self.eval()

        def fill(
            image: Tensor,
            missing: Tensor,
            wanted: Tensor | None = None,
            given: Tensor | None = None,
        ) -> Tensor:
            hints = self.hints(image, missing) if given is None else (given,)
            options: dict[str, Any] = {"compute": compute, "wanted": wanted, "seed": seed}
            return self.completed(image, missing, hints, **options)

        holes = self._separated(fill)
        try:
            with following(progress, op):
                if side is None or max(image.shape[2:]) <= (2 * side if window == "auto" else side):
                    return holes(image, missing, None, given)
                windows = Windows(holes, side, int(side * self.hole_share))
                return windows.complete(image, missing, given)
        finally:
            if training:
                self.train()

    def window_side(self, window: int | str | None) -> int | None:
        """Return the side of the windows of `complete`, a multiple of what the networks take.

        Raises:
            TypeError: `window` is of another type.
            ValueError: it is another word, or less than 32 pixels or what the networks take.
        """
        if window is None:
            return None
        if window == "auto":
            return self._padded(max(self.trained_size, _LEAST_WINDOW))
        op = f"{self.name}.complete"
        if isinstance(window, str):
            raise ValueError(f"{op}: window must be None, 'auto' or pixels, got {window!r}")
        checks.check_int(op, "window", window, max(self.minimum, _LEAST_WINDOW))
        return self._padded(window)

    def completed(
        self,
        image: Tensor,
        missing: Tensor,
        hints: tuple[Tensor, ...] = (),
        *,
        compute: str = "as called",
        wanted: Tensor | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Fill, as `complete` does it and exported graphs hold it, without checks.

        Args:
            image: of `complete`.
            missing: (N, 1, H, W) bool.
            hints: of `hints`.
            compute: of `complete`; "as called": every operator at once, in graphs.
            wanted: those of the missing pixels that are filled; the others may come back as
                anything. None: all.
            seed: of `complete`.
        """
        picture, cells, size = self._framed(image, missing)
        if self.channel_order == "bgr":
            picture = picture.flip(1)
        planes = tuple(_pad(hint.to(picture.dtype), size) for hint in hints)
        picture = pictures.arranged(picture)
        options: dict[str, Any] = {"wanted": wanted, "seed": seed}
        filled = None
        if compute != "as called" and not self.needs_all and needed.saves(missing, self):
            # A variant, or somebody's own method, may do what cannot be noted.
            with suppress(needed.CannotBeNoted):
                filled = self._fill_with(needed.lazy(picture), cells, planes, **options)
        if filled is None:
            filled = self._fill_with(picture, cells, planes, **options)
        if self.channel_order == "bgr":
            filled = filled.flip(1)
        filled = filled[:, :, : image.shape[2], : image.shape[3]].clamp(0, 1)
        filled = needed.computed(
            filled, missing if wanted is None else wanted, whole=compute == "all"
        )
        return torch.where(missing, filled.to(image.dtype), image)

    def _framed(self, image: Tensor, missing: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Return picture and hole as the networks take them, but for `channel_order`, and a size.

        They are (N, 3, H, W) with 0 where it is missing and (N, 1, H, W), 1 = missing, in `dtype`.
        """
        known = image.detach().to(self.dtype)
        clean = torch.where(missing, known.new_zeros(()), known)
        size = (self._padded(image.shape[2]), self._padded(image.shape[3]))
        return *self._pad(clean, missing.to(known.dtype), size), size

    def for_export(self) -> Graph:
        """Return what `inpaint_ops.export` writes: `complete` as a module of tensors alone.

        Raises:
            ValueError: an option asks for what no graph holds.
        """
        device = next(self.parameters()).device
        # Two samples and sides of their own: sizes that are equal would be taken for one.
        side = max(self.minimum, self.multiple, 16)
        size = (2, 1, side + 1, 2 * side + 1)
        kind: dict[str, Any] = {"device": device, "dtype": torch.float32}
        planes = [torch.zeros(size, **kind) for _ in ("hole", *self.hint_names)]
        axes = {0: "batch", 2: "height", 3: "width"}
        return Graph(
            Completion(self),
            (torch.zeros(2, 3, *size[2:], **kind), *planes),
            ("image", "hole", *self.hint_names),
            ("picture",),
            (axes, {**axes, 0: "hole_batch"}, *(axes for _ in self.hint_names)),
        )

    def _padded(self, side: int) -> int:
        # The larger of two counts of cells, so that an exported graph knows the size's divisor.
        cells = torch.sym_max(-(-self.minimum // self.multiple), -(-side // self.multiple))
        padded: int = cells * self.multiple
        return padded

    def _pad(self, image: Tensor, hole: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        if self.pad_as == "hole":
            return _pad(image, size), _pad(hole, size, value=1.0)
        # A missing pixel at the edge is repeated as a missing pixel.
        return _pad(image, size, mode="replicate"), _pad(hole, size, mode="replicate")

    def _check(self, image: Tensor, hole: Tensor) -> Tensor:
        op = f"{self.name}.complete"
        checks.check_image(op, "image", image)
        if image.shape[1] != 3:
            raise ValueError(f"{op}: image must have 3 channels, got {tuple(image.shape)}")
        size = (image.shape[2], image.shape[3])
        checks.check_mask(op, "hole", hole, image.shape[0], size, image.device)
        checks.check_int(op, "height of image", size[0])
        checks.check_int(op, "width of image", size[1])
        device = next(self.parameters()).device
        if image.device != device:
            raise ValueError(f"{op}: image must be on {device}, got {image.device}; .to moves it")
        missing = checks.binary(op, "hole", hole).expand(image.shape[0], 1, *size)
        checks.check_known(op, image, missing)
        return missing


def _pad(x: Tensor, size: tuple[int, int], mode: str = "constant", value: float = 0.0) -> Tensor:
    if pictures.known_to_have(x, size):
        return x
    sides = (0, size[1] - x.shape[3], 0, size[0] - x.shape[2])
    return F.pad(x, sides, mode=mode, value=value)


class Completion(nn.Module):
    """The completion of a method as a module of tensors alone; see `InpaintingModel.for_export`."""

    def __init__(self, model: InpaintingModel) -> None:
        super().__init__()
        # The networks themselves, and no more of them than completion runs.
        self.model = copy.copy(model)
        self.model._modules = {name: getattr(model, name) for name in model.completion_networks}

    def forward(self, image: Tensor, hole: Tensor, *hints: Tensor) -> Tensor:
        """Fill the missing pixels, as `InpaintingModel.complete`.

        Args:
            image: (N, 3, H, W) RGB in [0, 1]; missing pixels may hold anything.
            hole: (N or 1, 1, H, W), not 0 = missing.
            hints: of the method's `hint_names`, (N, C, H, W).

        Returns:
            (N, 3, H, W), known pixels bit for bit as given, the others in [0, 1].
        """
        batch = image.shape[0]
        # Each sample's own hole, or the first for all if it is the only one.
        own = torch.arange(batch, device=hole.device).clamp(max=batch * (hole.shape[0] - 1))
        return self.model.completed(image, hole[own] != 0, hints)
