"""Whole trainings: every method, several processes, parts of batches, precisions, bad pictures."""

import os
import re
import subprocess
import sys

import pytest
import torch
from model_cases import CASES, small
from pairs import LOOPBACK
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import SETTINGS, config_of, losses, run, write_photos

from inpaint_ops.images import save_hole
from inpaint_ops.models import create_model, list_models, model_class
from inpaint_ops.training import Progress
from inpaint_ops.training.average import Average
from inpaint_ops.training.plan import make_plan

# One step of each phase.
SHORT = ("iterations=1", "batch=2", "sample_every=1", "samples=1", "data.workers=0", "keep=9")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.mark.parametrize("method", list_models())
def test_every_method_trains_through_its_phases(method, photos, tmp_path):
    case, out = CASES[method], tmp_path / "run"
    options = [f"model.{name}={value!r}" for name, value in case.small.items()]
    side = 32 if method == "deepfill_v2" else case.training
    if method in ("context_encoder", "msnps"):
        side = 128
    settings = (*SHORT, *options, f"data.size={side}")
    if method in ("deepfill_v1", "gmcnn"):
        phase = "joint" if method == "deepfill_v1" else "finetune"
        settings = (*settings, f"phases.{phase}.critic_steps=1")
    steps: list[Progress] = []
    features = None if case.features is None else case.features()
    weights = run(
        *(photos, out, *settings),
        **{"method": method, "base": (), "features": features, "on_step": steps.append},
    )
    recipe = model_class(method).recipe_class
    assert [one.phase for one in steps] == list(
        recipe.sequence or [phase.name for phase in recipe.phases]
    )
    assert all(len(one.losses) > 0 and one.rate > 0 for one in steps)
    trained = create_model(method, weights=weights, partial=True)
    start, moved = small(method), dict(trained.named_parameters())
    network = trained.completion_networks[-1]
    assert any(
        not torch.equal(p, moved[name])
        for name, p in start.named_parameters()
        if name.startswith(network)
    )


def test_two_processes_equal_one_with_the_whole_batch(photos, tmp_path):
    settings = [*SETTINGS, "iterations=3", "batch=4", "device=cpu"]
    run(photos, tmp_path / "one", *settings)
    launch = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
    launch += ("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
    command = [sys.executable, "-m", *launch, "--main_process_port", "0"]
    command += ["-m", "inpaint_ops.cli", "train", "deepfill_v2", "--data", str(photos)]
    command += ["--out", str(tmp_path / "two")]
    command += [part for setting in settings for part in ("--set", setting)]
    environment = {"GLOO_SOCKET_IFNAME": LOOPBACK, **os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("step 2 of 3") == 1
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 3
    for ours, theirs in zip(one, two):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    # One process goes on where two have been.
    run(photos, tmp_path / "two", *settings, resume=True)


@pytest.mark.parametrize(
    ("method", "phase", "network", "loss", "numbers"),
    [
        # The penalty draws points, for each part anew.
        (
            *("deepfill_v1", "joint", "global_critic", "critic"),
            {"critic_steps": 1, "gradient_penalty": 0},
        ),
        ("gmcnn", "pretrain", "generator", "generator", {}),
    ],
)
def test_parts_of_a_batch_move_weights_as_the_whole(method, phase, network, loss, numbers):
    """A generator that is judged by a critic is not compared: that critic is older in parts."""
    side = CASES[method].training
    image = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(2))
    hole = torch.zeros(4, 1, side, side)
    hole[..., 10:40, 12:30] = 1
    whole, parted = small(method), small(method)
    expected = whole.recipe(phase, **numbers).step(image, hole)
    recipe = parted.recipe(phase, **numbers)
    found = [recipe.step(image[i : i + 1], hole[i : i + 1], part=i, parts=4) for i in range(4)]
    assert recipe.iteration == 1
    means = {name: sum(one[name] for one in found) / 4 for name in expected}
    assert means[loss] == pytest.approx(expected[loss], rel=1e-4)
    largest = max(float(p.grad.abs().max()) for p in whole.get_submodule(network).parameters())
    for p, q in zip(*(m.get_submodule(network).parameters() for m in (whole, parted))):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5 * largest)


