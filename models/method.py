"""The base class of the ten methods: completion of a picture of any size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.checkpoints import State
from inpaint_ops.models.blocks import pictures
from inpaint_ops.models.training import TrainingRecipe, Wrap
from inpaint_ops.models.weights.layouts import Implied, Layout

if TYPE_CHECKING:
    from typing_extensions import Self


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
    # Meaning of padded pixels: "known" (edge pixels repeated) or "hole" (missing).
    pad_as: ClassVar[str] = "known"
    # Names of the submodules that hold weights.
    networks: ClassVar[tuple[str, ...]] = ("generator", "discriminator")
    # Those that `complete` runs: files given to `create_model` must hold them.
    completion_networks: ClassVar[tuple[str, ...]] = ("generator",)
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

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        """Return the prediction, (N, 3, H, W) in [0, 1]; only its missing pixels are used.

        Args:
            image: (N, 3, H, W) in [0, 1], `dtype`, channels in `channel_order`, 0 where missing.
            hole: (N, 1, H, W), `dtype`, 1 = missing.
            seed: of the method's random numbers, if it draws any.
        """
        raise NotImplementedError

    def recipe(
        self,
        phase: str | None = None,
        *,
        features: nn.Module | None = None,
        scaler: torch.amp.GradScaler | None = None,
        wrap: Wrap | None = None,
        **overrides: Any,
    ) -> TrainingRecipe:
        """Return the recipe of one phase of training, the first if None; see `TrainingRecipe`."""
        variant = getattr(self, "variant", "")
        recipe = self.variant_recipes.get(variant, self.recipe_class)
        return recipe(self, phase, features=features, scaler=scaler, wrap=wrap, **overrides)

    def forward(self, image: Tensor, hole: Tensor) -> Tensor:
        """As `complete`."""
        return self.complete(image, hole)

    @torch.no_grad()
    def complete(self, image: Tensor, hole: Tensor, *, seed: int = 0) -> Tensor:
        """Fill the missing pixels.

        The networks run in evaluation mode and without gradients; their mode is restored
        afterwards. The picture is padded to a size that they take, and the result cropped.

        Networks run in the dtype of their weights, whatever that of the picture: after
        ``model.bfloat16()``, ``half()`` or ``double()`` pictures of any dtype are completed, and
        the result has the dtype of the picture. Under autocast they follow its rules.

        Args:
            image: (N, 3, H, W) RGB in [0, 1], floating; missing pixels may hold anything.
            hole: (N or 1, 1, H, W), 1 = missing.
            seed: of methods that draw random numbers; equal seeds give equal results.

        Returns:
            (N, 3, H, W), dtype of image: known pixels bit for bit as given, the others in [0, 1].

        Raises:
            TypeError: wrong type or dtype.
            ValueError: wrong shape, device or range.
        """
        missing = self._check(image, hole)
        if image.numel() == 0 or not missing.any():
            return image.clone()
        known = image.detach().to(self.dtype)
        clean = torch.where(missing, known.new_zeros(()), known)
        height, width = (self._padded(side) for side in image.shape[2:])
        picture, cells = self._pad(clean, missing.to(known.dtype), height, width)
        if self.channel_order == "bgr":
            picture = picture.flip(1)
        training = self.training
        self.eval()
        try:
            filled = self._fill(pictures.arranged(picture), cells, seed=seed)
        finally:
            self.train(training)
        if self.channel_order == "bgr":
            filled = filled.flip(1)
        filled = filled[:, :, : image.shape[2], : image.shape[3]].clamp(0, 1)
        return torch.where(missing, filled.to(image.dtype), image)

    def _padded(self, side: int) -> int:
        return max(self.minimum, -(-side // self.multiple) * self.multiple)

    def _pad(self, image: Tensor, hole: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        sides = (0, width - image.shape[3], 0, height - image.shape[2])
        if not any(sides):
            return image, hole
        if self.pad_as == "hole":
            return F.pad(image, sides), F.pad(hole, sides, value=1.0)
        # A missing pixel at the edge is repeated as a missing pixel.
        return F.pad(image, sides, mode="replicate"), F.pad(hole, sides, mode="replicate")

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
            raise ValueError(f"{op}: image must be on {device}, got {image.device}")
        missing = checks.binary(op, "hole", hole).expand(image.shape[0], 1, *size)
        outside = ~((image >= 0) & (image <= 1)) & ~missing
        if outside.any():
            bad = image[outside].flatten()[0].item()
            raise ValueError(f"{op}: image must be in [0, 1] where it is known, got {bad}")
        return missing
