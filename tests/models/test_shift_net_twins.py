"""Shift-Net against plain layers at every size, the mirrored shift, batch normalisation."""

import pytest
import torch
import torch.nn.functional as F
from support import check_close, check_network
from twins import drawn
from twins import shift_net as twins

from inpaint_ops.models import WeightsNote, create_model, load_weights
from inpaint_ops.models.shift_net.mirrored_shift import MirroredShift
from inpaint_ops.models.weights.saving import public_state


def ragged(*size):
    """Two holes that are not their own mirror images, one of them at the corner."""
    hole = torch.zeros(2, 1, *size)
    hole[0, :, 60:171, 40:140] = 1
    hole[0, :, 200:230, 150:190] = 1
    hole[1, :, :100, :90] = 1
    return hole


def pair(face=False, inputs=4, norm="instance", mirror=None):
    """A model with the weights of a twin in the public layout, and the twin."""
    twin = drawn(twins.UNet(4, inputs, face=face, norm=norm))
    model = create_model("shift_net", weights=twins.port_state(twin), critic_channels=2)
    assert (model.face, model.norm, model.in_channels) == (face, norm, inputs)
    assert model.mirror == ("port" if face else None)
    if mirror != model.mirror:
        options = {"base_channels": 4, "critic_channels": 2, "in_channels": inputs, "face": face}
        other = create_model("shift_net", mirror=mirror, norm=norm, **options)
        other.generator.load_state_dict(model.generator.state_dict())
        model = other
    return model, twin


UNETS = [
    ((270, 342), {}),
    ((301, 257), {"inputs": 3}),
    ((300, 264), {"norm": "batch"}),
    ((264, 300), {"face": True, "mirror": "port"}),
    ((257, 330), {"face": True, "mirror": "exact", "inputs": 3}),
    ((270, 264), {"face": True, "mirror": "exact", "norm": "batch"}),
    ((256, 270), {"face": True}),
]


@pytest.mark.parametrize(("size", "options"), UNETS, ids=str)
def test_generator_equals_its_twin_at_every_size(size, options):
    """The port's own picture has even sides: one more row or column is ours, by resizing."""
    model, twin = pair(**options)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, model.in_channels, *size, generator=generator, dtype=torch.float64)
    hole = ragged(*size).double()
    model.eval()
    twin.double().eval()
    with torch.no_grad():
        expected = twin(x, hole, model.mirror)
        assert expected.shape[2:] == (size[0] // 2 * 2, size[1] // 2 * 2)
        expected = F.interpolate(expected, size, mode="bilinear")
        assert expected.std() > 0.2
        check_network(model.generator(x.float(), hole.float()).double(), expected)
        check_close(model.generator.double()(x, hole), expected)


@pytest.mark.parametrize(
    "options",
    [{"norm": "batch"}, {"face": True, "mirror": "port"}, {"face": True, "mirror": "exact"}],
    ids=str,
)
def test_gradients_equal_the_twins(options):
    size = (262, 257)
    model, twin = pair(**options)
    model.generator.double().train()
    twin.double().train()
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, model.in_channels, *size, generator=generator, dtype=torch.float64)
    grad = torch.randn(1, 3, *size, generator=generator, dtype=torch.float64)
    hole = ragged(*size)[:1].double()
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    ours = model.generator(leaves[0], hole)
    theirs = F.interpolate(twin(leaves[1], hole, model.mirror), size, mode="bilinear")
    weights = [model.generator.get_submodule("down2.conv").weight, twin.e2.weight]
    gradients = [
        torch.autograd.grad(y, [leaf, weight], grad)
        for y, leaf, weight in zip((ours, theirs), leaves, weights)
    ]
    for a, b in zip(*gradients):
        check_close(a, b, terms=10**4)


