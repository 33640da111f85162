"""State of torch around a call: the only file in `sppnet.ops` that reads private state of torch.

``tests/ops/test_private_apis.py`` fails if one of the private names changes.
"""

# There is no public interface to the state of transforms.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_observed() -> bool:
    """Return whether torch must dispatch operators: for a graph, a mode, a transform or a profiler."""
    # The first condition is constant under torch.compile, which then does not trace the others.
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._is_tracing()
        or torch.autograd._profiler_enabled()
    )


def is_transformed(*tensors: Tensor | None) -> bool:
    """Return whether a transform of ``torch.func`` is active or one of the tensors is a dual number.

    Custom operators support neither: forward-mode tangents would be dropped without an error, and there is no
    rule for ``torch.func.grad`` and ``vmap``.
    """
    if torch._C._are_functorch_transforms_active():
        return True
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return False
    return any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def is_lazy(tensor: Tensor) -> bool:
    """Return whether the memory of a tensor differs from its values: lazy negation, zeros without memory."""
    return tensor.is_neg() or tensor._is_zerotensor()


def is_batched_gradient(grad: Tensor) -> bool:
    """Return whether a gradient is a batch, as in ``torch.autograd.grad(..., is_grads_batched=True)``."""
    return torch._C._functorch.is_legacy_batchedtensor(grad)


def values_of(tensor: Tensor, dtype: torch.dtype) -> np.ndarray[Any, Any] | None:
    """Return the values in all wrappers of ``torch.func``, axes of ``vmap`` first; None without values."""
    axes: list[int] = []
    inner = tensor
    while torch._C._functorch.is_functorch_wrapped_tensor(inner):
        if torch._C._functorch.is_batchedtensor(inner):
            axes.append(torch._C._functorch.maybe_get_bdim(inner))
        inner = torch._C._functorch.get_unwrapped(inner)
    if type(inner) is not Tensor or inner.is_meta:
        return None
    # An active transform would wrap the results of operators.
    with torch._C._DisableFuncTorch():
        values = inner.detach().to("cpu", dtype).numpy()
    # The axis of an outer wrapper does not count those of inner wrappers.
    for mapped, axis in enumerate(reversed(axes)):
        values = np.moveaxis(values, mapped + axis, 0)
    return values
