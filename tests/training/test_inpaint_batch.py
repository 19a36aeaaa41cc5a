"""Batches of a data set: rows of several sizes, bad ones, and models that fail."""

import numpy as np
import pytest
import torch

from inpaint_ops import distributed, fill_exemplar
from inpaint_ops.benchmarks import bulk
from inpaint_ops.distributed import BatchError, InpaintBatch
from inpaint_ops.models import create_model, save_weights

SIZES = ((32, 32), (32, 48), (32, 32), (40, 32), (32, 32))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "unet.safetensors"
    save_weights(create_model("partial_conv_unet", levels=5, base_channels=4), path)
    return path


def rows(sizes=SIZES):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    holes = [np.zeros(size, bool) for size in sizes]
    for number, hole in enumerate(holes):
        hole[8 + number : 16 + number, 10:20] = True
    return {"image": images, "hole": holes, "path": [f"{i}.png" for i in range(len(sizes))]}


def alone(image, hole, fill):
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    mask = torch.from_numpy(hole)[None, None]
    made = fill(x.masked_fill(mask, 0), mask)[0].permute(1, 2, 0).numpy()
    return np.where(hole[..., None], np.rint(made * 255).astype(np.uint8), image)


def test_rows_of_several_sizes_are_filled_as_alone(weights):
    batch = rows()
    done = InpaintBatch("partial_conv_unet", weights)(batch)
    model = create_model("partial_conv_unet", weights=weights)
    assert done["path"] is batch["path"]
    assert list(done["error"]) == [""] * len(SIZES)
    for image, hole, filled in zip(batch["image"], batch["hole"], done["filled"]):
        wanted = alone(image, hole, model.complete)
        assert filled.dtype == np.uint8
        assert np.array_equal(filled[~hole], image[~hole])
        assert np.abs(filled.astype(int) - wanted).max() <= 1
        assert not np.array_equal(filled, image)


def test_arrays_of_one_size_come_back_as_an_array():
    batch = rows([(24, 24)] * 2)
    arrays = {"picture": np.stack(batch["image"]), "mask": np.stack(batch["hole"])}
    fill = InpaintBatch(image="picture", hole="mask", filled="done", error="why", seed=2)
    done = fill(arrays)
    assert done["done"].shape == (2, 24, 24, 3)
    for image, hole, filled in zip(arrays["picture"], arrays["mask"], done["done"]):
        wanted = alone(image, hole, lambda x, h: fill_exemplar(x, h, seed=2))
        assert np.array_equal(filled, wanted)
    assert fill({"picture": [], "mask": []})["why"].tolist() == []


def test_bad_rows_are_reported_and_the_others_filled(weights):
    batch = rows()
    batch["image"][0] = batch["image"][0].astype(np.float32)
    batch["hole"][1] = batch["hole"][1][:-1]
    batch["hole"][2] = np.zeros_like(batch["hole"][2])
    batch["hole"][3] = batch["hole"][3].astype(np.uint8)
    done = InpaintBatch("partial_conv_unet", weights)(batch)
    for error, words in zip(
        done["error"],
        ("image must be", "hole must have the picture's", "nothing is", "polarity must say", ""),
    ):
        assert words in error
        assert bool(words) == bool(error)
    assert [filled.size > 0 for filled in done["filled"]] == [False] * 4 + [True]
    with pytest.raises(BatchError, match=r"row 0 of a batch \(0\.png\): image must be"):
        InpaintBatch("partial_conv_unet", weights, on_error="stop")(batch)


def test_masks_have_a_polarity():
    batch = rows([(24, 24)] * 2)
    dark = [np.where(hole, 0, 255).astype(np.uint8) for hole in batch["hole"]]
    coloured = np.repeat(dark[1][..., None], 3, 2)
    wanted = InpaintBatch()(batch)["filled"]
    done = InpaintBatch(polarity="black")({**batch, "hole": [dark[0], coloured]})
    assert np.array_equal(done["filled"], wanted)


class Failing:
    """A filler that refuses several pictures together, and one picture some times."""

    def __init__(self, times):
        self.times, self.calls = times, []

    def __call__(self, image, hole, seed):
        self.calls.append(len(image))
        if len(image) > 1:
            raise torch.OutOfMemoryError("too much")
        if hole[0, 0, 10].sum() and not hole[0, 0, 16].sum() and self.times:
            self.times -= 1
            raise RuntimeError("a bad moment")
        return image + 0.5


@pytest.mark.parametrize(("times", "error"), [(1, ""), (5, "RuntimeError: a bad moment")])
def test_what_fails_together_is_tried_alone_and_again(monkeypatch, times, error):
    failing = Failing(times)
    monkeypatch.setattr(distributed, "fill_exemplar", failing)
    fill = InpaintBatch(attempts=3)
    fill._alone = False
    done = fill(rows([(24, 24)] * 3))
    assert failing.calls[0] == 3
    assert max(failing.calls[1:]) == 1
    assert list(done["error"]) == [error, "", ""]
    assert len(failing.calls) == 1 + 3 + min(times, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "deepfill_v2"}, "weights must be given for deepfill_v2"),
        ({"weights": "x.pth"}, "weights must be None for exemplar"),
        ({"model": "none", "weights": "x.pth"}, "name must be one of"),
        ({"attempts": 0}, "attempts must be at least 1"),
        ({"on_error": "skip"}, "on_error must be one of"),
        ({"polarity": "grey"}, "polarity must be one of"),
        ({"filled": "image"}, "must differ"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        InpaintBatch(**arguments)


def test_columns_are_checked():
    fill = InpaintBatch()
    with pytest.raises(KeyError, match="no column 'hole', only image"):
        fill({"image": []})
    with pytest.raises(ValueError, match="as many rows as image, 1, got 0"):
        fill({"image": [np.zeros((4, 4, 3), np.uint8)], "hole": []})


def test_the_folder_command_gives_the_same_pictures(weights, tmp_path):
    options = {"model": "partial_conv_unet", "weights": weights}
    assert bulk.run(tmp_path, 7, options, batch=4, actors=0) == 0
    assert len(list((tmp_path / "batch").iterdir())) == 7
