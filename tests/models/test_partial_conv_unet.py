"""PartialConv U-Net: numbers of the public port, parameter counts, masks, losses, phases."""

import pytest
import torch
from golden_networks import drawn_state, network_golden
from model_cases import ToyFeatures
from networks import toy_features
from support import check_close, check_network, golden
from torch import nn

from inpaint_ops.models import create_model
from inpaint_ops.models.partial_conv_unet.model import PartialConvUNet
from inpaint_ops.models.partial_conv_unet.networks import PartialConvUNetwork
from inpaint_ops.models.partial_conv_unet.recipe import PartialConvUNetRecipe
from inpaint_ops.models.weights.saving import public_state

NAOTO0804, MMAGIC = PartialConvUNet.layouts


def naoto_shapes(levels):
    """The keys of the port in its order: encoder, then decoder with its deep levels first."""
    model = PartialConvUNet(levels=levels, normalise="sum")
    state = public_state(model, NAOTO0804)
    deep = [f"dec_{i}." for i in range(5, levels + 1)]
    prefixes = [f"enc_{i}." for i in range(1, levels + 1)] + deep
    prefixes += [f"dec_{i}." for i in (4, 3, 2, 1)]
    kinds = ("conv.input_conv", "conv.mask_conv", "bn")
    leaves = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = [f"{p}{kind}.{leaf}" for p in prefixes for kind in kinds for leaf in leaves]
    return {name: tuple(state[name].shape) for name in names if name in state}


@pytest.mark.parametrize(
    ("name", "levels"), [("pconvunet_naoto0804_128", 7), ("pconvunet_naoto0804_ls5_64", 5)]
)
def test_network_equals_the_port(name, levels):
    z, recipe = network_golden(name)
    state = drawn_state(naoto_shapes(levels), recipe, z["param_sum"])
    model = create_model("partial_conv_unet", weights={"model": state, "n_iter": 1})
    assert (model.levels, model.base_channels, model.normalise) == (levels, 64, "sum")
    model.eval()
    x = z["x"].clone().requires_grad_()
    y, valid = model.generator(x, z["mask"])
    check_network(y.detach(), z["out"])
    assert torch.equal(valid.expand(-1, 3, -1, -1), z["mask_out"])
    single, _ = model.generator(x, z["mask"][:, :1])
    check_network(single.detach(), z["out"])
    if "gx" in z:
        (gx,) = torch.autograd.grad(y, x, z["gout"])
        assert (gx - z["gx"]).norm() <= 5e-3 * z["gx"].norm()


def test_both_rules_agree_on_rescaled_weights():
    torch.manual_seed(0)
    plain = PartialConvUNet(levels=5, base_channels=4).eval()
    other = PartialConvUNet(levels=5, base_channels=4, normalise="sum").eval()
    state = plain.state_dict()
    state = {k: v * v[0].numel() if k.endswith("conv.weight") else v for k, v in state.items()}
    other.load_state_dict(state)
    image, hole = torch.rand(1, 3, 40, 50), torch.zeros(1, 1, 40, 50)
    hole[..., 10:30, 10:30] = 1
    torch.testing.assert_close(
        plain.complete(image, hole), other.complete(image, hole), rtol=0, atol=1e-5
    )


def test_parameter_counts():
    def count(*args):
        with torch.device("meta"):
            return sum(p.numel() for p in PartialConvUNetwork(*args).parameters())

    counts = {5: 11_619_924, 6: 18_699_860, 7: 25_779_796, 8: 32_859_732}
    assert {levels: count(levels) for levels in counts} == counts
    assert count(7, 64, True) == 25_779_860


def test_padding_and_holes_are_missing():
    """Neither what lies in a hole nor the padding to a multiple of 32 reaches the result."""
    torch.manual_seed(0)
    model = PartialConvUNet(levels=5, base_channels=4).eval()
    image, hole = torch.rand(1, 3, 40, 64), torch.zeros(1, 1, 40, 64)
    hole[..., 8:24, 10:30] = 1
    small = model.complete(image, hole)
    grown = torch.full((1, 3, 64, 64), 0.5)
    grown[:, :, :40] = image
    missing = torch.ones(1, 1, 64, 64)
    missing[:, :, :40] = hole
    torch.testing.assert_close(model.complete(grown, missing)[:, :, :40], small)
    x = model.normalised(image).masked_fill(hole != 0, float("nan"))
    x = torch.nn.functional.pad(x, (0, 0, 0, 24), value=float("nan"))
    y, valid = model.generator(x, missing == 0)
    assert y.isfinite().all()
    assert valid.all()


