"""The way past torch's dispatcher: for ordinary tensors of CPUs and GPUs that nothing watches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd import forward_ad

_TYPES = (Tensor, torch.nn.Parameter)
_KEY = torch._C.DispatchKey
# The dispatcher's first keys for tensors of one device that nothing but autograd watches: those
# below autograd, and all. In inference mode there are none above.
_BELOW = frozenset({_KEY.BackendSelect, _KEY.CPU, _KEY.CUDA})
_KEYS = _BELOW | {_KEY.AutogradCPU, _KEY.AutogradCUDA, _KEY.ADInplaceOrView}


def is_open(tensors: Sequence[Tensor]) -> bool:
    """Return whether the dispatcher would only record for autograd and call the device's kernel.

    Of tensors that are all on the CPU, or all on one GPU. Not so for subclasses, other devices,
    tracing, transforms of functions, autocast, modes that watch operators, derivatives in forward
    mode and profiles, which show operators by name. PyTorch has no public question for most of
    them, so this asks

    * ``torch._C._len_torch_function_stack``: modes that watch functions;
    * ``torch._C._autograd._profiler_enabled``: profiles;
    * ``forward_ad._current_level``: derivatives in forward mode;
    * ``torch._C._dispatch_keys``, ``_dispatch_tls_local_include_set``,
      ``_dispatch_tls_local_exclude_set``, ``DispatchKeySet`` and
      ``_after_ADInplaceOrView_keyset``: what the dispatcher would go by, which covers the rest.

    A release of torch that lacks one of them costs time, nothing else: `AVAILABLE` is then false
    and every call goes through the dispatcher.
    """
    if (
        torch._C._len_torch_function_stack()
        or torch._C._autograd._profiler_enabled()
        or forward_ad._current_level >= 0
    ):
        return False
    keys = torch._C._dispatch_tls_local_include_set().raw_repr()
    on_gpus = 0
    for tensor in tensors:
        if type(tensor) not in _TYPES:
            return False
        if not tensor.is_cpu:
            if not tensor.is_cuda:
                return False
            on_gpus += 1
        keys |= torch._C._dispatch_keys(tensor).raw_repr()
    if on_gpus and (on_gpus < len(tensors) or len({x.get_device() for x in tensors}) > 1):
        return False
    if not _are_ordinary(keys, torch._C._dispatch_tls_local_exclude_set().raw_repr()):
        return False
    try:
        for tensor in tensors:
            if not tensor.data_ptr() and tensor.numel():
                return False
    except RuntimeError:  # sparse tensors and the like have no such thing
        return False
    return True


@lru_cache(maxsize=4096)
def _are_ordinary(included: int, excluded: int) -> bool:
    """Return whether a call with those dispatch keys, as bits, is one that `is_open` means."""
    bits = torch._C.DispatchKeySet.from_raw_repr
    keys = bits(included) - bits(excluded)
    below = keys & torch._C._after_ADInplaceOrView_keyset
    above = keys.highestPriorityTypeId() in _KEYS
    return above and below.highestPriorityTypeId() in _BELOW


def _is_available() -> bool:
    try:
        is_open([torch.empty(0)])
    except AttributeError:
        return False
    return True


AVAILABLE = _is_available()
