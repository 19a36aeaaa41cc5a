"""Weights of every method: networks that are missing, files together, options files do not tell."""

import json
import warnings

import pytest
import torch
from model_cases import CASES

from inpaint_ops.models import (
    WeightsNote,
    create_model,
    list_models,
    load_weights,
    model_class,
    save_weights,
)
from inpaint_ops.models.weights.saving import model_options, public_state
from inpaint_ops.models.weights.skeleton import skeleton

NAMES = list_models()
LAYOUTS = [(name, layout.label) for name in NAMES for layout in model_class(name).layouts]
# Options of a model whose networks have a layout's keys, where the small case has not.
VARIANTS = {
    "boyuanjiang": {"variant": "centre"},
    "eriklindernoren": {"variant": "convolutional", "bias": True},
    "zhaoyuzhi": {"variant": "zhaoyuzhi"},
    "zhaoyiyan_face": {"face": True},
    "mmagic": {"stem_bias": True},
}
# Options that a file of a layout does not state, so that loading names the assumed values.
UNSTATED = {
    "boyuanjiang/generator": ["overlap"],
    "daa233_tf/generator": ["channel_order"],
    "nipponjo_tf/generator": ["channel_order"],
    "nipponjo/discriminator": ["padding"],
    "zhaoyuzhi/generator": ["padding", "activation", "norm"],
    "zhaoyuzhi/discriminator": ["padding", "activation", "norm"],
    "official_converted/generator": ["mean"],
    "knazeri/edge_generator": ["sigma"],
    "knazeri/edge_discriminator": ["adversarial"],
    "knazeri/inpaint_discriminator": ["adversarial"],
}


def small(name, **options):
    torch.manual_seed(0)
    return create_model(name, **{**CASES[name].small, **options})


def layout_of(name, label):
    return next(one for one in model_class(name).layouts if one.label == label)


def public(name, label, **options):
    """A small model, and the state dict of one of its networks in a public layout."""
    model = small(name, **{**VARIANTS.get(label.partition("/")[0], {}), **options})
    return model, public_state(model, layout_of(name, label))


def quietly(name, weights, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WeightsNote)
        return create_model(name, weights=weights, **options)


def untold(name, label, state):
    """Options that keep the networks small which a file lacks."""
    layout = layout_of(name, label)
    facts = layout.options({key.removeprefix(layout.prefix): v for key, v in state.items()})
    return {k: v for k, v in CASES[name].small.items() if k not in facts}


def equal(first, second):
    first, second = first.state_dict(), second.state_dict()
    return list(first) == list(second) and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("name", NAMES)
def test_skeletons_have_the_shapes_of_models(name):
    options = CASES[name].small
    shapes = skeleton(model_class(name), options, {}, []).state_dict()
    state = small(name).state_dict()
    assert {k: v.shape for k, v in shapes.items()} == {k: v.shape for k, v in state.items()}
    assert {v.device.type for v in shapes.values()} == {"meta"}


@pytest.mark.parametrize("name", NAMES)
def test_own_state_dicts_load_back(name, tmp_path):
    model = small(name)
    file = tmp_path / "weights.pt"
    torch.save(model.state_dict(), file)
    # Options that the tensors show need not be given.
    facts = model_class(name).read_options(model.state_dict()).facts
    others = {k: v for k, v in CASES[name].small.items() if k not in facts}
    with pytest.warns(WeightsNote, match=r"weights.pt does not tell .*channel_order='rgb'"):
        again = create_model(name, weights=file, **others)
    assert equal(model, again)
    assert model_options(again) == model_options(model)
    torch.save({"epoch": 3, "model": model.state_dict()}, file)
    assert equal(model, quietly(name, file, **others))
    assert load_weights(again, model.state_dict()) == list(model.networks)


