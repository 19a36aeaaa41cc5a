"""What the ten methods share: completing a picture of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.models.blocks import pictures
from inpaint_ops.models.weights.layouts import Implied

if TYPE_CHECKING:
    from typing_extensions import Self

    from inpaint_ops.checkpoints import State
    from inpaint_ops.models.training import TrainingRecipe
    from inpaint_ops.models.weights.layouts import Layout


class InpaintingModel(nn.Module):
    """A method: its networks as submodules, and what is needed to fill a picture with them.

    A method stores every option of its constructor as an attribute of the same name.

    Args:
        channel_order: "rgb", or "bgr" if the weights were trained on pictures in that order.
    """

    name: ClassVar[str] = ""
    # Sides that `_fill` takes: multiples of this, and at least that.
    multiple: int = 8
    minimum: int = 16
    # What padding counts as: "known" repeats edge pixels, "hole" leaves it missing.
    pad_as: ClassVar[str] = "known"
    networks: ClassVar[tuple[str, ...]] = ("generator", "discriminator")
    # Those that `complete` runs: files given to `create_model` must hold them.
    completion_networks: ClassVar[tuple[str, ...]] = ("generator",)
    layouts: ClassVar[tuple[Layout, ...]] = ()
    recipe_class: ClassVar[type[TrainingRecipe]]
    # Names of the options that the user gave, which come before what a file's layout implies.
    given: frozenset[str] = frozenset()

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Remembers which options were given."""
        model = super().__new__(cls)
        object.__setattr__(model, "given", frozenset(options))
        return model

    def __init__(self, *, channel_order: str = "rgb") -> None:
        super().__init__()
        checks.check_choice(self.name, "channel_order", channel_order, ("rgb", "bgr"))
        self.channel_order = channel_order

    @classmethod
    def read_options(cls, state: State) -> Implied:
        """What the model's own state dict, whole or some networks of it, tells of its options."""
        return Implied({}, ("channel_order",))

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        """The prediction, (N, 3, H, W) in [0, 1]; only its missing pixels are used.

        Args:
            image: (N, 3, H, W) float32 in [0, 1], channels in `channel_order`, 0 where missing.
            hole: (N, 1, H, W) float32, 1 = missing.
            seed: of what the method draws, if it draws.
        """
        raise NotImplementedError

    def recipe(
        self, phase: str | None = None, *, features: nn.Module | None = None, **overrides: Any
    ) -> TrainingRecipe:
        """One phase of the method's training, the first if None; see `TrainingRecipe`."""
        return self.recipe_class(self, phase, features=features, **overrides)

    def forward(self, image: Tensor, hole: Tensor) -> Tensor:
        """As `complete`."""
        return self.complete(image, hole)

    @torch.no_grad()
    def complete(self, image: Tensor, hole: Tensor, *, seed: int = 0) -> Tensor:
        """Fills the missing pixels.

        Runs in evaluation mode and without gradients; the mode is set back afterwards. The picture
        is padded to a size that the networks take and cropped again.

        Args:
            image: (N, 3, H, W) RGB in [0, 1], floating; missing pixels may hold anything.
            hole: (N or 1, 1, H, W), 1 = missing.
            seed: makes methods that draw random numbers repeatable.

        Returns:
            (N, 3, H, W), dtype of image: known pixels bit for bit, the others in [0, 1].

        Raises:
            TypeError: wrong type or dtype.
            ValueError: wrong shape, device or range.
        """
        missing = self._check(image, hole)
        if image.numel() == 0 or not missing.any():
            return image.clone()
        clean = torch.where(missing, 0.0, image.detach().float())
        high, wide = (self._padded(side) for side in image.shape[2:])
        picture, cells = self._pad(clean, missing.float(), high, wide)
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

    def _pad(self, image: Tensor, hole: Tensor, high: int, wide: int) -> tuple[Tensor, Tensor]:
        sides = (0, wide - image.shape[3], 0, high - image.shape[2])
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
