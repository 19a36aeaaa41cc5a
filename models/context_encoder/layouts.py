"""Layouts of public weights of Context Encoders: BoyuanJiang's and eriklindernoren's ports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from inpaint_ops.models.context_encoder.networks import EncoderDecoder, RegionDiscriminator
from inpaint_ops.models.weights.layouts import Layout, Place, fixed, layer_keys

PATCH_DISCRIMINATOR = {
    "model.0": "layers.0",
    "model.2": "layers.1",
    "model.5": "layers.3",
    "model.8": "layers.5",
    "model.11": "layers.7",
}


def _numbered(
    blocks: Iterable[Any], ours: str, prefix: str = "", start: int = 0
) -> tuple[dict[str, Place], int]:
    """Return the public keys of blocks in a flat list of modules, and the number after the last.

    Convolution, normalisation and activation of a block have a number each.

    Args:
        blocks: `ConvBlock`s in the order of the list.
        ours: the sequence that holds them in our network.
        prefix: of the public names; "{prefix}{number}.weight" to "{ours}.{i}.conv.weight".
        start: the number of the first.
    """
    keys: dict[str, Place] = {}
    for i, block in enumerate(blocks):
        for part in ("conv", "norm"):
            module = getattr(block, part)
            if module is None:
                continue
            names = module.state_dict()
            keys |= {f"{prefix}{start}.{key}": f"{ours}.{i}.{part}.{key}" for key in names}
            start += 1
        start += block.activation != "identity"
    return keys, start


def generator_keys(name: str) -> Callable[[EncoderDecoder], dict[str, Place]]:
    """Return the keys of a port that lists the encoder-decoder in one sequence of that name."""

    def keys(network: EncoderDecoder) -> dict[str, Place]:
        encoder, end = _numbered(network.encoder, "encoder", f"{name}.")
        return encoder | _numbered(network.decoder, "decoder", f"{name}.", end)[0]

    return keys


def _discriminator_keys(network: RegionDiscriminator) -> dict[str, Place]:
    return _numbered(network.layers, "layers", "main.")[0]


def _generator_options(
    variant: str, bias: str, first: str, code: str
) -> Callable[[Mapping[str, Tensor]], dict[str, Any]]:
    def options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        return {
            "variant": variant,
            "base_channels": state[first].shape[0],
            "bottleneck": state[code].shape[0],
            "bias": bias in state,
        }

    return options


def _discriminator_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"base_channels": state["main.0.weight"].shape[0], "bias": "main.0.bias" in state}


def encoder_decoder_options(state: Mapping[str, Tensor], network: str) -> dict[str, Any]:
    """Return the options of an `EncoderDecoder` from our own state dict of a model."""
    counts = {
        side: len({k.split(".")[2] for k in state if k.startswith(f"{network}.{side}.")})
        for side in ("encoder", "decoder")
    }
    last = state[f"{network}.encoder.{counts['encoder'] - 1}.conv.weight"]
    variant = "centre"
    if counts["encoder"] == 5:
        variant = "random_64"
    elif counts["decoder"] == 6:
        variant = "random_128"
    elif last.shape[2] == 1:
        variant = "convolutional"
    return {
        "variant": variant,
        "base_channels": state[f"{network}.encoder.0.conv.weight"].shape[0],
        "bottleneck": last.shape[0],
        "bias": f"{network}.encoder.0.conv.bias" in state,
    }


_BOYUANJIANG = "BoyuanJiang/context_encoder_pytorch"
_ERIKLINDERNOREN = "eriklindernoren/PyTorch-GAN"
LAYOUTS = (
    Layout(
        "boyuanjiang",
        "generator",
        generator_keys("main"),
        ("main.14.weight", "main.17.weight", "main.29.weight"),
        options=_generator_options("centre", "main.0.bias", "main.0.weight", "main.14.weight"),
        recipe=fixed(overlap=4),
        unstated=("overlap",),
        hint="overlapPred of the training script",
        nesting=("state_dict",),
        licence="MIT",
        source=_BOYUANJIANG,
    ),
    Layout(
        "boyuanjiang",
        "discriminator",
        _discriminator_keys,
        ("main.0.weight", "main.9.weight", "main.11.weight"),
        recognise=lambda state: "main.12.weight" not in state,
        options=_discriminator_options,
        recipe=fixed(variant="centre"),
        nesting=("state_dict",),
        licence="MIT",
        source=_BOYUANJIANG,
    ),
    Layout(
        "eriklindernoren",
        "generator",
        generator_keys("model"),
        ("model.14.weight", "model.15.weight", "model.27.weight"),
        options=_generator_options(
            "convolutional", "model.0.bias", "model.0.weight", "model.14.weight"
        ),
        recipe=fixed(overlap=0),
        licence="MIT",
        source=_ERIKLINDERNOREN,
    ),
    Layout(
        "eriklindernoren",
        "discriminator",
        layer_keys(PATCH_DISCRIMINATOR),
        ("model.0.weight", "model.8.bias", "model.11.weight"),
        recognise=lambda state: "model.3.weight" not in state,
        options=lambda state: {
            "variant": "convolutional",
            "base_channels": state["model.0.weight"].shape[0],
        },
        licence="MIT",
        source=_ERIKLINDERNOREN,
    ),
)
