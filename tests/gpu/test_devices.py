"""What the host makes of a GPU call, on tensors without memory in the place of a device's.

Tensors of the device "meta" refuse to meet others and to tell their values, as a GPU's do, and may
have any size. Launches are replaced by notes of what they were given.
"""

import pytest
import torch
from gpu_calls import WAYS, steps
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import inpaint_ops
from inpaint_ops.kernels import launch, program

# Of CUDA's operators those that add by atomics or refuse to run where torch asks for determinism.
BY_ATOMICS = {
    *("reflection_pad2d_backward", "replication_pad2d_backward", "upsample_nearest2d_backward"),
    *("scatter_add", "scatter_add_", "scatter_reduce", "cumsum", "bincount", "histc", "put_"),
    *("median", "kthvalue", "grid_sampler_2d_backward", "embedding_dense_backward"),
}


def tensors_in(*values):
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]


class Device(TorchDispatchMode):
    """Refuses tensors of two devices and sums in no fixed order; lists operators with tensors."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        assert {x.device.type for x in tensors_in(args, kwargs, result)} <= {"meta"}, name
        adds = "index_put" in name and (kwargs or {}).get("accumulate", args[3:4] == (True,))
        assert name not in BY_ATOMICS, name
        assert not adds, name
        return result


@pytest.fixture
def launched(monkeypatch):
    """The names of the kernels launched, and what each was given."""
    seen = []
    monkeypatch.setattr(
        launch.Kernel, "run", lambda kernel, call, pointers: seen.append((kernel, call, pointers))
    )
    return seen


@pytest.fixture(params=WAYS, ids=" ".join)
def found(request, monkeypatch):
    name, choice = request.param
    monkeypatch.setenv("INPAINT_OPS_CONV", choice)
    return steps(name)


def on_device(args, batch=None):
    """The arguments as tensors of the device, batches of two made large if wished."""

    def one(x):
        if not isinstance(x, Tensor):
            return x
        x = x.to("meta")
        if batch is None or x.dim() == 0 or x.shape[0] != 2:
            return x
        place = x.new_empty((batch, *x.shape[1:]))
        last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        return place.contiguous(memory_format=torch.channels_last) if last else place

    return tree_map(one, args)


def test_all_memory_is_the_devices_and_no_sum_has_an_open_order(found, launched):
    for one, args in found:
        with torch.no_grad():
            given = on_device(args)
            with Device():
                results = tensors_in(one._gpu(*given))
        assert results
        assert {x.device.type for x in results} == {"meta"}
        pointers = [x for _, _, some in launched for x in some if x is not None]
        assert {x.device.type for x in pointers} <= {"meta"}
        for kernel, _, some in launched:
            assert len(some) == len(kernel.pointers)
        del launched[:]


def test_results_have_the_promised_place(found, launched):
    """Shapes, dtypes and strides are those that torch.compile plans with."""
    for one, args in found:
        flat = args if one._group is None else one._group.flat(args)
        # Of a GPU's tensors a layer keeps less for its backward pass.
        with torch.no_grad(), inpaint_ops.backend("triton"):
            promised = tensors_in(one._overload(*on_device(flat)))
            results = tensors_in(one._gpu(*on_device(args)))
        assert len(results) == len(promised)
        for got, wanted in zip(results, promised):
            assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype), one.name
            if wanted.numel():
                assert got.stride() == wanted.stride(), one.name


@pytest.mark.parametrize("values", [0, 2**32], ids=["grids", "offsets"])
def test_batches_of_any_size_are_launched(found, launched, values):
    """More samples than a grid takes along an axis, and more values than 32 bits count."""
    for one, args in found[: 2 if values else None]:
        with torch.no_grad():
            met = tensors_in(args, one._gpu(*on_device(args)))
            batch = max(70_000, values // max(x[0].numel() for x in met if len(x) == 2))
            del launched[:]
            results = tensors_in(one._gpu(*on_device(args, batch)))
        assert any(len(x) == batch for x in results), one.name
        for kernel, call, _ in launched:
            assert call.grid[0] <= program.MOST
            assert max(call.grid[1:], default=1) <= 65535, kernel.name
            assert max(call.numbers) <= program.MOST, kernel.name
        del launched[:]