WRAPPERS = {
    "compiled": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "parallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "parallel and compiled": lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
    "compiled and parallel": lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
    "averaged": lambda s: {
        **{f"module.{k}": v for k, v in s.items()},
        "n_averaged": torch.tensor(3),
    },
    "averaged and parallel": lambda s: {
        **{f"module.module.{k}": v for k, v in s.items()},
        "module.n_averaged": torch.tensor(3),
    },
    "compiled inside": lambda s: {k.replace(".", "._orig_mod.", 1): v for k, v in s.items()},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("label", ["own", "zhaoyuzhi/discriminator", "nipponjo/generator"])
def test_prefixes_of_wrappers(wrapper, label):
    if label == "own":
        model = small("deepfill_v2")
        state = model.state_dict()
    else:
        model, state = public("deepfill_v2", label)
    again = quietly("deepfill_v2", WRAPPERS[wrapper](state), partial=True)
    name = label.partition("/")[2] or "generator"
    assert equal(again.get_submodule(name), model.get_submodule(name))


PREFIXES = {
    "lightning": lambda s: {f"model.{k}": v for k, v in s.items()},
    "two": lambda s: {f"system.net.{k}": v for k, v in s.items()},
    "parallel inside": lambda s: {f"net.module.{k}": v for k, v in s.items()},
    "nested": lambda s: {"epoch": 3, "state_dict": {f"model.{k}": v for k, v in s.items()}},
    "nested alone": lambda s: {"state_dict": s},
}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("label", ["own", "zhaoyuzhi/discriminator", "nipponjo/generator"])
def test_prefixes_of_all_keys(prefix, label):
    if label == "own":
        model = small("deepfill_v2")
        state = model.state_dict()
    else:
        model, state = public("deepfill_v2", label)
    again = quietly("deepfill_v2", PREFIXES[prefix](state), partial=True)
    name = label.partition("/")[2] or "generator"
    assert equal(again.get_submodule(name), model.get_submodule(name))


def test_public_weights_under_the_names_of_our_networks():
    model, state = public("deepfill_v2", "nipponjo/generator")
    _, judge = public("deepfill_v2", "nipponjo/discriminator")
    together = {f"generator.{key}": value for key, value in state.items()}
    assert equal(quietly("deepfill_v2", together).generator, model.generator)
    together |= {f"discriminator.{key}": value for key, value in judge.items()}
    for whole in (together, {"generator": state, "discriminator": judge}):
        again = quietly("deepfill_v2", whole, padding="symmetric")
        assert equal(again.generator, model.generator)
        assert load_weights(again, whole) == ["generator", "discriminator"]


@pytest.mark.parametrize("name", NAMES)
def test_own_networks_without_their_names(name):
    """A network's own state dict, alone, under a prefix, or each under its name."""
    model = small(name)
    facts = model_class(name).read_options(model.state_dict()).facts
    others = {k: v for k, v in CASES[name].small.items() if k not in facts}
    parts = {one: model.get_submodule(one).state_dict() for one in model.networks}
    rest = {**others, **{k: v for k, v in CASES[name].small.items() if k in facts}}
    for network, state in parts.items():
        if network == "global_critic":  # a local one may have all its keys and shapes
            with pytest.raises(ValueError, match=r"has keys of global_critic and of local_critic"):
                create_model(name, weights=state, partial=True)
            continue
        for given in (state, {f"net.{key}": value for key, value in state.items()}):
            again = quietly(name, given, partial=True, **rest)
            assert load_weights(again, given) == [network]
            assert equal(again.get_submodule(network), model.get_submodule(network))
    assert equal(quietly(name, {"epoch": 1, **parts}, **others), model)


def test_unknown_files_get_a_short_message_with_their_prefixes():
    state = {"backbone.a.weight": torch.ones(1), "backbone.b.weight": torch.ones(1)}
    for name in ("patch_gan", "deepfill_v2", "edge_connect"):
        with pytest.raises(ValueError, match=r"its keys begin with backbone\., those") as caught:
            create_model(name, weights=state)
        assert len(str(caught.value)) < 500


def test_what_does_not_fit_names_the_method():
    model, state = public("deepfill_v2", "nipponjo/generator")
    state["more.weight"] = torch.ones(1)
    text = r"does not fit deepfill_v2 \(nipponjo/generator\); 1 unknown: more\.weight"
    with pytest.raises(ValueError, match=text):
        create_model("deepfill_v2", weights=state)
    own = {**model.state_dict(), "generator.more.weight": torch.ones(1)}
    with pytest.raises(ValueError, match=r"does not fit deepfill_v2; 1 unknown: generator\.more"):
        create_model("deepfill_v2", weights=own)
    own["loss.weight"] = torch.ones(1)
    with pytest.raises(ValueError, match=r"does not fit deepfill_v2; 1 unknown: loss\.weight"):
        create_model("deepfill_v2", weights=own, layout="inpaint_ops")


def test_wrapped_networks_and_averaged_models():
    model = small("gmcnn")
    averaged = torch.optim.swa_utils.AveragedModel(model)
    assert equal(quietly("gmcnn", averaged.state_dict()), model)
    model.generator = torch.nn.DataParallel(model.generator)
    assert equal(quietly("gmcnn", model.state_dict()), small("gmcnn"))


def test_own_state_dicts_ask_for_what_they_do_not_imply():
    state = small("patch_gan", dilations=(1, 2)).state_dict()
    with pytest.raises(ValueError, match=r"needs the option dilations: .* each of its 2 residual"):
        create_model("patch_gan", weights=state)
    assert quietly("patch_gan", state, dilations=(1, 2)).dilations == (1, 2)
    with pytest.raises(ValueError, match=r"base_channels must be 8 for .* got 12"):
        create_model("patch_gan", weights=state, dilations=(1, 2), base_channels=12)
    with pytest.raises(ValueError, match=r"is no file of patch_gan: .* begin with generator\."):
        create_model("patch_gan", weights={"net.weight": torch.ones(1)})
    for variant in ("random_64", "random_128", "alexnet", "convolutional"):
        model = small("context_encoder", variant=variant)
        again = quietly("context_encoder", model.state_dict(), bottleneck=32)
        assert equal(model, again)
        assert again.variant == variant


@pytest.mark.parametrize("name", NAMES)
def test_networks_that_completion_needs(name):
    model = small(name)
    needed = model.completion_networks
    others = dict(CASES[name].small)
    for lacking in needed:
        state = {k: v for k, v in model.state_dict().items() if not k.startswith(f"{lacking}.")}
        if not state:
            continue
        with pytest.raises(ValueError, match=f"{name} needs .*{lacking} to complete"):
            create_model(name, weights=state, **others)
        again = quietly(name, state, partial=True, **others)
        assert load_weights(again, state) == [n for n in model.networks if n != lacking]


@pytest.mark.parametrize(("name", "label"), LAYOUTS)
def test_public_files_say_what_they_do_not_tell(name, label):
    model, state = public(name, label)
    network = label.partition("/")[2]
    asked = CASES[name].asked.get(label, {})
    rest = untold(name, label, state)
    for option in asked:
        with pytest.raises(ValueError, match=f"needs the option {option}: "):
            create_model(name, weights=state, layout=label, partial=True)
        with pytest.raises(ValueError, match=f"needs a model with an explicit {option}"):
            load_weights(model, state, layout=label)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = create_model(name, weights=state, layout=label, partial=True, **asked, **rest)
    unstated = UNSTATED.get(label, [])
    assert [w.category for w in caught] == [WeightsNote] * bool(unstated)
    for option in unstated:
        assert f"{option}={getattr(again, option)!r}" in str(caught[0].message)
    written = public_state(again, layout_of(name, label))
    assert all(torch.equal(written[key], value) for key, value in state.items())
    # Confirmed options are not stated again.
    given = {**asked, **{option: getattr(again, option) for option in unstated}}
    create_model(name, weights=state, layout=label, partial=True, **given, **rest)
    if network in model.completion_networks and model.completion_networks == (network,):
        create_model(name, weights=state, layout=label, **given, **rest)
    else:
        with pytest.raises(ValueError, match=f"{name} needs "):
            create_model(name, weights=state, layout=label, **given, **rest)


@pytest.mark.parametrize(("name", "label"), LAYOUTS)
def test_an_explicit_option_comes_before_the_layout(name, label):
    layout = layout_of(name, label)
    _, state = public(name, label)
    usual = layout.channel_order or "rgb"
    other = "rgb" if usual == "bgr" else "bgr"
    asked = {**CASES[name].asked.get(label, {}), **untold(name, label, state)}
    model = quietly(name, state, layout=label, partial=True, channel_order=other, **asked)
    assert model.channel_order == other
    again = quietly(name, state, layout=label, partial=True, **asked)
    assert again.channel_order == usual


def test_explicit_recipes_and_contradicted_facts():
    _, state = public("deepfill_v2", "nipponjo/generator")
    model = create_model("deepfill_v2", weights=state, fuse=False)
    assert (model.fuse, model.padding, model.pick) == (False, "symmetric", "floor")
    text = "padding='symmetric', this one has 'same'; an explicit padding='same' would be kept"
    with pytest.raises(ValueError, match=text):
        load_weights(small("deepfill_v2"), state)
    with pytest.raises(ValueError, match="variant must be 'official'"):
        create_model("deepfill_v2", weights=state, variant="zhaoyuzhi")
    kept = small("deepfill_v2", padding="same", pick="align_corners", fuse=False)
    assert load_weights(kept, state) == ["generator"]
    # An option that was implied once is not an explicit one.
    implied = create_model("deepfill_v2", weights=state, base_channels=8)
    _, other = public("deepfill_v2", "nipponjo_tf/generator")
    with pytest.raises(ValueError, match="needs a model with padding='same'"):
        load_weights(implied, other)


def test_files_of_the_trainer_and_converted_ones():
    model, state = public("deepfill_v1", "daa233/generator")
    _, local = public("deepfill_v1", "daa233/local_critic", local_channels=16)
    _, official = public("deepfill_v1", "daa233/local_critic")
    trainer = {f"netG.{key}": value for key, value in state.items()}
    with pytest.raises(ValueError, match="give layout='daa233' or layout='daa233_tf'"):
        create_model("deepfill_v1", weights=trainer)
    for critic, padding, order in ((local, "symmetric", "rgb"), (official, "same", "bgr")):
        whole = {**trainer, **{f"localD.{key}": value for key, value in critic.items()}}
        found = quietly("deepfill_v1", whole)
        assert (found.padding, found.channel_order) == (padding, order)
        assert torch.equal(found.local_critic.linear.weight, critic["linear.weight"])
        assert equal(found.generator, model.generator)
        wrapped = {k.replace("netG.", "netG.module."): v for k, v in whole.items()}
        assert equal(quietly("deepfill_v1", wrapped).generator, model.generator)
    for layout, padding in (("daa233", "symmetric"), ("daa233_tf", "same")):
        assert quietly("deepfill_v1", trainer, layout=layout).padding == padding
    _, lonely = public("deepfill_v1", "daa233/global_critic")
    with pytest.raises(ValueError, match="layout='daa233/global_critic'"):
        create_model("deepfill_v1", weights=lonely, partial=True)


def test_files_that_belong_together(tmp_path):
    model = small("edge_connect")
    files = []
    for name in ("EdgeModel_gen", "InpaintingModel_gen"):
        network = "edge_generator" if name.startswith("Edge") else "inpaint_generator"
        state = public_state(model, layout_of("edge_connect", f"knazeri/{network}"))
        files.append(tmp_path / f"{name}.pth")
        torch.save({"iteration": 1, "generator": state}, files[-1])
    with pytest.warns(WeightsNote, match=r"EdgeModel_gen.pth does not tell sigma=2.0"):
        both = create_model("edge_connect", weights=files)
    for network in model.completion_networks:
        assert equal(both.get_submodule(network), model.get_submodule(network))
    with pytest.raises(ValueError, match="needs inpaint_generator to complete"):
        create_model("edge_connect", weights=files[0])
    with pytest.raises(ValueError, match=r"Edge.*pth and .*Edge.*pth both hold edge_generator"):
        create_model("edge_connect", weights=[files[0], files[1], files[0]])
    before = {key: value.clone() for key, value in both.state_dict().items()}
    broken = torch.load(files[1], weights_only=True)
    broken["generator"]["decoder.7.bias"][0] = float("nan")
    changed = {k: v + 1 for k, v in torch.load(files[0], weights_only=True)["generator"].items()}
    with pytest.raises(ValueError, match=r"decoder\.7\.bias must be finite"):
        load_weights(both, [{"generator": changed}, broken])
    assert all(torch.equal(before[k], v) for k, v in both.state_dict().items())
    wide = small("edge_connect", base_channels=16)
    state = public_state(wide, layout_of("edge_connect", "knazeri/inpaint_generator"))
    with pytest.raises(ValueError, match=r"base_channels=8, .* 16: they are not of one model"):
        create_model("edge_connect", weights=[files[0], state])
    with pytest.raises(ValueError, match="at least one file"):
        create_model("edge_connect", weights=[])
    with pytest.raises(TypeError, match=r"weights\[1\] must be a path or a dict, got int"):
        create_model("edge_connect", weights=[files[0], 3])
    generators = [torch.load(file, weights_only=True)["generator"] for file in files]
    given = quietly("edge_connect", generators)
    assert all(
        equal(given.get_submodule(n), both.get_submodule(n)) for n in both.completion_networks
    )
    with pytest.raises(ValueError, match=r"weights\[0\] and weights\[1\] both hold edge_generator"):
        create_model("edge_connect", weights=generators[:1] * 2)
    with pytest.raises(TypeError, match=r"list of them, got EdgeConnect; give its state_dict\(\)"):
        create_model("edge_connect", weights=both)


def test_files_of_another_method_are_named():
    _, state = public("deepfill_v2", "nipponjo/discriminator")
    with pytest.raises(ValueError, match=r"it is a file of deepfill_v2 \(nipponjo/discriminator"):
        create_model("gmcnn", weights=state)
    with pytest.raises(ValueError, match=r"closest here: conv1\.conv_sn\.weight"):
        load_weights(small("gmcnn"), state)


def test_records_of_public_files_are_read(tmp_path):
    file = tmp_path / "generator.safetensors"
    model = small("glcic", norm_first=False, subtract_mean=False, mean=(0.1, 0.2, 0.3))
    save_weights(model, file, layout="otenim/generator")
    again = create_model("glcic", weights=file)
    assert (again.mean, again.norm_first) == ((0.1, 0.2, 0.3), False)
    v1 = small("deepfill_v1", channel_order="rgb")
    save_weights(v1, file, layout="daa233_tf/generator")
    again = create_model("deepfill_v1", weights=file)
    assert (again.padding, again.channel_order) == ("same", "rgb")
    record = {"method": "glcic", "layout": "inpaint_ops", "options": json.dumps({"depth": 3})}
    from safetensors.torch import save_file

    save_file(dict(model.state_dict()), file, record)
    with pytest.raises(ValueError, match="was saved with the option depth, which glcic does not"):
        create_model("glcic", weights=file)
