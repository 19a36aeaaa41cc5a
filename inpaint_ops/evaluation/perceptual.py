"""Fréchet distance and LPIPS, by networks from files that the user has. Nothing is downloaded."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inpaint_ops.evaluation.measures import torchmetrics
from inpaint_ops.features import FeatureNetwork

# Maps of VGG-16 that LPIPS compares.
_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
_EXPORTED = ".pt2"


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Return the Fréchet distance of two sets of features, each taken for a normal distribution.

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½). With C = A'A / (n - 1), A the centred features, the
    eigenvalues of C1 C2 are the squares of the singular values of A1 A2' / sqrt((n1 - 1)(n2 - 1)).
    So the last trace is their sum, which is exact for covariances without full rank, too.

    Args:
        first: (n, features), n >= 2.
        second: (m, features), m >= 2.

    Raises:
        ValueError: other shapes.

    Source: Heusel et al., 2017 (arXiv 1706.08500), equation 6.
    """
    for name, one in (("first", first), ("second", second)):
        if one.dim() != 2 or len(one) < 2 or one.shape[1] != first.shape[1]:
            raise ValueError(
                f"frechet_distance: {name} must be (at least 2, features), got {tuple(one.shape)}"
            )
    means, traces, roots = [], [], []
    for one in (first, second):
        features = one.double()
        mean = features.mean(0)
        centred = (features - mean) / (len(features) - 1) ** 0.5
        means.append(mean)
        traces.append(float(centred.square().sum()))
        # As many rows as features at most, with the same covariance.
        roots.append(centred if len(one) <= one.shape[1] else torch.linalg.qr(centred)[1])
    cross = float(torch.linalg.svdvals(roots[0] @ roots[1].T).sum())
    distance = float((means[0] - means[1]).square().sum()) + sum(traces) - 2 * cross
    return max(distance, 0.0)


class FrechetFeatures:
    """Features of pictures for the Fréchet distance.

    Args:
        network: function of (1, 3, H, W) uint8 RGB in 0..255 that returns (1, features), or the
            file of one: TorchScript or a program of torch.export (.pt2). The Inception network that
            FID is named after resizes inside. One whose call has an argument `return_features`, as
            that of NVIDIA's StyleGAN, gets it as True.
        device: of the network from a file; None: the CPU.

    Raises:
        OSError, ValueError: the file cannot be read or holds no program.
    """

    def __init__(
        self,
        network: str | os.PathLike[str] | Callable[..., Any],
        device: torch.device | None = None,
    ) -> None:
        self._call, self._device = network, device
        self._options: dict[str, bool] = {}
        if not callable(network):
            self._call = load_program(network, device)
            schema = getattr(getattr(self._call, "forward", None), "schema", None)
            if any(a.name == "return_features" for a in getattr(schema, "arguments", ())):
                self._options["return_features"] = True

    def __call__(self, image: Tensor) -> Tensor:
        """Return the features, (features,) float32 on the CPU, of (1, 3, H, W) in [0, 1].

        Raises:
            ValueError: the network returns something else.
        """
        assert callable(self._call)
        pixels = (image * 255).round().to(torch.uint8)
        if self._device is not None:
            pixels = pixels.to(self._device)
        with torch.no_grad():
            found = self._call(pixels, **self._options)
        if not isinstance(found, Tensor) or found.numel() != found.shape[-1]:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"the network of FID must return (1, features), got {got}")
        return found.detach().reshape(-1).float().cpu()


class PerceptualDistance:
    """LPIPS of two pictures.

    Args:
        network: function of two pictures, (1, 3, H, W) RGB in [-1, 1], that returns their distance,
            or the file of one: TorchScript or a program of torch.export (.pt2). Or torchvision's
            file of VGG-16 (``vgg16-*.pth``): then it is LPIPS 0.1 with that network, whose few
            further weights torchmetrics brings.
        device: of the network from a file; None: the CPU.

    Raises:
        ImportError: torchmetrics is not installed.
        OSError, ValueError: the file cannot be read, or has other weights.

    Source: Zhang et al., 2018 (arXiv 1801.03924).
    """

    def __init__(
        self,
        network: str | os.PathLike[str] | Callable[..., Any],
        device: torch.device | None = None,
    ) -> None:
        self._device = device
        if callable(network):
            self._call = network
        elif is_program(network):
            self._call = load_program(network, device)
        else:
            self._call = _Vgg(network, device)

    def __call__(self, first: Tensor, second: Tensor) -> float:
        """Return the distance of two pictures, (1, 3, H, W) in [0, 1].

        Raises:
            ValueError: the network returns something else than one number.
        """
        pair = [image * 2 - 1 for image in (first, second)]
        if self._device is not None:
            pair = [image.to(self._device) for image in pair]
        with torch.no_grad():
            found = self._call(*pair)
        if not isinstance(found, Tensor) or found.numel() != 1:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"the network of LPIPS must return one number, got {got}")
        return float(found)


class _Vgg:
    """LPIPS 0.1: differences of unit features of VGG-16, weighed by channel."""

    def __init__(self, weights: str | os.PathLike[str], device: torch.device | None) -> None:
        folder = Path(str(torchmetrics().__file__)).parent / "lpips_models"
        state = torch.load(folder / "vgg.pth", map_location="cpu", weights_only=True)
        self._scales = [state[f"lin{i}.model.1.weight"].to(device) for i in range(len(_LAYERS))]
        # Their mean and deviation are ImageNet's, but of pictures in [-1, 1].
        self._network = FeatureNetwork("vgg16", weights, layers=_LAYERS).to(device)

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        pair = [self._network((image + 1) / 2) for image in (first, second)]
        total = torch.zeros((), device=first.device)
        for layer, scale in zip(_LAYERS, self._scales):
            units = [
                maps[layer] / (maps[layer].square().sum(1, True) + 1e-8).sqrt() for maps in pair
            ]
            total = total + ((units[0] - units[1]).square() * scale).sum(1).mean()
        return total


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True) + 1e-8).sqrt()


def is_program(path: str | os.PathLike[str]) -> bool:
    """Return whether a file holds a program: TorchScript or one of torch.export."""
    if Path(path).suffix == _EXPORTED:
        return True
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def load_program(
    path: str | os.PathLike[str], device: torch.device | None = None
) -> Callable[..., Any]:
    """Return the module of a TorchScript file or of a program of torch.export.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: it holds no such program.
    """
    file = Path(path)
    with file.open("rb"):  # torch's own errors do not always say that there is no file
        pass
    if not is_program(file):
        raise ValueError(
            f"{file}: is neither TorchScript nor a program of torch.export (.pt2); torch.jit.save "
            "and torch.export.save write them"
        )
    try:
        if file.suffix == _EXPORTED:
            exported = torch.export.load(file).module()
            return exported if device is None else exported.to(device)
        with warnings.catch_warnings():
            # What it recommends instead cannot read the files that people have.
            warnings.simplefilter("ignore", DeprecationWarning)
            script = torch.jit.load(file, map_location=device or "cpu")
    except (RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as exc:
        raise ValueError(f"{file}: cannot be read as a program: {exc}") from exc
    module: torch.nn.Module = script.eval()
    return module
