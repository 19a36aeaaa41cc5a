"""shepnerd/inpainting_gmcnn: pytorch/model/loss.py and layer.py."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.compat import _arguments, _norms
from inpaint_ops.compat._convolution import Conv2d
from inpaint_ops.losses import confidence_mask
from inpaint_ops.ops.id_mrf_loss import id_mrf_loss

# Convolutions of each block and their width.
_BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))


class VGG19FeatLayer(nn.Module):
    """The layers of torchvision's VGG-19, of images in [0, 1] less the ImageNet mean.

    The names count convolutions and ReLUs of a block alike: "conv3_1", "relu3_2", "conv3_3", ... So
    "relu3_2" is what others call relu3_1, torchvision's features[11], and "relu4_2" features[20].

    State dict: ``vgg19.N.weight`` and ``vgg19.N.bias``, N as in torchvision's features. The
    parameters are frozen. It moves to the GPU where there is one, as the port does.

    Args:
        weights: state dict of torchvision's features; None takes the pretrained ones of the
            installed torchvision, which fetches them if it has not got them.

    Raises:
        ImportError: no weights given and no torchvision installed.
        RuntimeError: wrong keys or shapes.

    Source: shepnerd/inpainting_gmcnn at 08eb38f: pytorch/model/layer.py.
    """

    mean: Tensor

    def __init__(self, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        self._names: list[str] = []
        inputs = 3
        for block, (count, width) in enumerate(_BLOCKS, start=1):
            for i in range(count):
                steps += [Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
                self._names += [f"conv{block}_{2 * i + 1}", f"relu{block}_{2 * i + 2}"]
                inputs = width
            steps.append(nn.MaxPool2d(2, 2))
            self._names.append(f"pool_{block}")
        self.vgg19 = nn.Sequential(*steps)
        self.vgg19.load_state_dict(_pretrained() if weights is None else dict(weights))
        self.requires_grad_(False)
        self.eval()
        mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        if torch.cuda.is_available():
            self.cuda()

    def forward(self, x: Tensor, layers: set[str] | None = None) -> dict[str, Tensor]:
        """Compute features.

        Args:
            x: (N, 3, H, W) in [0, 1].
            layers: those that are wanted; None for all.

        Returns:
            Name of the layer to (N, C, h, w).

        Raises:
            ValueError: a layer that there is not, or no image.
        """
        wanted = set(self._names) if layers is None else set(layers)
        if not wanted.issubset(self._names):
            unknown = sorted(wanted.difference(self._names))
            raise ValueError(f"VGG19FeatLayer: layers must be its own, got {unknown}")
        maps: dict[str, Tensor] = {}
        x = x - self.mean
        steps = iter(zip(self._names, self.vgg19))
        for name, step in steps:
            if len(maps) == len(wanted):
                break
            if isinstance(step, nn.Conv2d) and name not in wanted:
                name, activation = next(steps)
                x = step(x, activation=activation)
            else:
                x = step(x)
            if name in wanted:
                maps[name] = x
        return maps


def _pretrained() -> dict[str, Any]:
    try:
        models: Any = importlib.import_module("torchvision.models")
    except ImportError as error:
        raise ImportError(
            "VGG19FeatLayer: install torchvision for its pretrained VGG-19, or pass its weights"
        ) from error
    network = models.vgg19(weights=models.VGG19_Weights.IMAGENET1K_V1)
    state: dict[str, Any] = network.features.state_dict()
    return state


class IDMRFLoss(nn.Module):
    """lambda_style * sum of style layers + lambda_content * sum of content layers of ID-MRF losses.

    ``feat_style_layers`` and ``feat_content_layers`` map names of layers to weights, and with
    ``nn_stretch_sigma``, ``lambda_style`` and ``lambda_content`` may be changed. After a call
    ``style_loss`` and ``content_loss`` hold the two parts. A layer of both is computed once.

    State dict: ``featlayer.*``.

    Args:
        featlayer: class of a feature network, or a function that makes one: called without
            arguments, the result maps images to a dict from names to (N, C, h, w) features.

    Raises:
        TypeError: an instance in place of the class.

    Differs from the port: features of zeros count as unlike all others (NaN there); the features of
    `tar` are computed without a graph unless it asks for a gradient.

    Source: shepnerd/inpainting_gmcnn at 08eb38f: pytorch/model/loss.py.
    """

    def __init__(self, featlayer: Callable[[], Any] = VGG19FeatLayer) -> None:
        super().__init__()
        if isinstance(featlayer, nn.Module) or not callable(featlayer):
            raise TypeError(
                "IDMRFLoss: featlayer must be a class, called without arguments, got an instance "
                f"of {type(featlayer).__name__} (inpaint_ops.IDMRFLoss takes one)"
            )
        self.featlayer = featlayer()
        self.feat_style_layers = {"relu3_2": 1.0, "relu4_2": 1.0}
        self.feat_content_layers = {"relu4_2": 1.0}
        self.bias = 1.0
        self.nn_stretch_sigma = 0.5
        self.lambda_style = 1.0
        self.lambda_content = 1.0
        self.style_loss: Tensor | None = None
        self.content_loss: Tensor | None = None

    def mrf_loss(self, gen: Tensor, tar: Tensor) -> Tensor:
        """The loss of features (N, C, h, w) against features of that shape, summed over samples."""
        return id_mrf_loss(gen, tar, bandwidth=self.nn_stretch_sigma)

    def forward(self, gen: Tensor, tar: Tensor) -> Tensor:
        """The loss of images against true ones.

        Args:
            gen: (N, 3, H, W) in [0, 1].
            tar: (N, 3, H, W) in [0, 1].

        Returns:
            The loss, a scalar.

        Raises:
            KeyError: the feature network lacks a layer.
            TypeError, ValueError: wrong type or shape.
        """
        for label, images in (("gen", gen), ("tar", tar)):
            if not isinstance(images, Tensor):
                raise TypeError(f"IDMRFLoss: {label} must be a Tensor, got {type(images).__name__}")
        names = {*self.feat_style_layers, *self.feat_content_layers}
        made = self._features(gen, names)
        with torch.set_grad_enabled(torch.is_grad_enabled() and tar.requires_grad):
            true = self._features(tar, names)
        losses = {name: self.mrf_loss(made[name], true[name]) for name in sorted(names)}
        style, content = (
            factor * torch.stack([weight * losses[name] for name, weight in layers.items()]).sum()
            for layers, factor in (
                (self.feat_style_layers, self.lambda_style),
                (self.feat_content_layers, self.lambda_content),
            )
        )
        self.style_loss, self.content_loss = style, content
        return style + content

    def _features(self, images: Tensor, names: set[str]) -> Mapping[str, Tensor]:
        if isinstance(self.featlayer, VGG19FeatLayer):
            maps: Mapping[str, Tensor] = self.featlayer(images, names)
        else:
            maps = self.featlayer(images)
        return maps

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return (
            f"style={self.feat_style_layers}, content={self.feat_content_layers}, "
            f"lambda_style={self.lambda_style}, lambda_content={self.lambda_content}, "
            f"nn_stretch_sigma={self.nn_stretch_sigma}, bias={self.bias}"
        )


class SpectralNorm(_norms.SpectralNorm):
    """A module whose weight is divided by its largest singular value at every call.

    Args:
        module: has the weight.
        name: of the weight.
        power_iteration: how many in each call, evaluation included.

    State dict: ``module.<name>_bar``, ``module.<name>_u``, ``module.<name>_v``.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: shepnerd/inpainting_gmcnn at 08eb38f: pytorch/model/layer.py.
    """

    def __init__(self, module: nn.Module, name: str = "weight", power_iteration: int = 1) -> None:
        _arguments.check_counts("SpectralNorm", power_iteration=power_iteration)
        super().__init__(module, name, power_iteration)
        self.power_iteration = power_iteration


class ConfidenceDrivenMaskLayer(nn.Module):
    """Weights of the pixel loss: what is known, spread into the hole by repeated blurring.

    Args:
        size: of the blur, pixels.
        sigma: of its shape, see `inpaint_ops.losses.confidence_mask`.
        iters: how often.

    Raises:
        TypeError, ValueError: wrong type or value.

    Differs from the port: any size works (65 alone there).

    Source: shepnerd/inpainting_gmcnn at 08eb38f: pytorch/model/layer.py.
    """

    def __init__(self, size: int = 65, sigma: float = 1.0 / 40, iters: int = 7) -> None:
        super().__init__()
        _arguments.check_counts("ConfidenceDrivenMaskLayer", size=size, iters=iters)
        checks.check_finite("ConfidenceDrivenMaskLayer", "sigma", sigma)
        self.size = size
        self.sigma = sigma
        self.iters = iters

    def forward(self, mask: Tensor) -> Tensor:
        """(N, 1, H, W), 1 = missing, to weights of that shape, 0 outside the hole."""
        weights = confidence_mask(mask, iterations=self.iters, size=self.size, sigma=self.sigma)
        return weights.to(mask.dtype) if mask.is_floating_point() else weights

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return f"size={self.size}, sigma={self.sigma}, iters={self.iters}"


class PureUpsampling(nn.Module):
    """Upsampling by a whole factor; all modes but "nearest" with aligned corners.

    Args:
        scale: factor.
        mode: of F.interpolate.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: shepnerd/inpainting_gmcnn at 08eb38f: pytorch/model/layer.py.
    """

    def __init__(self, scale: int = 2, mode: str = "bilinear") -> None:
        super().__init__()
        _arguments.check_counts("PureUpsampling", scale=scale)
        _arguments.check_word("PureUpsampling", "mode", mode, ("nearest", "bilinear", "bicubic"))
        self.scale = scale
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, scale H, scale W)."""
        size = (x.shape[2] * self.scale, x.shape[3] * self.scale)
        corners = None if self.mode == "nearest" else True
        return F.interpolate(x, size=size, mode=self.mode, align_corners=corners)

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return f"scale={self.scale}, mode={self.mode!r}"
