from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

openmp: bool
cores: tuple[str, ...]
activations: tuple[str, ...]
padding_modes: tuple[str, ...]
leaky_slope: float

def instruction_sets() -> list[str]: ...
def instruction_set() -> str: ...
def set_instruction_set(name: str) -> None: ...
def fma_peak(seconds: float, threads: int) -> float: ...
def nearest_patch(
    query: NDArray[Any],
    key: NDArray[Any],
    valid: NDArray[Any] | None,
    where: NDArray[Any] | None,
    patch: int,
    stride: int,
    key_stride: int,
    cosine: bool,
    index: NDArray[Any],
    score: NDArray[Any] | None,
    threads: int,
) -> None: ...
def vote_patches(
    features: NDArray[Any],
    hole: NDArray[Any],
    index: NDArray[Any],
    distance: NDArray[Any],
    penalty: NDArray[Any],
    patch: int,
    best: bool,
    out: NDArray[Any],
    threads: int,
) -> None: ...
def refine_patch(
    query: NDArray[Any],
    key: NDArray[Any],
    guess: NDArray[Any],
    valid: NDArray[Any] | None,
    where: NDArray[Any] | None,
    patch: int,
    radius: int,
    reach: int,
    index: NDArray[Any],
    distance: NDArray[Any],
    threads: int,
) -> None: ...
def shift_connection(
    decoder: NDArray[Any],
    encoder: NDArray[Any],
    hole: NDArray[Any],
    input: NDArray[Any],
    index: NDArray[Any],
    out: NDArray[Any],
    out_channel: int,
    channels_last: bool,
    threads: int,
) -> None: ...
def scatter_positions(
    input: NDArray[Any],
    index: NDArray[Any],
    out: NDArray[Any],
    channels_last: bool,
    scale: float,
    threads: int,
) -> None: ...
def choose_core(
    weight_gradient: bool,
    batch: int,
    weight_shape: tuple[int, int, int, int],
    groups: int,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, int],
    upsample: int,
    size: tuple[int, int],
    tiled: bool,
) -> str: ...
def pack_weight(
    weight: NDArray[Any],
    core: int,
    stride: tuple[int, int],
    gated: bool,
    flipped: bool,
    step: int,
    padding: tuple[int, int],
    threads: int,
) -> NDArray[Any]: ...

class WeightSample:
    def __init__(
        self, address: int, shape: Sequence[int], strides: Sequence[int], size: int
    ) -> None: ...
    def matches(self, address: int) -> bool: ...

class ConvPlan:
    def __init__(
        self,
        core: int,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        dilation: tuple[int, int],
        padding: tuple[int, int],
        padding_mode: int,
        tensors: Sequence[tuple[int, Sequence[int]]],
        filters: int,
        gated: bool,
        activation: int,
        step: int,
    ) -> None: ...
    def run(
        self,
        x: Sequence[NDArray[Any]],
        valid: Sequence[NDArray[Any] | None],
        packed: NDArray[Any],
        bias: NDArray[Any] | None,
        y: NDArray[Any],
        z: NDArray[Any] | None,
        scale: NDArray[Any] | None,
        share: NDArray[Any] | None,
        region: tuple[int, int, int, int] | None,
        threads: int,
    ) -> None: ...

def conv_weight_gradient(
    x: Sequence[NDArray[Any]],
    valid: Sequence[NDArray[Any] | None],
    tensors: Sequence[tuple[int, Sequence[int]]],
    grad: NDArray[Any],
    grad_weight: NDArray[Any],
    core: int,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    padding_mode: int,
    threads: int,
) -> None: ...
def conv_epilogue(
    z: NDArray[Any],
    bias: NDArray[Any] | None,
    scale: NDArray[Any] | None,
    share: NDArray[Any] | None,
    y: NDArray[Any],
    z_out: NDArray[Any] | None,
    gated: bool,
    activation: int,
    threads: int,
) -> None: ...
def conv_epilogue_backward(
    grad: NDArray[Any],
    z: NDArray[Any],
    grad_z: NDArray[Any] | None,
    grad_bias: NDArray[Any] | None,
    gated: bool,
    from_result: bool,
    activation: int,
    threads: int,
) -> None: ...
def mask_planes(
    masks: Sequence[NDArray[Any]],
    shapes: Sequence[tuple[int, Sequence[int]]],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    total: float,
    by_sum: bool,
    biased: bool,
    scale: NDArray[Any],
    share: NDArray[Any],
    threads: int,
) -> None: ...
def equal_planes(mask: NDArray[Any]) -> list[int]: ...
def known_bytes(mask: NDArray[Any], known: NDArray[Any] | None) -> bool: ...
def contextual_attention(
    fg: NDArray[Any],
    bg: NDArray[Any],
    hole: NDArray[Any] | None,
    options: tuple[int, float, bool, bool, bool, bool, bool],
    y: NDArray[Any],
    index: NDArray[Any],
    row_max: NDArray[Any],
    row_sum: NDArray[Any],
    threads: int,
) -> None: ...
def contextual_attention_backward(
    grad: NDArray[Any],
    fg: NDArray[Any],
    bg: NDArray[Any],
    hole: NDArray[Any] | None,
    row_max: NDArray[Any],
    row_sum: NDArray[Any],
    options: tuple[int, float, bool, bool, bool, bool, bool],
    grad_fg: NDArray[Any],
    grad_bg: NDArray[Any],
    threads: int,
) -> None: ...
def id_mrf_loss(
    generated: NDArray[Any],
    target: NDArray[Any],
    bandwidth: float,
    eps: float,
    exclude_self: bool,
    loss: NDArray[Any],
    choice: NDArray[Any],
    threads: int,
) -> None: ...
def id_mrf_loss_backward(
    grad: NDArray[Any],
    generated: NDArray[Any],
    target: NDArray[Any],
    loss: NDArray[Any],
    choice: NDArray[Any],
    bandwidth: float,
    eps: float,
    exclude_self: bool,
    grad_generated: NDArray[Any],
    grad_target: NDArray[Any],
    threads: int,
) -> None: ...
def instance_norm(
    x: NDArray[Any],
    weight: NDArray[Any] | None,
    bias: NDArray[Any] | None,
    residual: NDArray[Any] | None,
    eps: float,
    activation: int,
    y: NDArray[Any],
    mean: NDArray[Any],
    inverse: NDArray[Any],
    threads: int,
) -> None: ...
def instance_norm_backward(
    grad: NDArray[Any],
    x: NDArray[Any],
    weight: NDArray[Any] | None,
    bias: NDArray[Any] | None,
    mean: NDArray[Any],
    inverse: NDArray[Any],
    activation: int,
    grad_x: NDArray[Any],
    grad_weight: NDArray[Any],
    grad_bias: NDArray[Any],
    threads: int,
) -> None: ...
