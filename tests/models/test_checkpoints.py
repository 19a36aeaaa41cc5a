"""Checkpoint files that are damaged, hostile or of another kind: a clear error, nothing changed."""

import json
import os
import random
import re
import struct
import tarfile
import zipfile

import pytest
import torch
from safetensors.torch import save

from inpaint_ops.checkpoints import read_checkpoint, unwrapped
from inpaint_ops.models import WeightsNote, create_model, load_weights, save_weights

pytestmark = pytest.mark.filterwarnings("ignore::inpaint_ops.models.WeightsNote")
OPTIONS = {"base_channels": 8, "bottleneck": 8}
# Text and types of errors that a user can act on.
ERRORS = (ValueError, FileNotFoundError)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("context_encoder", **OPTIONS)


def refused(model, weights):
    """Asserts that nothing loads and nothing changes; returns the text."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ERRORS) as caught:
        load_weights(model, weights)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    text = str(caught.value)
    assert text.startswith("load_weights: ")
    assert "\n" not in text
    with pytest.raises(ERRORS):
        create_model("context_encoder", weights=weights)
    return text


def native(model, options, **metadata):
    record = {"method": "context_encoder", "layout": "inpaint_ops", "options": options, **metadata}
    state = {key: value.clone() for key, value in model.state_dict().items()}
    return save(state, {k: v for k, v in record.items() if v is not None})


RECORDS = {
    "list": "[1, 2]",
    "number": "3",
    "text": '"base_channels"',
    "null": "null",
    "no JSON": "{",
    "nested": "[" * 100_000,
    "missing": None,
    "unknown option": json.dumps({"depth": 3}),
    "text for a number": json.dumps({"overlap": "4"}),
    "list for a number": json.dumps({"overlap": [4]}),
    "object for a number": json.dumps({"overlap": {"a": 1}}),
    "infinite": '{"overlap": Infinity}',
    "huge": json.dumps({"overlap": 10**30}),
    "absurd": json.dumps({"base_channels": 1_000_000}),
    "contradiction": json.dumps({"variant": "random_64"}),
    "unknown choice": json.dumps({"channel_order": "grb"}),
}


@pytest.mark.parametrize("record", RECORDS)
def test_damaged_records(model, record, tmp_path):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(native(model, RECORDS[record]))
    with pytest.raises(ValueError, match=re.escape(str(file))):
        create_model("context_encoder", weights=file)


def test_records_of_absurd_sizes_take_no_memory(tmp_path):
    """Sizes of networks that the file lacks are on the word of its record alone."""
    model = create_model("edge_connect", base_channels=8, critic_channels=4, residual_blocks=2)
    state = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("edge_d")}
    state = {k: v for k, v in state.items() if not k.startswith("inpaint_d")}
    for options in ({"critic_channels": 10**6}, {"critic_channels": 10**12}):
        record = {"method": "edge_connect", "layout": "inpaint_ops", "options": json.dumps(options)}
        file = tmp_path / "weights.safetensors"
        file.write_bytes(save(state, record))
        with pytest.raises(ValueError, match="implies options"):
            create_model("edge_connect", weights=file)
    with pytest.raises(ValueError, match="residual_blocks must be at most 256"):
        create_model("edge_connect", residual_blocks=10**9)
    with pytest.raises(ValueError, match="dilations must be at most 256"):
        create_model("patch_gan", dilations=(1,) * 300)


KEY = "generator.encoder.0.conv.weight"
VALUES = {
    "int": lambda v: v.long(),
    "bool": lambda v: v > 0,
    "complex": lambda v: v.to(torch.complex64),
    "double": lambda v: v.double() + 1e300,
    "NaN": lambda v: v * float("nan"),
    "infinite": lambda v: v / 0,
    "sparse": lambda v: v.to_sparse(),
    "meta": lambda v: v.to("meta"),
    "list": lambda v: v.tolist(),
    "None": lambda v: None,
    "numpy": lambda v: v.numpy(),
    "scalar": lambda v: v.sum(),
    "empty": lambda v: v[:0],
    "transposed": lambda v: v.transpose(0, 1),
    "half": lambda v: v[:4],
}


@pytest.mark.parametrize("value", VALUES)
def test_values_that_are_no_weights(model, value, tmp_path):
    state = model.state_dict()
    state = {**state, KEY: VALUES[value](state[KEY])}
    text = refused(model, state)
    assert KEY in text or "other keys or shapes than any" in text
    if value != "numpy":
        file = tmp_path / "weights.pt"
        torch.save(state, file)
        refused(model, file)


def test_counters_must_be_integers(model):
    key = "generator.encoder.1.norm.num_batches_tracked"
    state = {**model.state_dict(), key: torch.tensor(1.5)}
    assert f"{key} must be integer, got float32" in refused(model, state)


def test_values_are_checked_in_the_models_dtype():
    model = create_model("context_encoder", **OPTIONS).half()
    state = {k: v.float() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    assert load_weights(model, state) == ["generator", "discriminator"]
    state[KEY] = state[KEY] + 1e5
    with pytest.raises(ValueError, match=r"must be finite in float16, got values up to 1"):
        load_weights(model, state)


CONTENTS = {
    "nothing": {},
    "integer keys": {0: torch.ones(1), 1: torch.ones(2)},
    "integer keys among others": {"a.weight": torch.ones(1), 3: "x"},
    "nested integer keys": {"state_dict": {0: torch.ones(1)}},
    "no tensors": {"epoch": 3, "state_dict": None},
    "nested too deep": {"a": {"b": {"c": {"d.weight": torch.ones(1)}}}},
    "others": {"state_dict": {"fc.weight": torch.ones(2, 2)}},
    "list": [torch.ones(1)],
    "tensor": torch.ones(1),
    "none": None,
    "text": "weights",
}


@pytest.mark.parametrize("content", CONTENTS)
def test_files_that_hold_something_else(model, content, tmp_path):
    file = tmp_path / "weights.pth"
    torch.save(CONTENTS[content], file)
    text = refused(model, file)
    assert str(file) in text


def test_files_of_other_kinds(model, tmp_path):
    assert "a folder, not a file" in refused(model, tmp_path)
    file = tmp_path / "weights.pth"
    file.write_bytes(b"")
    assert "it is empty" in refused(model, file)
    file.write_text("hello\n")
    assert "(not a pickle)" in refused(model, file)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data.pkl", bytes(50_000_000))
    assert "torch.save does not compress" in refused(model, file)
    torch.save({"G": torch.nn.Linear(2, 2)}, file)
    assert "it holds torch.nn.modules.linear.Linear, a Python object" in refused(model, file)
    with tarfile.open(file, "w") as legacy:
        legacy.add(__file__, "storages")
    assert "cannot be read as weights" in refused(model, file)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    torch.save(state, file)
    data = bytearray(file.read_bytes())
    disks = data.rindex(b"PK\x06\x07") + 16
    data[disks : disks + 4] = (7).to_bytes(4, "little")
    file.write_bytes(data)
    assert "damaged archive" in refused(model, file)
    torch.save({KEY: torch.zeros(1).expand(10**6, 10**6)}, file)
    assert "has only 4 bytes in the file" in refused(model, file)
    torch.save(state, file, _use_new_zipfile_serialization=False)
    assert load_weights(model, file) == ["generator", "discriminator"]
    # The content says what a file is.
    save_weights(model, tmp_path / "weights.safetensors")
    os.replace(tmp_path / "weights.safetensors", file)
    assert load_weights(model, file) == ["generator", "discriminator"]


def fuzzed(rng, data):
    """A file with a few bytes of it changed, cut or doubled."""
    data = bytearray(data)
    kind = rng.choice(["cut", "bytes", "header", "insert", "length"])
    if kind == "cut":
        return bytes(data[: rng.randrange(1, len(data))])
    if kind == "length":
        return struct.pack("<Q", rng.choice([0, 1, 2**31, 2**63, len(data)])) + bytes(data[8:])
    spots = range(min(len(data), 2000)) if kind == "header" else range(len(data))
    if kind == "insert":
        at = rng.choice(spots)
        return bytes(data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at:])
    for _ in range(rng.choice([1, 4, 32])):
        data[rng.choice(spots)] = rng.randrange(256)
    return bytes(data)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_fuzzed_files(form, tmp_path):
    """Changed bytes of weights may load; all else is an error, and a failure changes nothing."""
    model = create_model("partial_conv_unet", base_channels=1, levels=5)
    file = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pt")
    if form == "safetensors":
        save_weights(model, file)
    else:
        torch.save(model.state_dict(), file, _use_new_zipfile_serialization=form == "zip")
    data = file.read_bytes()
    rng = random.Random(7)
    refusals = loads = 0
    for _ in range(60):
        file.write_bytes(fuzzed(rng, data))
        before = {key: value.clone() for key, value in model.state_dict().items()}
        try:
            load_weights(model, file)
        except ValueError as exc:
            refusals += str(exc).startswith("load_weights: ")
            if not all(torch.equal(before[k], v) for k, v in model.state_dict().items()):
                raise AssertionError("a refused file changed the model") from exc
        else:
            assert all(bool(v.isfinite().all()) for v in model.state_dict().values())
            loads += 1
    # Every refusal had our text.
    assert refusals + loads == 60
    assert refusals > 20


@pytest.mark.filterwarnings("ignore")
def test_fuzzed_dicts():
    """Values, keys and nesting of a state dict replaced at random."""
    model = create_model("partial_conv_unet", base_channels=1, levels=5)
    state = model.state_dict()
    keys = list(state)
    rng = random.Random(3)
    odd = [None, 3, "x", [], {}, [torch.ones(2)], {1: 2}, torch.ones(0), torch.tensor(1.0)]
    odd += [torch.ones(1, dtype=torch.int32), torch.ones(2, 2, 2, 2, 2), torch.ones(1).bool()]
    before = {key: value.clone() for key, value in state.items()}
    for number in range(80):
        broken = dict(before)
        for _ in range(rng.choice([1, 1, 2, 5])):
            key = rng.choice(keys)
            action = rng.choice(["drop", "value", "rename", "nest", "integer"])
            value = broken.pop(key, None)
            if action == "value":
                broken[key] = rng.choice(odd)
            elif action == "rename":
                broken[rng.choice([key + "x", key.replace(".", ""), "", "module." + key])] = value
            elif action == "nest":
                broken["state_dict"] = {key: value}
            elif action == "integer":
                broken[rng.randrange(9)] = value
        with pytest.raises(ValueError, match=r"^(load_weights|create_model): "):
            load_weights(model, broken)
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
        if number % 4:
            continue
        with pytest.raises(ValueError, match=r"^(load_weights|create_model): "):
            create_model("partial_conv_unet", weights=broken)


def test_prefixes_that_collide_stay():
    state = {"_orig_mod.a": torch.ones(1), "a": torch.zeros(1)}
    assert unwrapped(state) == state
    assert list(unwrapped({"x.module.a": torch.ones(1), "n_averaged": torch.ones(1)})) == [
        "x.module.a",
        "n_averaged",
    ]


def test_notes_are_warnings():
    assert issubclass(WeightsNote, UserWarning)
    with pytest.raises(TypeError, match="a path, a dict or a list of them, got int"):
        read_checkpoint(3)
