"""MSNPS: content network, energies of paper and released code, synthesis, completion."""

import networks
import pytest
import torch
from support import check_close, check_network
from torch import nn

from inpaint_ops.features import FeatureNetwork
from inpaint_ops.models import create_model
from inpaint_ops.models.msnps.texture_energies import (
    PAPER_LAYERS,
    RELEASED_LAYERS,
    NoKnownPatch,
    PaperEnergy,
    ReleasedEnergy,
    Settings,
    _centred,
    cells,
    donor_rows,
    overwritten,
    turned,
)
from inpaint_ops.models.msnps.texture_synthesis import Trace, descend, region, synthesise
from inpaint_ops.reference.nearest_patch import patch_origins

SMALL = {"base_channels": 8, "bottleneck": 32, "size": 64, "levels": 2, "iterations": 3}


@pytest.fixture(scope="module")
def paper_features():
    return FeatureNetwork.untrained("vgg19", layers=PAPER_LAYERS)


@pytest.fixture(scope="module")
def released_features():
    return FeatureNetwork.untrained("vgg19", layers=RELEASED_LAYERS, rule="caffe_256", ceil=True)


def picture(h=64, w=64, seed=1):
    """Stripes and noise: something with patches to match."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 3, h, w, generator=generator)
    stripes = (torch.arange(w) // 4 % 2).float().expand(1, 3, h, w)
    return 0.6 * stripes + 0.4 * noise


def box(h=64, w=64, top=24, bottom=40, left=20, right=44):
    hole = torch.zeros(1, 1, h, w)
    hole[..., top:bottom, left:right] = 1
    return hole


@pytest.mark.parametrize("alpha", [1.0, 0.2])
def test_content_network_equals_the_table(alpha):
    model = create_model("msnps", elu_alpha=alpha, **SMALL)
    elu, c, code = nn.ELU(alpha), 8, 32
    rows = [("conv", 3, c, 4, 2, 1, 1, False, elu, False)]
    pairs = ((c, c), (c, 2 * c), (2 * c, 4 * c), (4 * c, 8 * c))
    rows += [("conv", i, o, 4, 2, 1, 1, True, elu, False) for i, o in pairs]
    rows.append(("conv", 8 * c, code, 4, 1, 0, 1, True, elu, False))
    rows.append(("deconv", code, 8 * c, 4, 1, 0, 1, True, elu, False))
    pairs = ((8 * c, 4 * c), (4 * c, 2 * c), (2 * c, c))
    rows += [("deconv", i, o, 4, 2, 1, 1, True, elu, False) for i, o in pairs]
    plain = networks.stacked([*rows, ("deconv", c, 3, 4, 2, 1, 1, False, nn.Tanh(), False)])
    networks.fill(model.content_network, plain)
    x = torch.randn(3, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    networks.check_same(model.content_network, plain, x)


def test_parameter_counts():
    with torch.device("meta"):
        model = create_model("msnps")
        features = FeatureNetwork.untrained("vgg19", layers=["relu4_2"])
    assert sum(p.numel() for p in model.content_network.parameters()) == 71_124_544
    assert sum(p.numel() for p in model.discriminator.parameters()) == 2_765_568
    assert sum(p.numel() for p in features.parameters()) == 5_865_536


def patches(maps):
    """(patches, C * 9) of a (1, C, h, w) map, rows first."""
    return nn.functional.unfold(maps, 3)[0].T


@pytest.mark.parametrize("margin", [0, 1])
def test_paper_energy_is_its_formula(paper_features, margin):
    x, reference = picture(), picture(seed=2)
    hole = box() if margin == 0 else box(64, 64, 8, 16, 8, 20)
    settings = Settings(texture_weight=2e-6, variation_weight=3e-6, margin=margin)
    terms = PaperEnergy(paper_features, hole, reference, settings)(x)
    check_close(terms["content"], (hole * (x - reference)).double().square().sum(), terms=4000)
    wide = x.double()
    steps = wide.diff(dim=2).square().sum() + wide.diff(dim=3).square().sum()
    # Of pixels in 0 ... 255, as of the network's input.
    check_close(terms["variation"], 3e-6 * 255**2 * steps, terms=20_000)
    total = 0.0
    maps = paper_features(x)
    for name, stride in zip(PAPER_LAYERS, (4, 8)):
        missing = nn.functional.max_pool2d(hole, stride)
        missing = nn.functional.max_pool2d(missing, 2 * margin + 1, 1, margin)
        rows = patches(maps[name].double())
        # Every patch in the middle of which is a missing cell, against those without any.
        asked = missing[0, 0, 1:-1, 1:-1].flatten() > 0
        known = nn.functional.max_pool2d(missing, 3, 1).flatten() == 0
        distance = torch.cdist(rows[asked], rows[known]).min(1).values
        total = total + distance.square().mean()
    # Features as of a network fed with 0 ... 255.
    unit = 255 * (0.229 + 0.224 + 0.225) / 3
    check_network(terms["texture"].double(), 2e-6 * unit**2 * total)


def test_paper_energy_gradient(paper_features):
    hole = box()
    settings = Settings(texture_weight=1e-6, rematch=False)
    energy = PaperEnergy(paper_features, hole, picture(seed=2), settings)
    x = picture().requires_grad_()
    torch.stack(list(energy(x).values())).sum().backward()
    # With the known patches as targets: their features as they are now.
    with torch.no_grad():
        kept = {name: patches(m) for name, m in paper_features(x).items()}
    leaf = x.detach().clone().requires_grad_()
    expected = (hole * (leaf - energy.reference)).square().sum()
    steps = leaf.diff(dim=2).square().sum() + leaf.diff(dim=3).square().sum()
    expected = expected + 5e-6 * 255**2 * steps
    for name, maps in paper_features(leaf).items():
        queries, keys = energy.matches[name]
        width = maps.shape[3]
        own, other = ((c // width) * (width - 2) + c % width for c in (queries, keys))
        difference = (patches(maps)[own] - kept[name][other]).square().sum(1)
        expected = expected + energy.texture_weight * difference.mean()
    expected.backward()
    check_network(x.grad, leaf.grad)


def test_keys_may_take_gradients(paper_features):
    x = picture()
    grads = []
    for detach in (True, False):
        settings = Settings(texture_weight=1.0, detach_keys=detach)
        leaf = x.clone().requires_grad_()
        PaperEnergy(paper_features, box(), x, settings)(leaf)["texture"].backward()
        grads.append(leaf.grad)
    assert not torch.equal(*grads)


@pytest.mark.parametrize("energy", ["paper", "released"])
def test_synthesis_lowers_the_energy(energy, paper_features, released_features):
    features = paper_features if energy == "paper" else released_features
    image, hole = picture(), box()
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    start = torch.where(hole > 0, noise, image)
    settings = Settings(
        energy=energy,
        size=64,
        levels=2,
        iterations=4,
        texture_weight=5e-8,
        # Smoothing may raise the other terms.
        variation_weight=0.0,
    )
    trace = Trace()
    result = synthesise(features, start, hole, settings, trace)
    assert len(trace.scales) == 2
    for scale in trace.scales:
        totals = [terms["total"] for terms in scale]
        assert min(totals) < totals[0]
        if energy == "paper":
            # Steps that the line search takes never raise it, and the last is taken.
            assert totals[-1] <= totals[0]
            assert scale[-1]["texture"] < scale[0]["texture"]
    assert bool(((result >= 0) & (result <= 1)).all())
    assert not torch.equal(result[:, :, 24:40, 20:44], start[:, :, 24:40, 20:44])
    if energy == "paper":
        known = (hole == 0).expand_as(start)
        check_network(result[known], start[known])


def test_released_gradient_is_the_code_s(released_features):
    content, style = picture(), picture(seed=3)
    energy = ReleasedEnergy(released_features, content, style)
    first = picture(seed=4)
    energy(first)
    x = picture(seed=5)
    leaf = x.clone().requires_grad_()
    torch.stack(list(energy(leaf).values())).sum().backward()
    # Written down as the code does: a gradient for each map, and for the pixels.
    leaf_maps = x.clone().requires_grad_()
    maps = released_features(leaf_maps)
    with torch.no_grad():
        reference = released_features(content)["relu4_2"]
        pull = 20 * 2 * (maps["relu4_2"] - reference) / reference.numel()
        push = -1e-4 * averaged_residual(released_features, first, style, maps["relu4_1"])
    torch.autograd.backward([maps["relu4_2"], maps["relu4_1"]], [pull, push])
    wide = 256 * x
    grad = torch.zeros_like(wide)
    right = wide[..., :-1, :-1] - wide[..., :-1, 1:]
    down = wide[..., :-1, :-1] - wide[..., 1:, :-1]
    grad[..., :-1, :-1] += right + down
    grad[..., :-1, 1:] -= right
    grad[..., 1:, :-1] -= down
    check_network(leaf.grad, leaf_maps.grad + 1e-4 * 256 * grad)


def averaged_residual(features, first, style, current):
    """Mean over the covering patches of target - current, matched by cosine at `first`."""
    angles = (-torch.pi / 24, 0.0, torch.pi / 24)
    keys = [
        features(turned(style, angle, size))["relu4_1"]
        for angle in angles
        for size in (1 / 1.05, 1.0, 1.05)
    ]

    def strided(maps):
        rows = patches(maps)
        width = maps.shape[3] - 2
        origins = [patch_origins(side, 3, 2) for side in maps.shape[2:]]
        places = [(y, x) for y in origins[0] for x in origins[1]]
        return rows[[y * width + x for y, x in places]], places

    candidates = torch.cat([strided(key)[0] for key in keys])
    asked, places = strided(features(first)["relu4_1"])
    cosine = nn.functional.normalize(asked, dim=1) @ nn.functional.normalize(candidates, dim=1).T
    best = candidates[cosine.argmax(1)].view(len(places), -1, 3, 3)
    total, count = torch.zeros_like(current), torch.zeros_like(current[:, :1])
    for patch, (y, x) in zip(best, places):
        total[0, :, y : y + 3, x : x + 3] += patch - current[0, :, y : y + 3, x : x + 3]
        count[0, :, y : y + 3, x : x + 3] += 1
    return total / count.clamp(min=1e-10)


def test_donor_rows_are_those_of_the_code():
    rows = donor_rows(512, 116, 396)
    assert rows[:116] == list(range(116))
    assert rows[116:164] == list(range(68, 116))
    assert rows[164:] == list(range(396, 512))
    # A hole that is smaller than what is known above it, and one that touches the upper edge.
    assert donor_rows(100, 60, 70) == list(range(10))
    assert donor_rows(20, 0, 15) == [*(15 + i % 5 for i in range(10)), *range(15, 20)]
    with pytest.raises(NoKnownPatch):
        donor_rows(20, 0, 20)
    image = picture(512, 512)
    hole = box(512, 512, 144, 368, 144, 368)
    style = overwritten(image, hole, 28)
    assert torch.equal(style[..., 116:232, 116:396], image[..., :116, 116:396])
    changed = (style != image).any(1)[0].nonzero()
    assert changed.min() >= 116
    assert changed.max() <= 395


def test_turned_copies():
    image = picture(40, 60)
    check_network(turned(image, 0.0, 1.0), image)
    ramp = torch.linspace(0, 1, 60).expand(1, 3, 60, 60)
    quarter = turned(ramp, torch.pi / 2, 1.0)
    # A quarter turn of a square keeps all of it: columns become rows.
    assert (quarter[0, 0].diff(dim=0).abs() > 0.01).all()
    assert quarter[0, 0].diff(dim=1).abs().max() < 1e-4
    small = turned(image, torch.pi / 24, 1 / 1.05)
    assert small.shape[2] < 40
    assert abs(small.shape[3] / small.shape[2] - 1.5) < 0.05


def test_cells_touch_any_missing_pixel():
    hole = torch.zeros(1, 1, 32, 32)
    hole[..., 7, 8] = 1
    assert cells(hole, (4, 4))[0, 0].nonzero().tolist() == [[0, 1]]
    assert cells(hole, (4, 4), 1).sum() == 6


def test_patches_serve_cells_on_the_border():
    missing = torch.zeros(1, 1, 6, 7, dtype=torch.bool)
    missing[..., 0, 3] = missing[..., 5, 6] = missing[..., 2, 2] = True
    assert _centred(missing)[0, 0].nonzero().tolist() == [[0, 2], [1, 1], [3, 4]]
    # The smallest map has one patch, which serves all.
    assert _centred(torch.eye(3, dtype=torch.bool)[None, None] & False).shape == (1, 1, 1, 1)
    corner = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    corner[..., 2, 0] = True
    assert bool(_centred(corner).all())


def test_regions():
    hole = box(600, 800, 100, 160, 500, 700)[0]
    assert region(hole) == (slice(0, 400), slice(400, 800))
    assert region(box(50, 300, 10, 12, 100, 104)[0]) == (slice(0, 50), slice(38, 166))


def test_descent_without_search_matches_unit_steps():
    target = torch.full((1, 3, 8, 8), 0.25)
    start = torch.full((1, 3, 8, 8), 0.75)
    free = box(8, 8, 2, 6, 2, 6)

    def energy(x):
        return {"distance": 0.5 * (x - target).square().sum()}

    result = descend(energy, start, free, 5)
    check_network(result[..., 2:6, 2:6], target[..., 2:6, 2:6])
    assert torch.equal(result[..., :2, :], start[..., :2, :])
    broken = descend(lambda x: {"nan": (x * float("nan")).sum()}, start, free, 2)
    assert torch.equal(broken, start)


@pytest.mark.filterwarnings("ignore::inpaint_ops.models.HoleNote")
@pytest.mark.parametrize("energy", ["paper", "released"])
def test_complete_any_size(energy, paper_features, released_features):
    torch.manual_seed(0)
    model = create_model("msnps", **{**SMALL, "iterations": 2, "energy": energy})
    model.load_features(paper_features if energy == "paper" else released_features)
    plain = create_model("msnps", **{**SMALL, "energy": "none"})
    plain.load_state_dict(model.state_dict())
    image = torch.cat([picture(70, 91), picture(70, 91, seed=2)])
    hole = torch.cat([box(70, 91, 20, 41, 30, 60), torch.ones(1, 1, 70, 91)])
    damaged = torch.where(hole > 0, float("nan"), image)
    told = []
    result = model.complete(damaged, hole, progress=told.append)
    # Two evaluations of the energy on the one scale of the first sample; the second has none.
    assert told == [0.0, 0.25, 0.5, 1.0]
    known = (hole == 0).expand_as(image)
    assert torch.equal(result[known], image[known])
    assert bool(((result >= 0) & (result <= 1)).all())
    content = plain.complete(image, hole)
    assert not torch.equal(result[0], content[0])
    # Nothing is known of the second sample: the content network's prediction stays.
    check_network(result[1], content[1])


def test_features_are_asked_for():
    model = create_model("msnps", **SMALL)
    with pytest.raises(ValueError, match=r"msnps.complete: features must be .*load_features"):
        model.complete(picture(), box())
    few = FeatureNetwork.untrained("vgg19", layers=["relu3_1"])
    with pytest.raises(ValueError, match="features must have layers relu3_1, relu4_1 of vgg19"):
        model.load_features(few)
    other = FeatureNetwork.untrained("vgg16", layers=PAPER_LAYERS)
    with pytest.raises(ValueError, match="got relu3_1, relu4_1 of vgg16"):
        model.load_features(other)
    with pytest.raises(FileNotFoundError):
        model.load_features("absent.pth")


def test_features_from_a_file(tmp_path, paper_features):
    positions = {"1_1": 0, "1_2": 2, "2_1": 5, "2_2": 7, "3_1": 10, "3_2": 12, "3_3": 14}
    positions |= {"3_4": 16, "4_1": 19}
    state = {}
    for label, position in positions.items():
        layer = paper_features.convolutions[f"conv{label}"]
        state[f"features.{position}.weight"] = layer.weight
        state[f"features.{position}.bias"] = layer.bias
    torch.save(state, tmp_path / "vgg19.pth")
    model = create_model("msnps", **SMALL)
    model.load_features(tmp_path / "vgg19.pth")
    given = create_model("msnps", **SMALL)
    given.load_state_dict(model.state_dict())
    given.load_features(paper_features)
    image, hole = picture(), box()
    assert torch.equal(model.complete(image, hole), given.complete(image, hole))
    # The features are no part of the method's weights.
    assert not any(key.startswith("features") for key in model.state_dict())


def test_no_known_patch(paper_features):
    hole = torch.ones(1, 1, 64, 64)
    hole[..., :2] = 0
    with pytest.raises(NoKnownPatch, match="hole must leave a known patch"):
        synthesise(paper_features, picture(), hole, Settings(size=64, levels=2, iterations=1))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"energy": "fast"}, "energy must be one of"),
        ({"levels": 0}, "levels must be"),
        ({"size": 16}, "size must be"),
        ({"elu_alpha": float("nan")}, "elu_alpha must be"),
    ],
)
def test_bad_options(options, text):
    with pytest.raises(ValueError, match=f"msnps: {text}"):
        create_model("msnps", **{**SMALL, **options})
