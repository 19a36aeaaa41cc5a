"""Types of the compiled extension, which `native` returns.

Results are written into tensors that the caller has made. A test compares names and arguments
with the built module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, overload

from numpy.typing import NDArray
from torch import Tensor

from inpaint_ops.ops.extension_objects import ConvCall, ConvCalls, ConvPlan, WeightMemory

WeightMemoryClass = type[WeightMemory]
ConvPlanClass = type[ConvPlan]
ConvCallClass = type[ConvCall]
ConvCallsClass = type[ConvCalls]


class Extension(Protocol):
    """Functions, classes and constants of the module."""

    WeightMemory: WeightMemoryClass
    ConvPlan: ConvPlanClass
    ConvCall: ConvCallClass
    ConvCalls: ConvCallsClass
    openmp: bool
    algorithms: tuple[str, ...]
    activations: tuple[str, ...]
    padding_modes: tuple[str, ...]
    cost_names: tuple[str, ...]
    leaky_slope: float

    def is_open(self, tensors: list[Tensor]) -> bool: ...
    def instruction_sets(self) -> list[str]: ...
    def instruction_set(self) -> str: ...
    def set_instruction_set(self, name: str) -> None: ...
    def fma_peak(self, seconds: float, threads: int) -> float: ...
    def release_scratch(self, threads: int) -> None: ...
    def nearest_patch(
        self,
        query: Tensor,
        key: Tensor,
        valid: Tensor | None,
        where: Tensor | None,
        patch: int,
        stride: int,
        key_stride: int,
        cosine: bool,
        index: Tensor,
        score: Tensor | None,
        threads: int,
    ) -> None: ...
    def bent_surface(
        self,
        surface: Tensor,
        free: Tensor | None,
        inside: Tensor | None,
        tension: float,
        low: float,
        high: float,
        steps: int,
        threads: int,
    ) -> None: ...
    def vote_patches(
        self,
        features: Tensor,
        hole: Tensor | None,
        index: Tensor,
        distance: Tensor,
        penalty: Tensor,
        patch: int,
        best: bool,
        out: Tensor,
        threads: int,
    ) -> None: ...
    def refine_patch(
        self,
        query: Tensor,
        key: Tensor,
        guess: Tensor,
        valid: Tensor | None,
        where: Tensor | None,
        patch: int,
        radius: int,
        reach: int,
        index: Tensor,
        distance: Tensor,
        threads: int,
    ) -> None: ...
    def shift_connection(
        self,
        decoder: Tensor,
        encoder: Tensor,
        hole: Tensor,
        input: Tensor,
        index: Tensor,
        out: Tensor,
        out_channel: int,
        channels_last: bool,
        threads: int,
    ) -> None: ...
    def scatter_positions(
        self,
        input: Tensor,
        index: Tensor,
        out: Tensor,
        channels_last: bool,
        scale: float,
        threads: int,
    ) -> None: ...
    def choose_algorithm(
        self,
        kind: str,
        batch: int,
        weight_shape: tuple[int, int, int, int],
        groups: int,
        stride: tuple[int, int],
        dilation: tuple[int, int],
        padding: tuple[int, int],
        upsample: int,
        size: tuple[int, int],
        tiled: bool,
        large: bool,
        in_place: bool,
        anew: bool,
        costs: Sequence[float],
    ) -> str: ...
    def fold_padding(
        self,
        padded: Tensor,
        out: Tensor,
        before: tuple[int, int],
        upsample: int,
        padding_mode: str,
        threads: int,
    ) -> None: ...
    def forget_counted_weights(self) -> None: ...
    def relayout(self, source: Tensor, to: Tensor, threads: int) -> None: ...
    def sum_neighbours(self, weight: Tensor, sums: Tensor, threads: int) -> None: ...
    def measured_costs(self, instruction_set: str) -> list[float]: ...
    def convolution_work(
        self,
        algorithm: str,
        kind: str,
        batch: int,
        weight_shape: tuple[int, int, int, int],
        stride: tuple[int, int],
        dilation: tuple[int, int],
        size: tuple[int, int],
    ) -> list[float]: ...
    def packed_floats(
        self,
        weight: Tensor,
        algorithm: str,
        stride: tuple[int, int],
        gated: bool,
        flipped: bool,
        step: int,
        padding: tuple[int, int],
    ) -> int: ...
    def pack_weight(
        self,
        weight: Tensor,
        algorithm: str,
        stride: tuple[int, int],
        gated: bool,
        flipped: bool,
        step: int,
        padding: tuple[int, int],
        threads: int,
        spare: NDArray[Any] | None,
    ) -> NDArray[Any]: ...
    def conv_weight_gradient(
        self,
        x: Sequence[Tensor],
        valid: Sequence[Tensor | None],
        tensors: Sequence[tuple[int, Sequence[int]]],
        grad: Tensor,
        grad_weight: Tensor,
        algorithm: str,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        padding_mode: str,
        threads: int,
    ) -> None: ...
    def conv_epilogue(
        self,
        sums: Tensor,
        bias: Tensor | None,
        mask_ratio: Tensor | None,
        update_mask: Tensor | None,
        y: Tensor,
        pre_activation: Tensor | None,
        gated: bool,
        activation: str,
        threads: int,
    ) -> None: ...
    def conv_epilogue_backward(
        self,
        grad: Tensor,
        saved: Tensor,
        grad_pre_activation: Tensor | None,
        grad_bias: Tensor | None,
        gated: bool,
        from_result: bool,
        activation: str,
        threads: int,
    ) -> None: ...
    def mask_planes(
        self,
        masks: Sequence[Tensor],
        shapes: Sequence[tuple[int, Sequence[int]]],
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        total: float,
        by_sum: bool,
        biased: bool,
        mask_ratio: Tensor,
        update_mask: Tensor,
        threads: int,
    ) -> None: ...
    def mask_ratio_backward(
        self,
        grad: Tensor,
        mask_ratio: Tensor,
        update_mask: Tensor,
        grad_sums: Tensor,
        grad_bias: Tensor | None,
        threads: int,
    ) -> None: ...
    def hide_missing(
        self, image: Tensor, known: Tensor, widths: Sequence[int], threads: int
    ) -> None: ...
    def equal_planes(self, mask: Tensor) -> list[int]: ...
    @overload
    def known_bytes(self, mask: Tensor) -> bool: ...
    @overload
    def known_bytes(self, mask: Tensor, known: Tensor) -> bool: ...
    def contextual_attention(
        self,
        fg: Tensor,
        bg: Tensor,
        hole: Tensor | None,
        wanted: Tensor | None,
        options: tuple[int, float, bool, bool, bool, bool, bool],
        y: Tensor,
        index: Tensor,
        row_max: Tensor,
        row_sum: Tensor,
        threads: int,
    ) -> None: ...
    def contextual_attention_backward(
        self,
        grad: Tensor,
        fg: Tensor,
        bg: Tensor,
        hole: Tensor | None,
        row_max: Tensor,
        row_sum: Tensor,
        options: tuple[int, float, bool, bool, bool, bool, bool],
        grad_fg: Tensor,
        grad_bg: Tensor,
        threads: int,
    ) -> None: ...
    def id_mrf_loss(
        self,
        generated: Tensor,
        target: Tensor,
        bandwidth: float,
        eps: float,
        exclude_self: bool,
        loss: Tensor,
        choice: Tensor,
        threads: int,
    ) -> None: ...
    def id_mrf_loss_backward(
        self,
        grad: Tensor,
        generated: Tensor,
        target: Tensor,
        loss: Tensor,
        choice: Tensor,
        bandwidth: float,
        eps: float,
        exclude_self: bool,
        grad_generated: Tensor,
        grad_target: Tensor,
        threads: int,
    ) -> None: ...
    def instance_norm(
        self,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        eps: float,
        planes: bool,
        activation: str,
        y: Tensor,
        mean: Tensor,
        inverse: Tensor,
        threads: int,
    ) -> None: ...
    def instance_norm_backward(
        self,
        grad: Tensor,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        inverse: Tensor,
        planes: bool,
        activation: str,
        grad_x: Tensor,
        grad_weight: Tensor,
        grad_bias: Tensor,
        threads: int,
    ) -> None: ...
