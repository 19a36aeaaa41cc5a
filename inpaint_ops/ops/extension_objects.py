"""Types of the objects that the compiled extension makes; those of its functions: `extension`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray
from torch import Tensor


class WeightMemory(Protocol):
    """Instance of the extension's `WeightMemory`."""

    def __init__(self, shape: Sequence[int], strides: Sequence[int], size: int) -> None: ...
    def fingerprint(self, address: int, threads: int) -> int: ...


class ConvPlan(Protocol):
    """Instance of the extension's `ConvPlan`."""

    def __init__(
        self,
        algorithm: str,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        dilation: tuple[int, int],
        padding: tuple[int, int],
        padding_mode: str,
        tensors: Sequence[tuple[int, Sequence[int]]],
        filters: int,
        gated: bool,
        activation: str,
        step: int,
    ) -> None: ...
    def run(
        self,
        x: Sequence[Tensor],
        valid: Sequence[Tensor | None],
        packed: NDArray[Any],
        bias: Tensor | None,
        y: Tensor,
        pre_activation: Tensor | None,
        mask_ratio: Tensor | None,
        update_mask: Tensor | None,
        wanted: Tensor | None,
        anchor: tuple[int, int],
        threads: int,
    ) -> None: ...
    def reads(
        self,
        wanted: Tensor,
        out: tuple[int, int],
        reads: Sequence[Tensor],
        anchor: tuple[int, int] | None,
    ) -> tuple[float, tuple[int, int]]: ...
    def touches(
        self, changed: Sequence[Tensor], touched: Tensor, anchor: tuple[int, int]
    ) -> None: ...
    def run_unpacked(
        self,
        x: Sequence[Tensor],
        valid: Sequence[Tensor | None],
        weight: Tensor,
        bias: Tensor | None,
        y: Tensor,
        pre_activation: Tensor | None,
        mask_ratio: Tensor | None,
        update_mask: Tensor | None,
        threads: int,
    ) -> None: ...


# Shape and strides.
Layout = tuple[Sequence[int], Sequence[int]]


class ConvCall(Protocol):
    """Instance of the extension's `ConvCall`."""

    def __init__(
        self,
        plan: ConvPlan,
        form: Any,
        y: Layout,
        sums: Layout | None,
        gated: bool,
        activation: str,
        curved: bool,
        context: dict[str, Any],
    ) -> None: ...
    def set_gradients(
        self,
        plan: ConvPlan,
        form: Any,
        grad_x: Layout,
        padded: tuple[int, int] | None,
        upsample: int,
        grad_weight: Layout,
        filters: int,
        algorithm: str,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        padding_mode: str,
        tensors: Sequence[tuple[int, Sequence[int]]],
        exchanged: bool,
    ) -> None: ...
    def context(self) -> dict[str, Any]: ...


class ConvCalls(Protocol):
    """Instance of the extension's `ConvCalls`."""

    def __init__(self, make: Callable[..., ConvCall | None]) -> None: ...
    def record_by(self, apply: Callable[..., Any]) -> None: ...
    def forget(self) -> None: ...
    def size(self) -> int: ...
    def function(self) -> Callable[..., Tensor | None]: ...
    @staticmethod
    def forward() -> Callable[..., Tensor]: ...
    @staticmethod
    def backward() -> Callable[..., tuple[Any, ...] | None]: ...
