"""Tools of training around operators and layers: checkpoints, saved tensors, optimisers."""

import pytest
import torch
from operators import CALLS, HOLE, draw
from support import check_close
from torch import nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

import inpaint_ops
from inpaint_ops import layers


def as_arrays(call, *leaves):
    with saved_tensors_hooks(lambda t: t.numpy().copy("K"), torch.from_numpy):
        return call(*leaves)


def elsewhere(call, *leaves):
    with save_on_cpu():
        return call(*leaves)


WAYS = {
    "checkpoint": lambda call, *leaves: checkpoint(call, *leaves, use_reentrant=False),
    "reentrant checkpoint": lambda call, *leaves: checkpoint(call, *leaves, use_reentrant=True),
    "save_on_cpu": elsewhere,
    "saved as arrays": as_arrays,
}


def gradients(call, tensors, way=None):
    leaves = [t.clone().requires_grad_() for t in tensors]
    y = call(*leaves) if way is None else way(call, *leaves)
    y.square().sum().backward()
    return [y.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("op", CALLS)
def test_saved_tensors_may_go_elsewhere(op, backend, way):
    call, tensors = CALLS[op]
    with inpaint_ops.backend(backend):
        for a, b in zip(gradients(call, tensors, WAYS[way]), gradients(call, tensors)):
            assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize("op", CALLS)
def test_nothing_but_saved_tensors_is_kept(op):
    """Checkpoints save memory only if the graph holds no tensor in another way."""
    call, tensors = CALLS[op]
    leaves = [t.clone().requires_grad_() for t in tensors]
    held = []

    def forget(tensor):
        if tensor.data_ptr() != HOLE.data_ptr():  # a constant of the table of operators
            held.append(StorageWeakRef(tensor.untyped_storage()))

    with saved_tensors_hooks(forget, lambda nothing: None):
        inputs = [2 * leaf for leaf in leaves]
        held += [StorageWeakRef(t.untyped_storage()) for t in inputs]
        y = call(*inputs).sum()
        del inputs
    assert y.requires_grad
    assert len(held) > len(leaves)
    assert all(storage.expired() for storage in held)


OPTIMISERS = {
    "sgd": lambda p, **o: torch.optim.SGD(p, lr=0.1, momentum=0.9, **o),
    "adam": lambda p, **o: torch.optim.Adam(p, lr=0.01, **o),
    "adamw": lambda p, **o: torch.optim.AdamW(p, lr=0.01, **o),
    "adagrad": lambda p, **o: torch.optim.Adagrad(p, lr=0.01, **o),
}


def stack(convolution, transposed, norm):
    torch.manual_seed(3)
    return nn.Sequential(
        convolution(3, 8, 3, padding=1),
        norm(8, affine=True),
        convolution(8, 8, 3, stride=2, padding=1),
        transposed(8, 2, 4, stride=2, padding=1),
    )


def trained(net, make, clip, **options):
    optimiser = make(net.parameters(), **options)
    x, norms = draw(2, 3, 10, 10).double(), []
    for _ in range(4):
        optimiser.zero_grad()
        (net(x) - 1).square().mean().backward()
        norms.append(nn.utils.clip_grad_norm_(net.parameters(), 0.1, foreach=clip))
        optimiser.step()
    return torch.stack(norms), net(x)


@pytest.mark.parametrize("kind", [{"foreach": False}, {"foreach": True}, {"fused": True}], ids=str)
@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_and_clipped_gradients(name, kind):
    clip = kind.get("foreach", False)
    torchs = stack(nn.Conv2d, nn.ConvTranspose2d, nn.InstanceNorm2d)
    ours = stack(layers.FusedConv2d, layers.FusedConvTranspose2d, layers.InstanceNorm2d)
    ours.load_state_dict(torchs.state_dict())
    expected = trained(torchs.double(), OPTIMISERS[name], clip, **kind)
    for a, b in zip(trained(ours.double(), OPTIMISERS[name], clip, **kind), expected):
        check_close(a.detach(), b.detach(), terms=10**4)


@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True}], ids=str)
def test_updates_in_place_are_seen_by_the_next_call(options):
    # float32: packed forms of the weights are kept from call to call.
    layer = layers.GatedConv2d(16, 16, 3, padding=1)
    x = draw(1, 16, 24, 24)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.5, **options)
    for _ in range(3):
        y = layer(x)
        with inpaint_ops.backend("reference"):
            check_close(y.detach(), layer(x).detach().double(), terms=16 * 9)
        optimiser.zero_grad()
        y.mean().backward()
        optimiser.step()
