"""Operators and layers in graphs that others make of them, at several sizes."""

import io
import pickle
import warnings

import pytest
import torch
from operators import OPERATORS, draw
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.export import Dim
from torch.overrides import TorchFunctionMode
from traceable import LAYERS, OPERATOR_CALLS, check_equal, listed

from inpaint_ops import layers, ops

TRACEABLE = {**OPERATOR_CALLS, **LAYERS}
pytestmark = [
    # torch.export of a module with state, as the guidance loss has, says that it is lost.
    pytest.mark.filterwarnings("ignore:The tensor attribute .*_target was assigned:UserWarning"),
    pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()


def traced(name):
    """The module of a case, its tensors, and the sizes for which a trace by torch.jit holds."""
    case = TRACEABLE[name]
    module = case.module()
    options = getattr(module, "options", {})
    strided = options.get("padding") == "same" and options.get("stride", 1) != 1
    tensors = case.inputs(*case.sizes[0])
    sizes = [(3, 13, 8)] if strided else case.sizes  # of the remainders of the first size
    expected = pytest.warns(torch.jit.TracerWarning, match='padding "same" depends on the size')
    with expected if strided else warnings.catch_warnings():
        return torch.jit.trace(module, tuple(tensors)), module, [case.inputs(*s) for s in sizes]


# Strict tracing costs most; of an operator's variants one tells as much as all.
@pytest.mark.parametrize(
    ("name", "strict"),
    [
        *((name, False) for name in TRACEABLE),
        *((name, True) for name in TRACEABLE if name in LAYERS or name.endswith(" 0")),
    ],
)
def test_exports_with_any_size(name, strict):
    case = TRACEABLE[name]
    module, tensors = case.module(), case.inputs(*case.sizes[0])
    program = torch.export.export(
        module, tuple(tensors), dynamic_shapes=case.axes(), strict=strict
    ).module()
    for size in case.sizes:
        tensors = case.inputs(*size)
        check_equal(program(*tensors), module(*tensors))


@pytest.mark.parametrize("name", TRACEABLE)
def test_compiles_once_for_all_sizes(name):
    case = TRACEABLE[name]
    module = case.module()
    counter = CompileCounter()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=counter)
    for size in ((2, 11, 14), (3, 16, 9), (4, 17, 22)):
        tensors = case.inputs(*size)
        check_equal(compiled(*tensors), module(*tensors))
    assert counter.frame_count == 1


@pytest.mark.parametrize("name", TRACEABLE)
def test_compiles_where_only_some_sizes_are_open(name):
    # As dynamo leaves them that has seen some of them change.
    case = TRACEABLE[name]
    module, sizes = case.module(), case.sizes[0]
    for which in range(2):
        torch._dynamo.reset()
        tensors = case.inputs(*sizes)
        for axis in range(tensors[which % len(tensors)].dim()):
            torch._dynamo.maybe_mark_dynamic(tensors[which % len(tensors)], axis)
        compiled = torch.compile(module, fullgraph=True, backend="eager")
        check_equal(compiled(*tensors), module(*case.inputs(*sizes)))