def test_sides_are_checked():
    model = create_model("shift_net", base_channels=1, critic_channels=1)
    with pytest.raises(ValueError, match="sides of at least 256, got"):
        model.generator(torch.zeros(1, 4, 255, 300), torch.zeros(1, 1, 255, 300))


@pytest.mark.parametrize("rule", ["port", "exact"])
@pytest.mark.parametrize("size", [(12, 10), (7, 9)], ids=str)
def test_mirrored_shift_equals_its_twin(rule, size):
    generator = torch.Generator().manual_seed(3)
    h, w = size
    x = torch.randn(4, 12, h, w, generator=generator, dtype=torch.float64).relu() + 0.01
    turned = torch.randn(4, 6, h, w, generator=generator, dtype=torch.float64).relu() + 0.01
    grad = torch.randn(4, 18, h, w, generator=generator, dtype=torch.float64)
    hole = torch.zeros(4, 1, h, w)
    hole[0, :, 0:4, 0:4] = 1  # position 0 is in it
    hole[1, :, 3:5, 4:9] = 1
    hole[2, :, 5, 2] = 1
    hole[3, :, 2:6, 2 : w - 2] = 1  # its own mirror image
    image_hole = hole.repeat_interleave(8, 2).repeat_interleave(8, 3)
    ours, theirs = ([t.clone().requires_grad_() for t in (x, turned)] for _ in range(2))
    y, index = MirroredShift(rule)(*ours, image_hole)
    shifted = [
        twins.mirrored_shift(a[:6], a[6:], m, missing > 0, rule)
        for a, m, missing in zip(*theirs, hole[:, 0])
    ]
    expected = torch.cat([theirs[0], torch.stack(shifted)], 1)
    check_close(y.detach(), expected.detach())
    assert torch.equal(index >= 0, hole[:, 0] > 0)
    assert bool((index >= h * w).any())
    assert bool(((index >= 0) & (index < h * w)).any())
    y.backward(grad)
    expected.backward(grad)
    for a, b in zip(ours, theirs):
        assert (a.grad is None) == (b.grad is None)
        if b.grad is not None:
            check_close(a.grad, b.grad)
    if rule == "exact":
        source = torch.cat([x[:, 6:].flatten(2), turned.flatten(2)], 2)
        for i in range(4):
            at = index[i] >= 0
            assert torch.equal(y[i, 12:, at], source[i][:, index[i][at]])


@pytest.mark.parametrize("rule", ["port", "exact"])
def test_mirrored_shift_without_hole_or_knowledge(rule):
    x, turned = torch.rand(3, 8, 6, 6), torch.rand(3, 4, 6, 6)
    hole = torch.zeros(3, 1, 48, 48)
    hole[1] = 1
    hole[2, :, :24] = 1
    x[2] = 0  # zero queries: the first known position of the picture itself
    y, index = MirroredShift(rule)(x, turned, hole)
    assert torch.equal(y[:, :8], x)
    assert not y[:2, 8:].any()
    assert bool((index[:2] == -1).all())
    assert bool((index[2, :3] == 18).all())
    with pytest.raises(ValueError, match="rule must be one of"):
        MirroredShift("both")


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_discriminator_equals_its_twin(norm):
    judge = create_model("shift_net", base_channels=1, critic_channels=4, norm=norm).discriminator
    plain = drawn(twins.discriminator(4, norm))
    layers = [m for m in plain if not isinstance(m, torch.nn.LeakyReLU)]
    judge.eval()
    for ours, theirs in zip(judge.children(), layers):
        if isinstance(theirs, torch.nn.Conv2d):
            ours.parametrizations.weight.original.data.copy_(theirs.weight)
            theirs.weight.data.copy_(ours.weight)
            assert (ours.bias is None) == (theirs.bias is None)
            if theirs.bias is not None:
                ours.bias.data.copy_(theirs.bias)
        else:
            ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 70, 85, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = plain.double().eval()(x.double())
        check_network(judge(x, logits=True).double(), expected)
        check_network(judge(x).double(), expected.sigmoid())


