"""The way past torch's dispatcher: for ordinary tensors of CPUs and GPUs that nothing watches.

`is_open(tensors)` returns whether the dispatcher would only record for autograd and call the
device's kernel: of tensors that are all on the CPU, or all on one GPU. Not so for subclasses, other
devices, tracing, transforms of functions, autocast, modes that watch operators, derivatives in
forward mode and profiles, which show operators by name. PyTorch has no public question for most of
them, so csrc/python/watchers.cpp asks

* ``torch._C._len_torch_function_stack``: modes that watch functions;
* ``torch._C._autograd._profiler_enabled``: profiles;
* ``torch.autograd.forward_ad._current_level``: derivatives in forward mode;
* ``torch._C._dispatch_keys``, ``_dispatch_tls_local_include_set``,
  ``_dispatch_tls_local_exclude_set``, ``DispatchKeySet`` and ``_after_ADInplaceOrView_keyset``:
  what the dispatcher would go by, which covers the rest (`are_ordinary`).

A release of torch that lacks one of them costs time, nothing else: `AVAILABLE` is then false, as
without the extension, and every call goes through the dispatcher.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inpaint_ops.ops import native

_KEY = torch._C.DispatchKey
# The dispatcher's first keys for tensors of one device that nothing but autograd watches: those
# below autograd, and all. In inference mode there are none above.
_BELOW = frozenset({_KEY.BackendSelect, _KEY.CPU, _KEY.CUDA})
_KEYS = _BELOW | {_KEY.AutogradCPU, _KEY.AutogradCUDA, _KEY.ADInplaceOrView}


def are_ordinary(included: int, excluded: int) -> bool:
    """Return whether a call with those dispatch keys, as bits, is one that `is_open` means."""
    bits = torch._C.DispatchKeySet.from_raw_repr
    keys = bits(included) - bits(excluded)
    below = keys & torch._C._after_ADInplaceOrView_keyset
    above = keys.highestPriorityTypeId() in _KEYS
    return above and below.highestPriorityTypeId() in _BELOW


def _question() -> Callable[[list[Tensor]], bool] | None:
    module = native.extension() if native.status().available else None
    if module is None:
        return None
    try:
        module.is_open([torch.empty(0)])
    except AttributeError:
        return None
    return module.is_open


_found = _question()
AVAILABLE = _found is not None
is_open = _found or (lambda tensors: False)