def test_parts_need_one_step_of_the_critic(photos, tmp_path):
    options = [f"model.{name}={value!r}" for name, value in CASES["deepfill_v1"].small.items()]
    with pytest.raises(ValueError, match=r"moves critics several times a batch \(critic_steps\)"):
        run(
            *(photos, tmp_path / "run", *SHORT, *options, "data.size=64", "accumulate=2"),
            **{"method": "deepfill_v1", "base": ()},
        )


def test_accumulation_is_part_of_a_run(photos, tmp_path):
    run(photos, tmp_path / "run", "batch=4", "accumulate=2", "iterations=2")
    assert len(losses(tmp_path / "run")) == 2
    with pytest.raises(ValueError, match="batch must be a multiple of processes x accumulate"):
        run(photos, tmp_path / "other", "batch=3", "accumulate=2", "iterations=2")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_goes_on_to_the_same_bits(precision, photos, tmp_path):
    settings = (f"precision={precision}", "iterations=3", "checkpoint_every=1")
    run(photos, tmp_path / "whole", *settings)
    with pytest.raises(RuntimeError, match="enough"):
        run(photos, tmp_path / "run", *settings, on_step=_stopping_at(2))
    run(photos, tmp_path / "run", *settings, resume=True)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    run(photos, tmp_path / "float", "iterations=3")
    assert losses(tmp_path / "float") != losses(tmp_path / "whole")


def _stopping_at(step):
    def on_step(progress):
        if progress.step == step:
            raise RuntimeError("enough")

    return on_step


def test_the_average_follows_the_weights():
    model = small("deepfill_v2")
    average = Average(model, 0.5)
    name, weight = next(iter(model.generator.named_parameters()))
    start = weight.detach().clone()
    with torch.no_grad():
        weight += 1
    average.update()
    kept = dict(average.model.generator.named_parameters())[name]
    torch.testing.assert_close(kept, start + 1 - 2 / 11)
    for _ in range(30):
        average.update()
    torch.testing.assert_close(kept, weight.detach())
    assert list(average.model._modules) == ["generator"]
    assert weight.requires_grad
    assert not kept.requires_grad


def test_a_bad_picture_stops_a_run_or_is_counted(photos, tmp_path):
    folder = write_photos(tmp_path / "photos")
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:300])
    with pytest.raises(ValueError, match=r"photos/3\.png: not a readable picture"):
        run(folder, tmp_path / "run")
    said, steps = [], []
    options = {"say": said.append, "on_step": steps.append}
    run(folder, tmp_path / "other", "data.on_error=skip", **options)
    skipped = [text for text in said if text.startswith("skipped: ")]
    assert len(skipped) == 1
    assert "3.png: not a readable picture" in skipped[0]
    assert steps[-1].skipped == 1


def test_curves_and_pictures_are_drawn(photos, tmp_path):
    run(photos, tmp_path / "run", "log_every=1", "sample_every=3", "samples=2")
    board = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    names = ["adversarial", "critic", "generator", "l1", "pictures_per_second", "skipped_files"]
    assert sorted(board.Tags()["scalars"]) == [f"joint/{name}" for name in names]
    drawn = [point.value for point in board.Scalars("joint/l1")]
    assert drawn == pytest.approx([one["l1"] for one in losses(tmp_path / "run")])
    sheets = board.Images("samples")
    assert [(one.step, one.width, one.height) for one in sheets] == [(3, 96, 64), (6, 96, 64)]


def test_a_run_goes_on_inside_a_later_phase(photos, tmp_path):
    """With other workers, too: what they read does not depend on their number."""
    options = [f"model.{name}={value!r}" for name, value in CASES["glcic"].small.items()]
    base = (*SHORT, *options, "data.size=64", "iterations=2", "checkpoint_every=1", "samples=0")
    kind = {"method": "glcic", "base": base}
    run(photos, tmp_path / "whole", **kind)
    for step in (3, 4):
        out = tmp_path / f"run{step}"
        with pytest.raises(RuntimeError, match="enough"):
            run(photos, out, **kind, on_step=_stopping_at(step))
        run(photos, out, "data.workers=1", **kind, resume=True)
        assert losses(out) == losses(tmp_path / "whole")


