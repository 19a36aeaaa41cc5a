"""What is recognised, what is not, and that what is not stays as it was."""

import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

import inpaint_ops
from inpaint_ops.conversion.record import record_of

_X = (2, 4, 12, 10)


def _x(seed=0):
    return torch.randn(_X, generator=torch.Generator().manual_seed(seed))


def _gradients(net, x):
    x = x.clone().requires_grad_()
    y = net(x)
    upstream = torch.cos(torch.arange(y.numel()) * 0.7).view(y.shape)
    wanted = [x, *(p for p in net.parameters() if p.requires_grad)]
    return [y.detach(), *torch.autograd.grad(y, wanted, upstream)]


def _check(net, chains, x=None):
    """Convert; compare results and gradients; revert."""
    x = _x() if x is None else x
    plain = copy.deepcopy(net)
    report = inpaint_ops.convert(net)
    assert [row.became for row in report.rows] == chains, str(report)
    for a, b in zip(_gradients(net, x), _gradients(plain, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    inpaint_ops.revert(net)
    assert [type(m) for m in net.modules()] == [type(m) for m in plain.modules()]
    assert all(map(torch.equal, _gradients(net, x), _gradients(plain, x)))
    return report


class _Calls(nn.Module):
    """A forward that is a function of its layers."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


def _conv(i=4, o=6, k=3, **options):
    return nn.Conv2d(i, o, k, **{"padding": 1, **options})


@pytest.mark.parametrize(
    ("layers", "chain"),
    [
        ([_conv()], "conv2d"),
        ([_conv(), nn.ReLU()], "conv2d + relu"),
        ([_conv(), nn.LeakyReLU(0.2, inplace=True)], "conv2d + leaky_relu"),
        ([_conv(), nn.LeakyReLU(0.1)], "conv2d"),
        ([_conv(), nn.ELU(alpha=0.5)], "conv2d"),
        ([_conv(), nn.Tanh()], "conv2d + tanh"),
        ([_conv(), nn.SiLU(), nn.Dropout(0.0)], "conv2d + silu"),
        ([nn.ReflectionPad2d(2), _conv(padding=0), nn.ELU()], "reflect pad + conv2d + elu"),
        ([nn.ReplicationPad2d(1), _conv(padding="valid")], "replicate pad + conv2d"),
        ([nn.ZeroPad2d((2, 2, 1, 1)), _conv(padding=0)], "zeros pad + conv2d"),
        ([nn.ZeroPad2d((0, 1, 0, 1)), _conv(padding=0, stride=2)], "conv2d"),
        ([nn.ReflectionPad2d(1), _conv()], "conv2d"),
        ([nn.Upsample(scale_factor=2), _conv(), nn.ReLU()], "upsample + conv2d + relu"),
        (
            [nn.UpsamplingNearest2d(scale_factor=2), nn.ReflectionPad2d(1), _conv(padding=0)],
            "upsample + reflect pad + conv2d",
        ),
        ([nn.Upsample(scale_factor=2, mode="bilinear"), _conv()], "conv2d"),
        ([nn.Upsample(scale_factor=3), _conv()], "conv2d"),
        ([_conv(padding="same", dilation=2, groups=2)], "conv2d"),
        ([_conv(padding_mode="reflect", bias=False)], "conv2d"),
        ([_conv(padding_mode="circular")], "left alone"),
        ([nn.ConvTranspose2d(4, 6, 4, 2, 1), nn.ReLU()], "conv_transpose2d + relu"),
        ([nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1)], "left alone"),
        ([nn.ConvTranspose2d(4, 6, 4, 2, 1, groups=2)], "left alone"),
        ([nn.InstanceNorm2d(4, affine=True), nn.ReLU(True)], "instance_norm + relu"),
        ([nn.InstanceNorm2d(4, track_running_stats=True)], "left alone"),
    ],
)
def test_sequences(layers, chain):
    torch.manual_seed(0)
    _check(nn.Sequential(*copy.deepcopy(layers)), [chain])


def _split(m, x):
    f, g = m.conv(F.pad(x, (1, 1, 1, 1), mode="reflect")).chunk(2, 1)
    return F.elu(f) * torch.sigmoid(g)


def _split_with_sizes(m, x):
    y = m.conv(x)
    f, g = torch.split(y, y.size(1) // 2, dim=1)
    return g.sigmoid() * F.leaky_relu(f, 0.2)


def _gates_first(m, x):
    g, f = m.conv(x).chunk(2, 1)
    return F.elu(f) * torch.sigmoid(g)


def _read_twice(m, x):
    y = m.conv(x)
    return F.relu(y) + y


def _in_place(m, x):
    y = m.conv(x)
    y += 1
    return F.relu(y)


def _written_between(m, x):
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    x = x.clone()
    return m.conv(padded) + x.mul_(2).mean()


def _view(m, x):
    return m.conv(x).view(x.shape[0], -1).tanh()


@pytest.mark.parametrize(
    ("function", "layer", "chain"),
    [
        (_split, _conv(padding=0), "reflect pad + conv2d + elu + gate (split)"),
        (_split_with_sizes, _conv(), "conv2d + leaky_relu + gate (split)"),
        (_gates_first, _conv(), "conv2d"),
        (_read_twice, _conv(), "conv2d"),
        (_in_place, _conv(), "conv2d"),
        (_written_between, _conv(padding=0), "conv2d"),
        (_view, _conv(), "conv2d"),
        (lambda m, x: m.conv(x).relu_(), _conv(), "conv2d + relu"),
        (lambda m, x: m.conv.forward(x), _conv(), "conv2d"),
        (lambda m, x: F.conv2d(x, m.conv.weight, m.conv.bias), _conv(), "conv2d"),
        (lambda m, x: F.relu(m.conv(x)) if x.shape[2] > 3 else x, _conv(), "conv2d"),
    ],
)
def test_forwards(function, layer, chain):
    torch.manual_seed(0)
    _check(_Calls(function, conv=copy.deepcopy(layer)), [chain])


def test_two_convolutions_make_a_gate():
    torch.manual_seed(0)

    def forward(m, x):
        x = m.pad(x)
        return m.f(x) * m.sigmoid(m.g(x))

    layers = {"f": _conv(padding=0), "g": _conv(padding=0), "pad": nn.ReflectionPad2d(1)}
    net = _Calls(forward, **layers, sigmoid=nn.Sigmoid())
    report = _check(net, ["reflect pad + conv2d + gate (pair)", "conv2d"])
    assert [row.layer for row in report.rows] == ["f", "g"]
    # What is kept of the joined weights follows them.
    plain = copy.deepcopy(net)
    inpaint_ops.convert(net)
    for scale in (1.0, 0.5):
        with torch.no_grad():
            for n in (net, plain):
                n.g.weight.data.mul_(scale)
            torch.testing.assert_close(net(_x()), plain(_x()), rtol=1e-4, atol=1e-5)


def test_residual_after_a_norm():
    net = _Calls(lambda m, x: x + m.norm(m.conv(x)), conv=_conv(4, 4), norm=nn.InstanceNorm2d(4))
    _check(net, ["conv2d", "instance_norm + residual"])


def test_a_layer_that_is_shared():
    layer = _conv(4, 4)
    net = nn.Sequential(layer, nn.ReLU(), layer, nn.Tanh(), layer)
    x = _x()
    plain = copy.deepcopy(net)
    inpaint_ops.convert(net)
    for a, b in zip(_gradients(net, x), _gradients(plain, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net[0](x), plain[0](x), rtol=1e-4, atol=1e-5)


def test_slices_and_members_on_their_own():
    net = nn.Sequential(_conv(4, 4), nn.ReLU(), _conv(4, 4), nn.ReLU())
    plain = copy.deepcopy(net)
    inpaint_ops.convert(net)
    x = _x()
    for end in range(1, 5):
        torch.testing.assert_close(net[:end](x), plain[:end](x), rtol=1e-4, atol=1e-5)
    for part in net:
        part(x)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_forward_hooks_see_what_they_saw(index, when):
    net = nn.Sequential(nn.ReflectionPad2d(1), _conv(4, 4, padding=0), nn.ReLU())
    plain = copy.deepcopy(net)
    seen = {True: [], False: []}

    def register(n, ours):
        def hook(_, inputs, result):
            seen[ours].append((inputs[0].detach().clone(), result.detach().clone()))

        n[index].register_forward_hook(hook)

    if when == "before":
        register(net, True)
    inpaint_ops.convert(net)
    if when == "after":
        net(_x())
        register(net, True)
    register(plain, False)
    seen[True].clear()
    torch.testing.assert_close(net(_x()), plain(_x()), rtol=1e-4, atol=1e-5)
    assert len(seen[True]) == len(seen[False]) == 1
    for a, b in zip(seen[True][0], seen[False][0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_backward_hooks_on_all_modules():
    net = nn.Sequential(_conv(4, 4), nn.ELU(), _conv(4, 4), nn.ReLU())
    inpaint_ops.convert(net)
    net(_x())
    calls = []
    for m in net.modules():
        m.register_full_backward_hook(lambda m, gi, go: calls.append(type(m).__name__))
    net(_x().requires_grad_()).sum().backward()
    assert sorted(calls) == sorted(["Sequential", "Conv2d", "Conv2d", "ELU", "ReLU"])


def test_a_member_that_is_replaced_or_changed():
    net = nn.Sequential(_conv(4, 4), nn.LeakyReLU(0.2))
    x = _x()
    inpaint_ops.convert(net)
    net(x)
    net[1].negative_slope = 0.5
    expected = F.leaky_relu(F.conv2d(x, net[0].weight, net[0].bias, padding=1), 0.5)
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)
    net[1] = nn.Tanh()
    expected = F.conv2d(x, net[0].weight, net[0].bias, padding=1).tanh()
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)
    net[0].padding = (0, 0)
    expected = F.conv2d(x, net[0].weight, net[0].bias).tanh()
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)


class _Modes(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = _conv()
        self.scale = 2.0

    def forward(self, x, extra=None, *, factor=1.0):
        y = F.relu(self.conv(x)) * self.scale * factor
        if extra is not None:
            y = y + extra
        return y if self.training else y.tanh()


class _Optional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = _conv()
        self.scale = 2.0

    def forward(self, x, extra=None, flag=False):
        y = F.relu(self.conv(x)) * self.scale
        if extra is not None:
            y = y + extra
        y = -y if flag else y
        return y if self.training else y.tanh()


def test_modes_arguments_and_attributes():
    torch.manual_seed(0)
    net, other = _Optional(), _Modes()
    plain = copy.deepcopy(net)
    inpaint_ops.convert(net)
    inpaint_ops.convert(other)
    x = _x()
    for train in (True, False):
        net.train(train)
        plain.train(train)
        for args, kwargs in (
            ((x,), {}),
            ((x, torch.ones(1)), {}),
            ((x,), {"extra": torch.ones(1)}),
            ((x, None, True), {}),
            ((), {"x": x, "flag": True}),
        ):
            a, b = net(*args, **kwargs), plain(*args, **kwargs)
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    net.scale = plain.scale = 3.0
    torch.testing.assert_close(net(x), plain(x), rtol=1e-4, atol=1e-5)
    assert not (other(x, factor=2.0) == other(x)).all()


class _Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.calls = _conv(), 0

    def forward(self, x):
        self.calls += 1
        return F.relu(self.conv(x))


def test_forwards_with_effects_are_left_alone():
    net = _Counts()
    inpaint_ops.convert(net)
    assert net.calls == 0
    net(_x())
    net(_x())
    assert net.calls == 2
    frozen = _Calls(lambda m, x: _no_grad(m, x), conv=_conv())
    inpaint_ops.convert(frozen)
    assert not frozen(_x().requires_grad_()).requires_grad
    drawn = _Calls(lambda m, x: F.relu(m.conv(x)) + torch.rand(1), conv=_conv())
    inpaint_ops.convert(drawn)
    assert not torch.equal(drawn(_x()), drawn(_x()))


def _no_grad(m, x):
    with torch.no_grad():
        return F.relu(m.conv(x))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "wrap",
    [
        spectral_norm,
        parametrizations.spectral_norm,
        parametrizations.weight_norm,
        lambda m: prune.l1_unstructured(m, "weight", 0.5),
        lambda m: weight_norm(m),
    ],
    ids=["spectral", "spectral-parametrization", "weight-parametrization", "prune", "weight"],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_that_are_formed(wrap, when):
    def made(convert):
        torch.manual_seed(0)
        up = nn.ConvTranspose2d(4, 4, 4, 2, 1)
        net = nn.Sequential(_conv(4, 4), nn.ReLU(), up, nn.Tanh())
        if convert and when == "after":
            inpaint_ops.convert(net)
        net[0], net[2] = wrap(net[0]), wrap(net[2])
        if convert and when == "before":
            inpaint_ops.convert(net)
        return net

    net, plain = made(True), made(False)
    for _ in range(2):
        for a, b in zip(_gradients(net, _x()), _gradients(plain, _x()), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert list(net.state_dict()) == list(plain.state_dict())
    formed = parametrize.is_parametrized(net[0])
    if formed:
        copies = copy.deepcopy(net), copy.deepcopy(plain)
        torch.testing.assert_close(copies[0](_x()), copies[1](_x()), rtol=1e-4, atol=1e-4)
    if formed and when == "after":
        # As torch does it: on the module itself, as copies share its class.
        for n in (net, plain):
            parametrize.remove_parametrizations(n[0], "weight")
        torch.testing.assert_close(net(_x()), plain(_x()), rtol=1e-4, atol=1e-4)
    inpaint_ops.revert(net)
    assert parametrize.type_before_parametrizations(net[0]) is nn.Conv2d
    for n in (net, plain):
        n.eval()
    with torch.no_grad():
        torch.testing.assert_close(net(_x()), plain(_x()), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:DeprecationWarning")
def test_other_inputs_run_as_before():
    net = nn.Sequential(_conv(4, 4), nn.ReLU())
    plain = copy.deepcopy(net)
    inpaint_ops.convert(net)
    x = _x()
    assert torch.equal(net(x[0]), plain(x[0]))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(x), plain(x))
    assert torch.equal(net.double()(x.double()), plain.double()(x.double()))
    last = x.double().contiguous(memory_format=torch.channels_last)
    assert net(last).stride() == plain(last).stride()
    net.float()
    plain.float()
    torch.testing.assert_close(torch.vmap(net)(x[None]), torch.vmap(plain)(x[None]))
    traced = torch.jit.trace(net, x)
    assert torch.equal(traced(x), plain(x))
    assert net(x).stride() == plain(x).stride()
    last = x.contiguous(memory_format=torch.channels_last)
    assert net(last).stride() == plain(last).stride()


def test_initialisers_and_classes():
    net = nn.Sequential(_conv(), nn.InstanceNorm2d(6), nn.ReLU())
    text = repr(net)
    inpaint_ops.convert(net)
    assert repr(net) == text
    assert [type(m).__name__ for m in net] == ["Conv2d", "InstanceNorm2d", "ReLU"]
    assert isinstance(net[0], nn.Conv2d)
    assert isinstance(net, nn.Sequential)


def test_replicas_compute_with_their_own_weights():
    net = nn.Sequential(_conv(4, 4), nn.ReLU())
    inpaint_ops.convert(net)
    net(_x())
    replica = copy.copy(net)
    replica.__dict__ = dict(net.__dict__)
    other = copy.deepcopy(net[0])
    with torch.no_grad():
        other.weight.zero_()
        other.bias.fill_(2.0)
    replica._modules = {"0": other, "1": net[1]}
    assert (replica(_x()) == 2).all()
    wrapped = nn.DataParallel(net)
    torch.testing.assert_close(wrapped(_x()), net(_x()))


def test_a_second_conversion_and_errors():
    net = nn.Sequential(_conv(), nn.ReLU())
    first, second = inpaint_ops.convert(net), inpaint_ops.convert(net)
    assert [r.became for r in first.rows] == [r.became for r in second.rows]
    inpaint_ops.revert(net)
    inpaint_ops.revert(net)
    assert type(net) is nn.Sequential
    with pytest.raises(TypeError, match=r"convert: model must be an nn.Module"):
        inpaint_ops.convert(lambda x: x)
    with pytest.raises(TypeError, match=r"revert: model must be an nn.Module"):
        inpaint_ops.revert(None)
    with pytest.raises(ValueError, match="convert: keep must be"):
        inpaint_ops.convert(net, keep="all")
    with pytest.raises(RuntimeError):
        inpaint_ops.convert(net, torch.zeros(1, 3, 8, 8))
    assert type(net) is nn.Sequential


def test_plans_are_bounded():
    net = _Optional()
    inpaint_ops.convert(net)
    plain = copy.deepcopy(net)
    inpaint_ops.revert(plain)
    for scale in range(20):
        net.scale = plain.scale = float(scale)
        torch.testing.assert_close(net(_x()), plain(_x()), rtol=1e-4, atol=1e-4)
    assert record_of(net).plans is None


class _Remembers(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.seen, self.named = _conv(), [], {}

    def forward(self, x):
        y = F.relu(self.conv(x))
        self.seen.append(y)
        self.named["y"] = y
        return y


def test_what_a_forward_collects_is_its_own():
    net = _Remembers()
    inpaint_ops.convert(net)
    assert (net.seen, net.named) == ([], {})
    y = net(_x())
    assert net.seen[0] is y
    assert net.named["y"] is y


def test_a_part_may_be_reverted_or_converted_again():
    body = nn.Sequential(nn.ReflectionPad2d(1), _conv(4, 4, padding=0), nn.ReLU())
    net = nn.Sequential(body, _conv(4, 4), nn.Tanh())
    expected = net(_x())
    inpaint_ops.convert(net)
    for change in (inpaint_ops.revert, inpaint_ops.convert):
        net(_x())
        change(body)
        torch.testing.assert_close(net(_x()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strict", [False, True])
def test_export_runs_torch_alone(strict):
    net = nn.Sequential(nn.ReflectionPad2d(1), _conv(4, 4, padding=0), nn.ReLU())
    expected = net(_x())
    inpaint_ops.convert(net)
    program = torch.export.export(net, (_x(),), strict=strict)
    assert torch.equal(program.module()(_x()), expected)


def test_compilation():
    net = nn.Sequential(_conv(4, 4), nn.ReLU(), nn.InstanceNorm2d(4), nn.ReLU())
    expected = net(_x())
    inpaint_ops.convert(net)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    y = compiled(_x())
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    y.sum().backward()
    assert net[0].weight.grad is not None


class _Skip(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.down = nn.Sequential(nn.ReflectionPad2d(1), _conv(4, 4, padding=0, stride=2))
        self.norm, self.act = norm, nn.ReLU(True)
        self.up = nn.ConvTranspose2d(4, 4, 4, 2, 1)

    def forward(self, x):
        y = self.up(self.act(self.norm(self.down(x))))
        if y.shape[2:] != x.shape[2:]:
            y = F.interpolate(y, x.shape[2:], mode="bilinear")
        return torch.cat([y, x], 1)


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d(4), nn.BatchNorm2d(4)])
def test_branches_on_sizes(norm):
    torch.manual_seed(0)
    net = _Skip(copy.deepcopy(norm))
    plain = copy.deepcopy(net)
    inpaint_ops.convert(net)
    for size in ((12, 10), (13, 11), (12, 10), (13, 11)):
        x = torch.randn(2, 4, *size)
        torch.testing.assert_close(net(x), plain(x), rtol=1e-4, atol=1e-4)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(net.state_dict()[key], value)
    record = record_of(net)
    assert (record is None) == isinstance(norm, nn.BatchNorm2d)
    assert record is None or len(record.plans[0].other_sizes) == 1


def test_nothing_keeps_a_model_alive():
    net = nn.Sequential(_conv(4, 4), nn.ReLU())
    inpaint_ops.convert(net)
    net(_x())
    seen = weakref.ref(net)
    del net
    gc.collect()
    assert seen() is None