def test_an_image_without_a_known_pixel():
    model = PartialConvUNet(levels=5, base_channels=4).eval()
    y, valid = model.generator(torch.ones(1, 3, 32, 32), torch.zeros(1, 1, 32, 32))
    assert y.isfinite().all()
    assert not valid.any()


def test_ranges():
    image = torch.rand(1, 3, 4, 4)
    for name in ("imagenet", "signed"):
        model = PartialConvUNet(levels=5, base_channels=4, input_range=name)
        check_close(model.unnormalised(model.normalised(image)), image.double(), terms=640)
    check_close(model.normalised(image), image.double() * 2 - 1, terms=640)


class Toy(nn.Module):
    """The golden file's extractor; it was fed with normalised pictures."""

    def __init__(self, model):
        super().__init__()
        self.model = [model]

    def forward(self, picture):
        maps = toy_features(self.model[0].normalised(picture))
        return dict(zip(("pool1", "pool2", "pool3"), maps))


def test_losses_equal_the_port():
    z = golden("pconv_losses_naoto0804")
    model = PartialConvUNet(levels=5, base_channels=4)
    recipe = model.recipe("train", features=Toy(model))
    recipe.variation_rule = "whole"
    out = z["out"].clone().requires_grad_()
    terms = recipe.terms(out, z["gt"], 1 - z["mask"][:, :1])
    for ours, theirs in {
        "valid": "valid",
        "hole": "hole",
        "perceptual": "prc",
        "style": "style",
        "variation": "tv",
    }.items():
        check_close(terms[ours].detach(), torch.tensor(z[f"loss_{theirs}"]), terms=4096)
    total = sum(recipe.numbers[name] * value for name, value in terms.items())
    check_close(total.detach(), torch.tensor(z["total"]), terms=4096)
    check_close(torch.autograd.grad(total, out)[0], z["gout_total"], terms=8192)


def test_the_second_phase_freezes_statistics_of_the_encoder_only():
    torch.manual_seed(0)
    model = PartialConvUNet(levels=5, base_channels=4)
    features = ToyFeatures(PartialConvUNetRecipe.feature_network["layers"])
    image = torch.rand(2, 3, 64, 64)
    hole = torch.zeros(1, 1, 64, 64)
    hole[..., 20:40, 20:40] = 1
    for phase in ("train", "finetune"):
        recipe = model.recipe(phase, features=features)
        before = {k: v.clone() for k, v in model.generator.state_dict().items()}
        model.train()
        for _ in range(2):
            recipe.step(image, hole)
        after = model.generator.state_dict()
        moved = {k for k in before if not torch.equal(before[k], after[k])}
        running = {k for k in before if "running" in k or "num_batches" in k}
        fixed = {k for k in running if k.startswith("encoder.")} if phase == "finetune" else set()
        assert moved == set(before) - fixed


def test_sides_are_checked():
    model = PartialConvUNet(levels=5, base_channels=4)
    with pytest.raises(ValueError, match="multiples of 32"):
        model.generator(torch.zeros(1, 3, 32, 40), torch.ones(1, 1, 32, 40))
    with pytest.raises(ValueError, match="levels must be at most 8"):
        PartialConvUNet(levels=9)
    with pytest.raises(ValueError, match="levels must be at least 5"):
        PartialConvUNet(levels=4)
    with pytest.raises(ValueError, match="input_range must be one of"):
        PartialConvUNet(input_range="bytes")
    with pytest.raises(ValueError, match="features must be given in phase"):
        model.recipe()


def test_mmagic_files_may_hold_the_loss_network():
    model = PartialConvUNet(levels=5, base_channels=4, stem_bias=True, input_range="signed")
    state = public_state(model, MMAGIC)
    state["loss_percep.vgg.vgg_layers.0.weight"] = torch.zeros(1)
    again = create_model("partial_conv_unet", weights={"state_dict": state, "meta": {}})
    assert (again.levels, again.stem_bias, again.input_range) == (5, True, "signed")
    for key, value in model.generator.state_dict().items():
        assert torch.equal(again.generator.state_dict()[key], value)