@pytest.mark.parametrize("name", TRACEABLE)
def test_torch_jit_trace(name):
    trace, module, several = traced(name)
    file = io.BytesIO()
    torch.jit.save(trace, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    for tensors in several:
        expected = module(*tensors)
        check_equal(trace(*tensors), expected)
        check_equal(loaded(*tensors), expected)


@pytest.mark.parametrize("name", ["GatedConv2d", "FusedConv2d, silu", "PartialConv2d"])
def test_a_trace_without_gradients_has_them(name):
    with torch.no_grad():
        trace, module, several = traced(name)
    for tensors in several:
        for network in (trace, module):
            listed(network(*tensors))[0].square().sum().backward()
        for (_, mine), (_, theirs) in zip(
            trace.named_parameters(), module.named_parameters(), strict=True
        ):
            assert mine is theirs
            assert mine.grad is not None
        tensors = [tensors[0].requires_grad_(), *tensors[1:]]
        grads = [
            torch.autograd.grad(listed(network(*tensors))[0].square().sum(), tensors[0])
            for network in (trace, module)
        ]
        check_equal(*grads)


def targets(graph):
    return [node.target for node in graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("name", TRACEABLE)
def test_fx_symbolic_trace(name):
    case = TRACEABLE[name]
    module = case.module()
    traced = torch.fx.symbolic_trace(module)
    if name in OPERATOR_CALLS:
        assert getattr(ops, module.op) in targets(traced.graph)
    restored = pickle.loads(pickle.dumps(traced))
    for size in case.sizes:
        tensors = case.inputs(*size)
        expected = module(*tensors)
        check_equal(traced(*tensors), expected)
        check_equal(restored(*tensors), expected)


def test_a_pass_of_fx_finds_our_layers_by_their_function():
    net = nn.Sequential(layers.GatedConv2d(4, 4, 3, padding=1), nn.ReLU())
    traced = torch.fx.symbolic_trace(net)
    assert targets(traced.graph) == [ops.gated_conv2d]
    (node,) = (node for node in traced.graph.nodes if node.op == "call_function")
    node.kwargs = {**node.kwargs, "activation": "tanh"}
    traced.recompile()
    net[0].activation = "tanh"
    x = draw(2, 4, 6, 6)
    assert torch.equal(traced(x), net(x))


class _Functions(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


class Marked(torch.Tensor):
    pass


@pytest.mark.parametrize("name", OPERATORS)
def test_subclasses_and_modes_see_the_public_function(name):
    case = OPERATOR_CALLS[f"{name} 0"]
    module, tensors = case.module(), case.inputs(*case.sizes[0])
    expected = module(*tensors)
    with _Functions() as functions:
        check_equal(module(*tensors), expected)
    assert getattr(ops, name) in functions.seen
    assert not any(isinstance(seen, torch._ops.OpOverload) for seen in functions.seen)
    results = module(tensors[0].as_subclass(Marked), *tensors[1:])
    assert all(isinstance(result, Marked) for result in listed(results))
    check_equal([result.as_subclass(torch.Tensor) for result in listed(results)], expected)


class Attended(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = layers.ContextualAttention(n_down=2, fuse=True)

    def forward(self, x, mask):
        return self.attention(x, x, mask)[0]


def test_named_sizes_stay_related():
    module = Attended()
    n, h, w = Dim("n", max=8), Dim("h", min=4, max=64), Dim("w", min=4, max=64)
    sizes = ({0: n, 2: h, 3: w}, {0: n, 2: 4 * h, 3: 4 * w})
    x, mask = draw(2, 4, 10, 12), torch.zeros(2, 1, 40, 48)
    mask[..., 12:20, 8:20] = 1
    program = torch.export.export(module, (x, mask), dynamic_shapes=sizes).module()
    other, hole = draw(3, 4, 8, 10), torch.zeros(3, 1, 32, 40)
    hole[..., 12:20, 8:20] = 1
    check_equal(program(other, hole), module(other, hole))


def test_sizes_that_weights_fix_are_an_error():
    layer, x = layers.ChannelwiseLinear(4, (3, 3)), draw(2, 4, 3, 3)
    with pytest.raises(torch._dynamo.exc.UserError, match=r"specialized it to be a constant \(3\)"):
        torch.export.export(layer, (x,), dynamic_shapes=({2: Dim.DYNAMIC},))
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: Dim.DYNAMIC},)).module()
    assert program(draw(5, 4, 3, 3)).shape == (5, 4, 3, 3)


def test_an_exported_program_keeps_no_pre_activation_unless_it_learns():
    layer = layers.GatedConv2d(4, 4, 3, padding=1)
    x = draw(2, 4, 6, 6)
    program = torch.export.export(layer, (x,))
    (call,) = (
        node
        for node in program.graph.nodes
        if node.op == "call_function" and node.target is torch.ops.inpaint_ops.gated_conv2d.default
    )
    assert False in call.args
    network = program.module()
    for one in (network, layer):
        one(x).square().sum().backward()
    check_equal([p.grad for p in network.parameters()], [p.grad for p in layer.parameters()])


class Small(nn.Module):
    """A network of three operators, one with a mask that the other two do not know."""

    def __init__(self):
        super().__init__()
        self.gated = layers.GatedConv2d(4, 8, 3, padding=1)
        self.partial = layers.PartialConv2d(8, 8, 3, padding=1)
        self.shift = layers.ShiftConnection()

    def forward(self, x, hole):
        return self.shift(self.partial(self.gated(x), 1 - hole), hole)[0]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch about its own classes
def test_aot_inductor(tmp_path, monkeypatch):
    """A package runs our operators by their names: in a process that imported inpaint_ops."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch.manual_seed(0)
    module, size = Small().eval(), {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    hole = torch.zeros(2, 1, 16, 20)
    hole[..., 4:10, 5:12] = 1
    with torch.no_grad():
        program = torch.export.export(
            module, (draw(2, 4, 16, 20), hole), dynamic_shapes=(size, size)
        )
        path = torch._inductor.aoti_compile_and_package(
            program, package_path=str(tmp_path / "small.pt2")
        )
        package = torch._inductor.aoti_load_package(path)
        for n, height, width in ((2, 16, 20), (3, 24, 17)):
            x, hole = draw(n, 4, height, width), torch.zeros(n, 1, height, width)
            hole[..., 6:12, 3:11] = 1
            check_equal(package(x, hole), module(x, hole))
