"""Every registered method: completion, layouts, weights, one training step."""

import json
import pickle
import re

import pytest
import torch
from model_cases import CASES, PHASES, box, manifest, picture, small, synthetic

from inpaint_ops import backend
from inpaint_ops.checkpoints import read_checkpoint
from inpaint_ops.models import (
    InpaintingModel,
    TrainingRecipe,
    create_model,
    list_models,
    load_weights,
    model_class,
    parameter_counts,
    register_model,
    save_weights,
)
from inpaint_ops.models.weights.saving import public_state

NAMES = list_models()
LAYOUTS = [(name, file) for name in NAMES for file in CASES[name].manifests]


def test_every_method_has_a_case():
    assert set(CASES) == set(NAMES)


@pytest.mark.parametrize(
    ("name", "size"), [(name, size) for name in NAMES for size in CASES[name].sizes]
)
def test_complete_keeps_known_pixels(name, size):
    model = small(name)
    model.train()
    image, hole = picture(2, 3, *size), box(2, *size)
    damaged = torch.where(hole, float("nan"), image)
    result = model.complete(damaged, hole)
    assert model.training
    assert result.shape == image.shape
    assert torch.equal(result[~hole.expand_as(image)], image[~hole.expand_as(image)])
    inside = result[hole.expand_as(image)]
    assert bool(((inside >= 0) & (inside <= 1)).all())
    assert inside.std() > 0
    assert torch.equal(result, model.complete(image, hole))


@pytest.mark.parametrize("name", NAMES)
def test_complete_takes_each_samples_hole(name):
    model = small(name)
    size = CASES[name].sizes[-1]
    image, hole = picture(2, 3, *size), box(2, *size)
    both = model.complete(image, hole)
    for i in range(2):
        alone = model.complete(image[i : i + 1], hole[i : i + 1])
        torch.testing.assert_close(both[i : i + 1], alone, rtol=0, atol=CASES[name].tolerance)
    shared = model.complete(image, hole[:1])
    torch.testing.assert_close(shared[:1], both[:1], rtol=0, atol=CASES[name].tolerance)


@pytest.mark.filterwarnings("ignore::inpaint_ops.models.HoleNote")
@pytest.mark.parametrize("name", NAMES)
def test_complete_without_a_hole_and_without_a_picture(name):
    model = small(name)
    image = picture(1, 3, 20, 24)
    nothing = torch.zeros(1, 1, 20, 24)
    assert torch.equal(model.complete(image, nothing), image)
    result = model.complete(image, torch.ones(1, 1, 20, 24))
    assert result.shape == image.shape
    assert bool(((result >= 0) & (result <= 1)).all())
    assert model.complete(image[:0], nothing).shape == (0, 3, 20, 24)


@pytest.mark.parametrize("name", NAMES)
def test_complete_equals_the_reference(name):
    model = small(name)
    size = CASES[name].sizes[-1]
    image, hole = picture(1, 3, *size), box(1, *size)
    fused = model.complete(image, hole)
    with backend("reference"):
        plain = model.complete(image, hole)
    torch.testing.assert_close(fused, plain, rtol=0, atol=CASES[name].tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_complete_refuses(name):
    model = small(name)
    image, hole = picture(1, 3, 16, 16), box(1, 16, 16)
    with pytest.raises(ValueError, match=f"{name}.complete: image must be in"):
        model.complete(image * 255, hole)
    with pytest.raises(ValueError, match=f"{name}.complete: image must have 3"):
        model.complete(image[:, :1], hole)
    with pytest.raises(ValueError, match=f"{name}.complete: hole must hold only"):
        model.complete(image, hole * 0.5)
    with pytest.raises(ValueError, match=f"{name}.complete: hole must have shape"):
        model.complete(image, hole[..., :8])
    with pytest.raises(TypeError, match=f"{name}.complete: image must have dtype"):
        model.complete((image * 255).byte(), hole)


@pytest.mark.filterwarnings("ignore::inpaint_ops.models.WeightsNote")
@pytest.mark.parametrize(("name", "file"), LAYOUTS)
def test_public_layouts_round_trip(name, file):
    layout, options = CASES[name].manifests[file]
    shapes = manifest(file)
    state = synthetic(shapes)
    given = {"partial": True, **CASES[name].asked.get(layout, {})}
    model = create_model(name, weights=state, **given)
    for option, value in options.items():
        assert getattr(model, option) == value
    (chosen,) = [one for one in model.layouts if f"{one.name}/{one.network}" == layout]
    written = public_state(model, chosen)
    assert {key: tuple(value.shape) for key, value in written.items()} == shapes
    again = create_model(name, weights=written, **given)
    first = model.get_submodule(chosen.network).state_dict()
    second = again.get_submodule(chosen.network).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.filterwarnings("ignore::inpaint_ops.models.WeightsNote")
@pytest.mark.parametrize(("name", "file"), LAYOUTS)
def test_public_layouts_report_what_does_not_fit(name, file):
    layout, _ = CASES[name].manifests[file]
    state = synthetic(manifest(file))
    asked = CASES[name].asked.get(layout, {})
    model = create_model(name, weights=state, partial=True, **asked)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    key = next(k for k in reversed(state) if k.endswith(("bias", "weight_orig")))
    for broken, text in (
        ({**state, "surplus.weight": torch.ones(1)}, "unknown: surplus.weight"),
        ({k: v for k, v in state.items() if k != key}, f"missing: .*{key}"),
        ({**state, key: torch.ones(1, 2)}, f"{key} must be"),
        ({**state, key: state[key] * float("nan")}, f"{key} must be finite"),
    ):
        with pytest.raises(ValueError, match=text):
            load_weights(model, broken, layout=layout)
    after = model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize(("name", "phase"), PHASES)
def test_training_step(name, phase):
    case = CASES[name]
    model = small(name)
    features = case.features() if case.features is not None else None
    recipe = model.recipe(phase, features=features)
    side = case.training
    image, hole = picture(2, 3, side, side), box(2, side, side)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    for _ in range(2):
        losses = recipe.step(image, hole)
        assert losses
        assert all(abs(value) < float("inf") for value in losses.values())
    trained = {
        id(p) for o in recipe.optimizers.values() for g in o.param_groups for p in g["params"]
    }
    for key, value in model.named_parameters():
        assert bool(torch.isfinite(value).all())
        moved = not torch.equal(before[key], value)
        if case.idle is not None and re.search(case.idle, key) and id(value) in trained:
            continue
        assert moved == (id(value) in trained), key
    state = pickle.loads(pickle.dumps(recipe.state_dict()))
    taken = small(name).recipe(phase, features=features)
    taken.load_state_dict(state)
    assert taken.iteration == 2
    with pytest.raises(ValueError, match="image must be in"):
        recipe.step(image * 2, hole)
    with pytest.raises(ValueError, match=r"in the hole too, got nan"):
        recipe.step(image.masked_fill(hole.bool(), float("nan")), hole)
    assert recipe.iteration == 2


@pytest.mark.parametrize("name", NAMES)
def test_own_files_round_trip(name, tmp_path):
    model = small(name)
    file = tmp_path / "weights.safetensors"
    save_weights(model, file)
    again = create_model(name, weights=file)
    first, second = model.state_dict(), again.state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(first[key], second[key]) for key in first)
    metadata = read_checkpoint(file).metadata
    assert metadata["method"] == name
    assert json.loads(metadata["options"]).items() >= dict(CASES[name].small).items()
    other = next((n for n in NAMES if n != name), None)
    if other is not None:
        with pytest.raises(ValueError, match=f"is of {name}, not of {other}"):
            create_model(other, weights=file)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_damaged_files_are_refused(suffix, tmp_path):
    file = tmp_path / f"weights.{suffix}"
    file.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00not weights")
    with pytest.raises(ValueError, match="cannot be read as"):
        create_model(NAMES[0], weights=file)
    with pytest.raises(FileNotFoundError, match="is not a file"):
        create_model(NAMES[0], weights=tmp_path / "absent.pth")


