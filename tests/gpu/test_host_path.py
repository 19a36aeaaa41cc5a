"""The path of a GPU call on the host, with `stand_in` for the driver: no GPU is needed.

What is tested is what a device would notice: waits, changed settings, launches on a wrong device
or stream, and searches for compiled programs.
"""

import threading
from contextlib import ExitStack
from importlib import metadata

import pytest
import torch
from gpu_calls import WAYS, call, implementations
from operators import OPERATORS, options_of
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.jit import JITFunction

from inpaint_ops.benchmarks.gpu import host
from inpaint_ops.benchmarks.gpu.stand_in import stand_in_device
from inpaint_ops.kernels import launch, products
from inpaint_ops.kernels.convolution import epilogue, pack


@pytest.fixture(params=WAYS, ids=" ".join)
def op(request, monkeypatch):
    name, choice = request.param
    monkeypatch.setenv("INPAINT_OPS_CONV", choice)
    return name


WAITS = {
    *("_local_scalar_dense", "item", "is_nonzero", "equal", "allclose", "nonzero", "argwhere"),
    *("masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "lift_fresh"),
}


class _Device(TorchDispatchMode):
    """Refuses operators for which the host waits: results of a size, or a value, that it reads.

    ``lift_fresh`` is ``torch.tensor``, whose values would be copied to the device.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_", "_index_put_impl_")
        assert name not in WAITS, f"{name} waits for the device"
        assert not (masks and any(i is not None and i.dtype == torch.bool for i in args[1])), name
        assert not (name == "repeat_interleave" and kwargs.get("output_size") is None), name
        return func(*args, **(kwargs or {}))


def waits(*_, **__):
    raise AssertionError("the host waits for the device")


def watched():
    """Watch what implementations do."""

    def under(one, implementation):
        def inner(*args):
            with _Device(), pytest.MonkeyPatch.context() as patch:
                for name in ("tolist", "numpy", "cpu", "item", "__bool__", "__int__", "__float__"):
                    patch.setattr(torch.Tensor, name, waits)
                return implementation(*args)

        return inner

    return implementations(under)


def test_the_watch_sees_waits():
    with _Device():
        for call in (
            lambda x: x.sum().item(),
            lambda x: x[x > 0],
            lambda x: torch.tensor([1.0]),
            lambda x: bool(x.any()),
        ):
            with pytest.raises(AssertionError):
                call(torch.zeros(3))


def test_no_call_waits_for_the_device(op):
    with stand_in_device(library=False) as launches, watched():
        for options in options_of(op):
            for masks in (torch.bool, torch.uint8, torch.float32)[
                : 3 if OPERATORS[op].masks else 1
            ]:
                call(op, options, masks=masks)
        assert launches


SETTINGS = [
    name
    for name in dir(torch._C)
    if name.startswith("_set_")
    and any(word in name for word in ("cudnn", "cublas", "fp32", "determin", "miopen", "float32"))
]


def test_no_call_changes_settings_of_the_process(op, monkeypatch):
    assert "_set_cudnn_deterministic" in SETTINGS
    assert "_set_fp32_precision_setter" in SETTINGS
    for name in SETTINGS:
        monkeypatch.setattr(torch._C, name, waits)
    with stand_in_device(library=False):
        for dtype in (torch.float16, torch.float32):
            call(op, OPERATORS[op].options, dtype)


@pytest.mark.parametrize("chosen", [(True, "ieee"), (False, "tf32")], ids=str)
def test_overlapping_calls_leave_settings_alone(chosen, monkeypatch):
    """Two calls at a time, one inside the library's product while the other begins and ends."""
    monkeypatch.setenv("INPAINT_OPS_CONV", "library")
    conv = torch.backends.cudnn.conv
    before = torch.backends.cudnn.deterministic, conv.fp32_precision
    seen, inside, leave = [], threading.Event(), threading.Event()

    def settings():
        return torch.backends.cudnn.deterministic, conv.fp32_precision

    def first(*args):
        seen.append(settings())
        inside.set()
        assert leave.wait(30)
        seen.append(settings())
        return convolve(*args)

    convolve = products.convolve
    try:
        torch.backends.cudnn.deterministic, conv.fp32_precision = chosen
        with stand_in_device(library=False), ExitStack() as stack:
            stack.callback(leave.set)
            monkeypatch.setattr(products, "convolve", first)
            options = OPERATORS["fused_conv2d"].options
            thread = threading.Thread(target=_in_stand_in, args=("fused_conv2d", options))
            thread.start()
            assert inside.wait(30)
            monkeypatch.setattr(products, "convolve", convolve)
            call("gated_conv2d", OPERATORS["gated_conv2d"].options, torch.float32)
            seen.append(settings())
            leave.set()
            thread.join()
        assert [*seen, settings()] == [chosen] * 4
    finally:
        torch.backends.cudnn.deterministic, conv.fp32_precision = before


def _in_stand_in(op, options):
    from inpaint_ops import backend

    with backend("triton"):  # a thread has a choice of its own
        call(op, options, torch.float32)


def test_only_the_first_call_asks_for_versions_and_programs(op, monkeypatch):
    with stand_in_device() as launches:
        for options in options_of(op):
            call(op, options)
            first = list(launches)
            del launches[:]
            with monkeypatch.context() as patch:
                patch.setattr(JITFunction, "run", waits)
                patch.setattr(metadata, "version", waits)
                call(op, options)
            assert launches == first
            del launches[:]


def test_empty_batches_launch_nothing(op):
    with stand_in_device() as launches:
        for options in options_of(op):
            y = call(op, options, batch=0)
            assert 0 in y.shape or op == "id_mrf_loss"
    assert all(name == "_conv_pack_kernel" for name, *_ in launches)


def test_launches_go_to_the_tensors_device_and_its_current_stream(op, monkeypatch):
    entered = []

    class Guard:
        def __init__(self, index):
            self.index = index

        def __enter__(self):
            entered.append(self.index)

        def __exit__(self, *_):
            entered.append("out")

    with stand_in_device() as launches:
        options = OPERATORS[op].options
        call(op, options)
        monkeypatch.setattr(torch.cuda, "device", Guard)
        monkeypatch.setattr(launch, "current_stream", lambda index: 7000 + index)
        del launches[:]
        call(op, options)
        assert not entered
        assert {stream for *_, stream in launches} == {7000 - 1}  # CPU tensors have the index -1
        monkeypatch.setattr(launch, "current_device", lambda: 3)
        del launches[:]
        call(op, options)
        assert {stream for *_, stream in launches} == {7000 - 1}
        assert entered == [-1, "out"] * len(launches)


def test_tensors_of_two_devices_and_unaligned_ones_are_refused():
    def finish(product):
        y = torch.empty(1, 8, 1, 3, memory_format=torch.channels_last)
        epilogue.finish(product, None, y, kind=epilogue.PLAIN)

    def memory(device="cpu"):
        return torch.zeros(28, device=device)

    with stand_in_device() as launches:
        for _ in range(2):
            finish(memory()[:24].view(1, 1, 3, 8).permute(0, 3, 1, 2))
        with pytest.raises(ValueError, match="product_ptr must start at a multiple of 16 bytes"):
            finish(memory()[1:25].view(1, 1, 3, 8).permute(0, 3, 1, 2))
        assert len(launches) == 2


def test_host_times_are_measured(tmp_path, capsys):
    code = host.main(["--repeats", "2", "--only", "gated", "--out", str(tmp_path)])
    assert code == 0
    printed = capsys.readouterr().out
    assert printed.count("gated_conv2d") == 4
    assert (tmp_path / "gpu_host.json").exists()


class OnGpu:
    """What a launch looks at of a tensor, on a device that is not here."""

    def __init__(self, index, dtype=torch.float16):
        self.device, self.dtype, self._index = torch.device("cuda", index), dtype, index

    def data_ptr(self):
        return 256

    def get_device(self):
        return self._index


def test_each_device_has_programs_of_its_own_inside_its_guard(monkeypatch):
    """The first launch on a device, too, which compiles and loads its program."""
    inside, entered = [0], []

    class Guard:
        def __init__(self, device):
            self.index = device if isinstance(device, int) else device.index

        def __enter__(self):
            entered.append(self.index)
            inside.append(self.index)

        def __exit__(self, *_):
            inside.pop()

    with stand_in_device() as launches:
        monkeypatch.setattr(torch.cuda, "device", Guard)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8 + index, 0))
        monkeypatch.setattr(launch, "_architecture", launch._architecture.__wrapped__)
        monkeypatch.setattr(launch, "current_device", lambda: inside[-1])
        monkeypatch.setattr(launch, "current_stream", lambda index: 7000 + index)
        numbers = dict.fromkeys(pack.PACK.numbers, 1)
        planned = pack.PACK.plan("half", (1,), **numbers, DOUBLED=False, PHASED=False)
        for index in (0, 1, 0, 1):
            pack.PACK.run(planned, [OnGpu(index), OnGpu(index)])
        assert len(pack.PACK.programs) == 2
        assert [launch.architecture(OnGpu(i).device) for i in (0, 1)] == ["sm_80", "sm_90"]
        assert [stream for *_, stream in launches[2:]] == [7000, 7001]
        # The current device is entered only when it loads a program.
        assert entered == [0, 1, 1]
        with pytest.raises(ValueError, match="packed_ptr must be on cuda:0, got cuda:1"):
            pack.PACK.run(planned, [OnGpu(0), OnGpu(1)])
        assert len(launches) == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_gives_kernels_the_dtype_of_its_rule(op, dtype, monkeypatch):
    """Convolutions take autocast's dtype, all others float32; results are as on the CPU."""
    given = []
    run = launch.Kernel.run

    def noted(kernel, call, pointers):
        wide = [x for kind, x in zip(kernel.types.values(), pointers) if kind == "*T"]
        given.extend(x.dtype for x in wide if x is not None)
        run(kernel, call, pointers)

    monkeypatch.setattr(launch.Kernel, "run", noted)
    with stand_in_device(library=False), torch.autocast("cpu", dtype):
        y = call(op, OPERATORS[op].options, torch.float32)
    expected = dtype if OPERATORS[op].autocast == "lower" else torch.float32
    assert set(given) <= {expected}  # kernels of scores are float32 whatever the features are
    assert y.dtype == expected or not y.is_floating_point()
