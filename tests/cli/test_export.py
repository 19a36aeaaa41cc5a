"""The command ``export``."""

import onnxruntime
import pytest
import torch
from model_cases import picture

from inpaint_ops.models import create_model, save_weights


@pytest.fixture
def glcic(tmp_path):
    torch.manual_seed(0)
    model = create_model("glcic", base_channels=4, global_size=64, local_size=32)
    save_weights(model, tmp_path / "weights.safetensors")
    return model


def test_export_writes_what_the_name_says(run, glcic, tmp_path):
    image, hole = picture(1, 3, 21, 30), torch.zeros(1, 1, 21, 30)
    hole[..., 5:15, 8:20] = 1
    wanted = glcic.complete(image, hole)
    weights = ("--weights", "weights.safetensors")
    result = run("export", "glcic", *weights, "-o", "m.onnx", "--opset", 18)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("m.onnx: glcic written, ")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (filled,) = session.run(None, {"image": image.numpy(), "hole": hole.numpy()})
    assert (torch.from_numpy(filled) - wanted).abs().max() < 1e-5

    result = run(
        "export", "glcic", *weights, "-o", "m", "--format", "torch_export", "--size", "21x30"
    )
    assert result.exit_code == 0, result.output
    program = torch.export.load(tmp_path / "m")
    assert (program.module()(image, hole) - wanted).abs().max() < 1e-5

    result = run("export", "glcic", *weights, "-o", "m")
    assert result.exit_code == 1
    assert "m: exists already; use --overwrite" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["glcic", "-o", "m.onnx"], 2, "Missing option '--weights'"),
        (["glci", "-o", "m.onnx", "--weights", "weights.safetensors"], 2, "unknown model 'glci'"),
        (["exemplar", "-o", "m.onnx", "--weights", "weights.safetensors"], 2, "takes no --weights"),
        (["glcic", "-o", "m.onnx", "--weights", "absent.pth"], 2, "absent.pth is no file"),
        (
            ["glcic", "-o", "m.tf", "--weights", "weights.safetensors"],
            1,
            "must end in .onnx or .pt2",
        ),
        (
            ["glcic", "-o", "m.onnx", "--weights", "weights.safetensors", "--size", "8"],
            2,
            "expected HxW",
        ),
        (
            [
                *("glcic", "-o", "m.onnx", "--weights", "weights.safetensors"),
                *("--option", "blend=poisson"),
            ],
            1,
            "blend must be 'none' to be exported",
        ),
    ],
)
def test_export_refusals(run, glcic, tmp_path, arguments, code, text):
    result = run("export", *arguments)
    assert result.exit_code == code, result.output
    assert text in " ".join(result.output.split())
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]