def test_batch_normalisation_is_read_off_the_file():
    state = twins.port_state(drawn(twins.UNet(4, 4, norm="batch")))
    model = create_model("shift_net", weights=state)
    assert model.norm == "batch"
    written = public_state(model, next(one for one in model.layouts if one.name == "zhaoyiyan"))
    assert set(written) == set(state)
    assert all(torch.equal(written[key], state[key]) for key in state)
    # Statistics without counters are of an old instance or batch norm, which is said.
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    with pytest.warns(WeightsNote, match=r"does not tell norm='instance': .*without counters"):
        assert create_model("shift_net", weights=old).norm == "instance"
    for norm in ("instance", "batch"):
        assert create_model("shift_net", weights=old, norm=norm).norm == norm
    # Without statistics there is no doubt.
    plain = {k: v for k, v in old.items() if "running_" not in k}
    assert create_model("shift_net", weights=plain).norm == "instance"
    missing = {k: v for k, v in state.items() if not k.endswith("1.model.2.running_var")}
    with pytest.raises(ValueError, match=r"missing: .*running_var"):
        create_model("shift_net", weights=missing)


def test_an_explicit_mirror_wins_on_loading():
    torch.manual_seed(0)
    face = create_model("shift_net", base_channels=1, face=True, mirror="port", critic_channels=1)
    (layout,) = [one for one in face.layouts if one.name == "zhaoyiyan_face"]
    state = public_state(face, layout)
    models = {
        rule: create_model("shift_net", weights=state, mirror=rule) for rule in ("exact", None)
    }
    assert create_model("shift_net", weights=state).mirror == "port"
    image, hole = torch.rand(1, 3, 256, 256), torch.zeros(1, 1, 256, 256)
    hole[..., 60:150, 40:180] = 1
    results = {}
    for rule, model in models.items():
        assert model.mirror == rule
        own = create_model("shift_net", base_channels=1, face=True, mirror=rule, critic_channels=1)
        own.generator.load_state_dict(face.generator.state_dict())
        results[rule] = model.complete(image, hole)
        assert torch.equal(results[rule], own.complete(image, hole))
        # A model that exists keeps what it was built with.
        assert load_weights(own, state) == ["generator"]
        assert own.mirror == rule
    assert not torch.equal(results["exact"], results[None])


def test_a_discriminator_with_batch_normalisation():
    critic = create_model("shift_net", critic_channels=4, base_channels=1, norm="batch")
    (layout,) = [one for one in critic.layouts if one.network == "discriminator"]
    file = public_state(critic, layout)
    assert "model.2.bias" not in file
    assert "model.3.running_mean" in file
    again = create_model("shift_net", weights=file, base_channels=1, partial=True)
    assert again.norm == "batch"
    assert torch.equal(again.discriminator.norm2.weight, critic.discriminator.norm2.weight)


@pytest.mark.parametrize(("norm", "mirror"), [("batch", None), ("instance", "port")])
def test_other_forms_train_and_complete(norm, mirror):
    torch.manual_seed(0)
    options = {"base_channels": 2, "critic_channels": 2, "face": mirror is not None}
    model = create_model("shift_net", norm=norm, mirror=mirror, **options)
    image, hole = torch.rand(1, 3, 256, 256), torch.zeros(1, 1, 256, 256)
    hole[..., 60:150, 40:180] = 1
    before = {name: p.detach().clone() for name, p in model.generator.named_parameters()}
    losses = model.recipe().step(image, hole)
    assert all(abs(value) < float("inf") for value in losses.values())
    moved = {n for n, p in model.generator.named_parameters() if not torch.equal(before[n], p)}
    idle = {name for name in before if name.endswith("conv.bias")}
    assert moved | idle == set(before)
    result = model.complete(image, hole)
    assert result[..., 60:150, 40:180].std() > 0