def test_files_cannot_run_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (print, ("code ran",))

    file = tmp_path / "weights.pth"
    torch.save({"G": Trap()}, file)
    with pytest.raises(ValueError, match="cannot be read as weights"):
        create_model(NAMES[0], weights=file)


def test_nested_and_parallel_files(tmp_path):
    state = synthetic(manifest("deepfillv2.nipponjo_tf"))
    critic = synthetic(manifest("deepfillv2.nipponjo_disc"))
    wrapped = {f"module.{key}": value for key, value in state.items()}
    file = tmp_path / "states.pth"
    torch.save({"G": wrapped, "D": critic, "n_iter": 5}, file)
    given = {"padding": "same", "pick": "align_corners", "fuse": False, "channel_order": "rgb"}
    model = create_model("deepfill_v2", **given)
    assert load_weights(model, file) == ["generator", "discriminator"]
    assert torch.equal(model.generator.coarse.conv1.weight, state["conv1.conv.weight"])


def test_options_that_contradict_the_file():
    state = synthetic(manifest("deepfillv2.nipponjo"))
    with pytest.raises(ValueError, match="needs a model with padding='symmetric'"):
        load_weights(create_model("deepfill_v2"), state)
    with pytest.raises(ValueError, match="base_channels must be 48 for "):
        create_model("deepfill_v2", weights=state, base_channels=8)
    with pytest.raises(ValueError, match=r"is no file of deepfill_v2: .*nipponjo/generator has"):
        create_model("deepfill_v2", weights={"stage1.conv2.conv.weight": torch.ones(1)})
    with pytest.raises(ValueError, match="layout must be auto or of"):
        load_weights(create_model("deepfill_v2"), state, layout="daa233")


def test_registry():
    with pytest.raises(ValueError, match="name must be one of"):
        create_model("deepfill_v3")
    other = type("Other", (InpaintingModel,), {})
    with pytest.raises(ValueError, match="name must be new"):
        register_model("deepfill_v2", other, recipe=TrainingRecipe)
    with pytest.raises(ValueError, match="name must be an identifier"):
        register_model("deep fill", other, recipe=TrainingRecipe)
    with pytest.raises(TypeError, match="must be an InpaintingModel"):
        register_model("linear", torch.nn.Linear, recipe=TrainingRecipe)
    with pytest.raises(TypeError, match="recipe of other must be a TrainingRecipe"):
        register_model("other", other, recipe=dict)
    lacking = type("Lacking", (InpaintingModel,), {"completion_networks": ("painter",)})
    with pytest.raises(ValueError, match=r"completion_networks of lacking .* got painter"):
        register_model("lacking", lacking, recipe=TrainingRecipe)
    assert "other" not in list_models()
    assert model_class("deepfill_v2").name == "deepfill_v2"
    with pytest.raises(TypeError, match="unexpected keyword"):
        create_model("deepfill_v2", depth=3)
    assert parameter_counts(small("deepfill_v2"))["generator"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_recipe_refuses(name):
    model = small(name)
    features = CASES[name].features
    made = features() if features is not None else None
    with pytest.raises(ValueError, match=f"{name}.recipe: phase must be one of"):
        model.recipe("never", features=made)
    with pytest.raises(TypeError, match="has no number 'tempo'"):
        model.recipe(features=made, tempo=3.0)