def test_holes_come_from_files(photos, tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    for number in range(2):
        hole = torch.zeros(1, 1, 20, 20)
        hole[..., number : number + 9, 3:12] = 1
        save_hole(hole, folder / f"{number}.png")
    settings = (f"holes.path={folder}", "holes.polarity=white", "iterations=2")
    run(photos, tmp_path / "run", *settings)
    (folder / "1.png").unlink()
    with pytest.raises(ValueError, match=r"the list of holes was 2 files of .*masks, is 1 of"):
        run(photos, tmp_path / "run", *settings, resume=True)


@pytest.mark.parametrize("package", ["accelerate", "torch.utils.tensorboard"])
def test_what_is_not_installed_is_named(package, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'inpaint-ops\[train\]'"):
        run(photos, tmp_path / "run")


def test_a_run_starts_from_weights(photos, tmp_path):
    weights = run(photos, tmp_path / "first", "iterations=2")
    config = config_of(photos, f"weights=[{str(weights)!r}]")
    started = make_plan(config).model.generator.state_dict()
    given = create_model("deepfill_v2", weights=weights, partial=True).generator.state_dict()
    assert all(torch.equal(value, given[name]) for name, value in started.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("iteratons=3",), "key 'iteratons' does not exist; did you mean iterations?"),
        (("data.sise=3",), "key 'data.sise' does not exist; did you mean data.size?"),
        (("model.base_chanels=3",), "model 'base_chanels' does not exist; did you mean base_ch"),
        (("phases.joined.batch=3",), "phase 'joined' does not exist; did you mean joint?"),
        (("phases.joint.learning_rat=3",), "did you mean learning_rate?"),
        (("phases.joint.batch=0",), "batch of phase joint must be"),
        (("phases.joint.l1='much'",), "l1 of phase joint must be a number, got 'much'"),
        (("batch=2.5",), "batch must be int | None, got 2.5"),
        (("seed=true",), "seed must be int, got True"),
        (("data=3",), "data must be a table, got 3"),
        (("ema=1",), r"ema must be in \[0, 1\), got 1.0"),
        (("precision=fp8",), "precision must be one of"),
        (("sequence=['joint', 'late']",), "sequence must be one of"),
        (("sequence=['joint', 'joint']",), "sequence must name a phase once"),
        (("holes.path=masks",), "holes.path and holes.polarity must be given together"),
        (("holes.kind=round",), "kind must be one of"),
        (("features=vgg.pth",), "deepfill_v2 takes no features"),
        (("device=tpu",), "device must be one of"),
        (("sync_batch_norm=true",), "sync_batch_norm needs GPUs"),
        (("=3",), "--set must be NAME=VALUE"),
    ],
)
def test_wrong_configurations_say_what_is_right(settings, message, photos, tmp_path):
    with pytest.raises(ValueError, match=message.replace("|", r"\|").replace("?", r"\?")):
        run(photos, tmp_path / "run", *settings)


def test_what_a_source_does_not_state_must_be_given(photos, tmp_path):
    base = tuple(one for one in SETTINGS if not one.startswith("iterations"))
    with pytest.raises(ValueError, match="iterations of phase joint must be given, as the source"):
        run(photos, tmp_path / "run", base=base)
    with pytest.raises(ValueError, match="features must be the file of a feature network"):
        run(photos, tmp_path / "run", *SHORT, method="partial_conv_unet", base=())
    assert not (tmp_path / "run").exists()
    weights = [f"phases.train.{name}=0" for name in ("perceptual", "style")]
    settings = ("model.base_channels=4", "model.levels=5", "data.size=32", "data.workers=0")
    one = ('sequence=["train"]', "iterations=1", "batch=2", *settings, *weights)
    run(photos, tmp_path / "run", *one, method="partial_conv_unet", base=())
    assert set(losses(tmp_path / "run")[0]) == {"valid", "hole", "variation", "generator"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ACCELERATE_USE_FSDP", "true", "shares batches between processes alone"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", "precision must be that of the launcher, bf16"),
    ],
)
def test_launchers_do_not_ask_in_vain(name, value, message, photos, tmp_path, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=re.escape(message)):
        run(photos, tmp_path / "run")
