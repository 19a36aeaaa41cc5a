"""Networks that compute what a hole needs, against the same networks computing everything."""

import pytest
import torch
from model_cases import picture, small
from torch import nn
from user_networks import UNKNOWN, Own

import inpaint_ops
from inpaint_ops import needed
from inpaint_ops.layers import FusedConv2d
from inpaint_ops.models import list_models
from inpaint_ops.needed import compute as computing
from inpaint_ops.needed import lazy_tensor as noting
from inpaint_ops.ops.partly import PARTLY

NAN = float("nan")


@pytest.fixture(autouse=True)
def _any_size(monkeypatch):
    """Small pictures count, and what is not computed is NaN."""
    monkeypatch.setattr(noting, "_LEAST_PIXELS", 0)
    plain = computing._results

    def poisoned(step, plan):
        results = plain(step, plan)
        if results and isinstance(plan.need, torch.Tensor):
            results[0].masked_fill_((plan.need == 0)[:, None], NAN)
        return results

    monkeypatch.setattr(computing, "_results", poisoned)


@pytest.fixture
def plans(monkeypatch):
    """The plans that were made, with their steps."""
    seen = []
    plain = computing._plans

    def watched(those, x, need):
        made = plain(those, x, need)
        seen.extend(zip(those, made))
        return made

    monkeypatch.setattr(computing, "_plans", watched)
    return seen


