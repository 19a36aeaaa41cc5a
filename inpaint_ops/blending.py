"""Poisson blending: the gradients of a prediction, fitted to the known pixels around the hole."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inpaint_ops import checks

Array = npt.NDArray[Any]
# Most unknowns for which the matrix is factorised. For more, conjugate gradients with two levels,
# the coarse one of blocks of 8 x 8 pixels, take about 45 steps whatever the size (1024 x 1024: 3 s
# a channel on one thread, against 35 s for the factorisation).
_DIRECT = 20_000
_BLOCK = 8
_TOLERANCE = 1e-7


def poisson_blend(prediction: Tensor, image: Tensor, hole: Tensor) -> Tensor:
    """Paste a prediction into a hole by its gradients instead of its values.

    For each missing pixel p with neighbours N_p (4, fewer at the image's edge, where nothing is
    assumed), f the result, g the prediction and i the image:

        |N_p| f_p - sum of f_q over missing q in N_p
            = sum of i_q over known q in N_p + sum over q in N_p of (g_p - g_q)

    and f = i elsewhere, clamped to [0, 1]. Without any known pixel the equations leave the
    brightness open; then f = g. They are solved in float64 for f - g, which is smooth.

    Args:
        prediction: (N, C, H, W) floating, known pixels included: those beside the hole are used.
        image: shape, dtype and device of prediction, in [0, 1]; missing pixels may hold anything.
        hole: (N or 1, 1, H, W), 1 = missing.

    Returns:
        (N, C, H, W), dtype of prediction, in [0, 1]; known pixels are those of the image.

    Raises:
        ImportError: SciPy is not installed (extra "blend").
        TypeError, ValueError: wrong type, shape or device.

    Source: Pérez et al., SIGGRAPH 2003, equation 7; used by Iizuka et al., SIGGRAPH 2017.
    Deviation: public code calls OpenCV's seamlessClone, which erodes the mask and solves on the
    whole bounding rectangle, so that it may change known pixels.
    """
    op = "poisson_blend"
    checks.check_image(op, "prediction", prediction)
    checks.check_image(op, "image", image)
    checks.check_same(op, "prediction and image", prediction, image)
    if prediction.shape != image.shape:
        raise ValueError(
            f"{op}: image must have shape {tuple(prediction.shape)}, got {tuple(image.shape)}"
        )
    size = (image.shape[2], image.shape[3])
    checks.check_mask(op, "hole", hole, image.shape[0], size, image.device)
    sparse = _sparse()
    missing = checks.binary(op, "hole", hole).expand(image.shape[0], 1, *size)
    # Copied, because an array over a tensor's own memory makes its storage unresizable for good.
    inside = missing[:, 0].to("cpu", copy=True).numpy()
    guess = prediction.detach().double()
    # Known pixels only: a missing one may hold NaN.
    step = torch.where(missing, 0.0, image.detach().double() - guess)
    corrections = [
        torch.from_numpy(_correct(sparse, difference, where))
        for difference, where in zip(step.cpu().numpy(), inside)
    ]
    if not corrections:
        return prediction.clone()
    blended = (guess + torch.stack(corrections).to(guess.device)).clamp(0, 1)
    return torch.where(missing, blended.to(image.dtype), image)


def _sparse() -> Any:
    try:
        import scipy.sparse.linalg
    except ImportError as exc:
        raise ImportError(
            "poisson_blend: SciPy is not installed: pip install 'inpaint-ops[blend]'"
        ) from exc
    return scipy.sparse


def _correct(sparse: Any, step: Array, hole: Array) -> Array:
    """Return the correction of g, (C, H, W), from image - prediction (0 where missing)."""
    result = np.zeros_like(step)
    rows, columns = np.nonzero(hole)
    if len(rows) == 0 or len(rows) == hole.size:
        return result
    number = np.full(hole.shape, -1, np.int64)
    number[rows, columns] = np.arange(len(rows))
    matrix, given = _equations(sparse, step, number, rows, columns)
    blocks = (rows // _BLOCK) * (hole.shape[1] // _BLOCK + 1) + columns // _BLOCK
    result[:, rows, columns] = _solve(sparse, matrix, given, blocks).T
    return result


def _equations(
    sparse: Any, step: Array, number: Array, rows: Array, columns: Array
) -> tuple[Any, Array]:
    """Return the matrix over missing pixels and the right-hand sides, (pixels, C)."""
    height, width = number.shape
    given = np.zeros((len(rows), step.shape[0]))
    neighbours = np.zeros(len(rows))
    pairs = []
    for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        y, x = rows + down, columns + right
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        neighbours += inside
        y, x = y.clip(0, height - 1), x.clip(0, width - 1)
        other = number[y, x]
        linked = inside & (other >= 0)
        pairs.append((np.nonzero(linked)[0], other[linked]))
        known = inside & (other < 0)
        given[known] += step[:, y[known], x[known]].T
    first, second = (np.concatenate(side) for side in zip(*pairs))
    values = np.concatenate([np.full(len(first), -1.0), neighbours])
    diagonal = np.arange(len(rows))
    where = (np.concatenate([first, diagonal]), np.concatenate([second, diagonal]))
    return sparse.csr_array((values, where), shape=(len(rows), len(rows))), given


def _solve(sparse: Any, matrix: Any, given: Array, blocks: Array) -> Array:
    """Return the solution for each column of `given`; `blocks` holds the coarse cells of pixels."""
    if len(given) <= _DIRECT:
        return np.asarray(_factorised(sparse, matrix).solve(given))
    cells = np.unique(blocks, return_inverse=True)[1]
    spread = sparse.csr_array((np.ones(len(cells)), (np.arange(len(cells)), cells)))
    gather = spread.T.tocsr()
    coarse = _factorised(sparse, gather @ matrix @ spread)
    diagonal = matrix.diagonal()

    def precondition(residual: Array) -> Array:
        flat = residual.ravel()
        return np.asarray(flat / diagonal + spread @ coarse.solve(gather @ flat))

    levels = sparse.linalg.LinearOperator(matrix.shape, matvec=precondition, dtype=np.float64)
    columns = []
    for column in given.T:
        solution, failed = sparse.linalg.cg(matrix, column, rtol=_TOLERANCE, maxiter=1000, M=levels)
        if failed:
            raise RuntimeError("poisson_blend: no convergence in 1000 steps")
        columns.append(solution)
    return np.stack(columns, 1)


def _factorised(sparse: Any, matrix: Any) -> Any:
    return sparse.linalg.splu(
        matrix.tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
