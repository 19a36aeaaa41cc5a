"""Export a method to ONNX and run it in ONNX Runtime, without PyTorch in the second part.

    pip install 'inpaint-ops[export]'
    python examples/export_and_run.py glcic.onnx

The file holds standard operators alone. Batch, height and width are free.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import inpaint_ops
from inpaint_ops.models import create_model


def main(arguments: Sequence[str]) -> float:
    """Export, run, return the largest difference from PyTorch."""
    file = Path(arguments[0] if arguments else "glcic.onnx")
    # A small network with random weights; weights="file.pth" gives a public one.
    model = create_model("glcic", base_channels=8)
    inpaint_ops.export(model, file)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")

    import onnxruntime

    session = onnxruntime.InferenceSession(file)
    picture = np.random.default_rng(0).random((1, 3, 96, 128), np.float32)
    hole = np.zeros((1, 1, 96, 128), np.float32)  # 1 = missing
    hole[..., 30:60, 40:80] = 1
    (filled,) = session.run(["picture"], {"image": picture, "hole": hole})

    same = model.complete(torch.from_numpy(picture), torch.from_numpy(hole)).numpy()
    difference = float(np.abs(filled - same).max())
    known = np.broadcast_to(hole == 0, picture.shape)
    assert np.array_equal(filled[known], picture[known])  # known pixels bit for bit
    print(f"largest difference from PyTorch: {difference:.1e}")
    return difference


if __name__ == "__main__":
    main(sys.argv[1:])