def holes(n, h, w):
    zero = torch.zeros(n, 1, h, w)
    box, corner, strokes = zero.clone(), zero.clone(), zero.clone()
    box[:, :, h // 2 : h // 2 + 9, w // 3 : w // 3 + 7] = 1
    corner[0, :, :5, -6:] = 1
    strokes[:, :, ::11, : w // 2] = 1
    strokes[-1, :, :, w // 4] = 1
    return {"box": box, "corner": corner, "strokes": strokes, "shared": box[:1]}


def as_called(model):
    """What fills pictures, with every operator as it is called."""

    def fill(image, missing, wanted=None, given=None):
        return model.completed(image, missing, model.hints(image, missing), wanted=wanted)

    return fill


@pytest.mark.parametrize("name", list_models())
def test_every_method_fills_bit_for_bit(name):
    model = small(name)
    for n, size in ((1, (72, 96)), (3, (61, 50))):
        image = picture(n, 3, *size)
        for key, hole in holes(n, *size).items():
            some = model.complete(image, hole)
            assert torch.equal(some, model.complete(image, hole, compute="all")), key
            with torch.no_grad():
                # Hole by hole for methods that see one at a time.
                plain = model.eval()._separated(as_called(model))(
                    image, (hole > 0).expand(n, 1, *size)
                )
            torch.testing.assert_close(some, plain, atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    "name", ["deepfill_v2", "partial_conv_unet", "glcic", "gmcnn", "patch_gan"]
)
def test_a_small_hole_takes_part_of_the_layers(name, plans):
    model = small(name)
    hole = torch.zeros(1, 1, 256, 256)
    hole[..., 100:110, 100:110] = 1
    model.complete(picture(1, 3, 256, 256), hole)
    convolutions = [plan for step, plan in plans if step.func in PARTLY]
    partial = [plan for plan in convolutions if isinstance(plan.need, torch.Tensor)]
    assert len(partial) >= len(convolutions) // 3


def compute(network, x, hole, *, whole=False):
    with torch.no_grad():
        y = needed.computed(network(needed.lazy(x), hole), hole, whole=whole)
    return torch.where(hole > 0, y, 0.0)


@pytest.mark.parametrize("unknown", list(UNKNOWN))
def test_networks_of_users(unknown, plans):
    network = Own(UNKNOWN[unknown]).eval()
    x = torch.randn(2, 3, 64, 88)
    for key, hole in holes(2, 64, 88).items():
        some = compute(network, x, hole.expand(2, 1, 64, 88))
        whole = compute(network, x, hole.expand(2, 1, 64, 88), whole=True)
        assert torch.equal(some, whole), key
        with torch.no_grad():
            plain = torch.where(hole > 0, network(x, hole.expand(2, 1, 64, 88)), 0.0)
        torch.testing.assert_close(some, plain, atol=1e-4, rtol=1e-4)
    assert any(isinstance(plan.need, torch.Tensor) for _, plan in plans)


def _changed_under_a_view(y):
    view = y[:, :, 1:-1]
    return y.mul_(2) + view.mean()


def _changed_under_parts(y):
    first, *_ = y.unbind(1)
    return y.mul_(2) + first.mean()


@pytest.mark.parametrize(
    "change",
    [lambda y: y[:, :, 1:-1].mul_(2), _changed_under_a_view, _changed_under_parts],
    ids=["view", "under a view", "under parts"],
)
def test_shared_memory_is_not_changed_in_place(change):
    network = Own(change).eval()
    with pytest.raises(NotImplementedError, match="in place"):
        compute(network, torch.randn(1, 3, 32, 32), torch.ones(1, 1, 32, 32))


def test_the_given_tensor_is_not_changed_in_place():
    with pytest.raises(needed.CannotBeNoted, match="in place"):
        needed.lazy(torch.randn(1, 3, 8, 8)).relu_()


@pytest.mark.parametrize("x", [torch.randn(3, 8, 8), torch.empty(1, 3, 8, 8, device="meta")])
def test_what_cannot_be_noted_is_refused_by_name(x):
    with pytest.raises(ValueError, match=r"needed.lazy: x must"):
        needed.lazy(x)


def test_wanted_pixels_have_the_size_of_the_result():
    y = needed.lazy(torch.randn(1, 3, 8, 8)) * 2
    with pytest.raises(ValueError, match=r"needed.computed: wanted must have shape"):
        needed.computed(y, torch.ones(1, 1, 4, 8))


def test_the_reference_backend_computes_everything(plans):
    network = Own().eval()
    x, hole = torch.randn(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    hole[..., 8:12, 20:30] = 1
    with inpaint_ops.backend("reference"):
        some = compute(network, x, hole)
        with torch.no_grad():
            plain = torch.where(hole > 0, network(x, hole), 0.0)
    torch.testing.assert_close(some, plain)
    assert not any(isinstance(plan.need, torch.Tensor) for _, plan in plans)


def test_a_result_in_part_is_never_taken_for_the_whole():
    layer = FusedConv2d(3, 4, 3, padding=1)
    x, hole = torch.randn(1, 3, 24, 24), torch.zeros(1, 1, 24, 24)
    hole[..., 3:6, 4:9] = 1
    with torch.no_grad():
        y = layer(needed.lazy(x))
        part = needed.computed(y, hole)
        assert torch.equal(needed.computed(y * 1), layer(x))
        assert torch.equal(needed.computed(y), layer(x))
    assert part.isnan().any()
    assert torch.equal(part[..., 3:6, 4:9].isnan().any(), torch.tensor(False))


def test_ordinary_tensors_are_what_they_are():
    x = torch.randn(1, 2, 3, 4)
    assert needed.computed(x) is x


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    model = small("glcic").to(dtype)
    hole = holes(1, 64, 64)["box"]
    image = picture(1, 3, 64, 64)
    assert torch.equal(model.complete(image, hole), model.complete(image, hole, compute="all"))


def test_under_autocast():
    model = small("deepfill_v2")
    hole, image = holes(1, 64, 64)["box"], picture(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        some = model.complete(image, hole)
        assert torch.equal(some, model.complete(image, hole, compute="all"))
        with torch.no_grad():
            plain = model.completed(image, hole > 0)
    torch.testing.assert_close(some, plain, atol=2e-2, rtol=0)


def test_complete_names_the_option():
    with pytest.raises(ValueError, match="compute"):
        small("glcic").complete(picture(1, 3, 16, 16), torch.ones(1, 1, 16, 16), compute="some")


def _with_hook(model):
    seen = []
    model.generator.register_forward_hook(lambda *args: seen.append(args[-1]))
    return seen


def _with_hook_for_all(model):
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda *args: seen.append(args[-1]))
    return seen, handle


def test_hooks_see_ordinary_tensors(plans):
    hole, image = holes(1, 64, 64)["box"], picture(1, 3, 64, 64)
    model = small("glcic")
    seen = _with_hook(model)
    model.complete(image, hole)
    assert [type(x) for x in seen] == [torch.Tensor]
    model = small("glcic")
    seen, handle = _with_hook_for_all(model)
    try:
        model.complete(image, hole)
    finally:
        handle.remove()
    assert seen
    assert {type(x) for x in seen} == {torch.Tensor}
    assert not plans


def test_compiled_networks_see_ordinary_tensors(plans):
    hole, image = holes(1, 64, 64)["box"], picture(1, 3, 64, 64)
    model = small("glcic")
    expected = model.complete(image, hole)
    assert plans
    plans.clear()
    model.generator = torch.compile(model.generator, backend="eager")
    torch.testing.assert_close(model.complete(image, hole), expected, atol=1e-4, rtol=0)
    assert not plans


@pytest.mark.parametrize("backend", ["reference", "direct"])
def test_backends(backend, plans):
    hole, image = holes(1, 64, 64)["box"], picture(1, 3, 64, 64)
    model = small("glcic")
    with inpaint_ops.backend(backend):
        some = model.complete(image, hole)
        assert torch.equal(some, model.complete(image, hole, compute="all"))
    assert bool(plans) == (backend == "direct")
