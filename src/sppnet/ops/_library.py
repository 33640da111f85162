"""The pooling operations as operators of torch: registration, shapes, gradients, transforms.

Arguments as in `sppnet.ops._backends`. There are three paths to a backend:

- Eager calls with plain tensors call the backend directly, in a `torch.autograd.Function` if a gradient may
  be required, because torch's dispatch of a registered operator takes as long as the launch of a kernel.
- ``torch.compile``, ``export``, dispatch modes and profilers, which must see operators, use the registered
  operators. ``<name>_constant`` is the operator without gradient, whose dispatch is faster.
- Transforms of ``torch.func`` and forward-mode derivatives use the plain tensor operations of
  `sppnet.ops._fallback`, which torch can transform.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sppnet.ops import _backends, _fallback
from sppnet.ops._torch_state import is_batched_gradient, is_lazy, is_observed, is_transformed, values_of
from sppnet.ops.bins import count_bins

_library = torch.library.Library("sppnet", "FRAGMENT")


def _define(
    name: str, schema: str, function: Callable[..., Any], shape: Callable[..., Any]
) -> Callable[..., Any]:
    # Not torch.library.custom_op, which imports torch's compiler in the first call, for seconds.
    _library.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
    _library.impl(name, function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"sppnet::{name}", shape)
    return getattr(torch.ops.sppnet, name).default


def _define_both(name: str, *rest: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Register an operator for which a gradient is registered later, and the same one without gradient."""
    return _define(name, *rest), _define(f"{name}_constant", *rest)


def _is_direct(*tensors: Tensor) -> bool:
    """Return whether a backend can be called without the dispatcher of torch."""
    if is_observed():
        return False
    for one in tensors:  # noqa: SIM110  (a generator costs as much as the checks)
        if type(one) is not Tensor or one.is_meta or is_lazy(one):
            return False
    return True


def _pool(maps: list[Tensor], regions: list[Tensor], levels: Sequence[int], mode: str) -> Tensor:
    return _backends.pool(maps, regions, levels, mode)[0]


def _pool_shape(maps: list[Tensor], regions: list[Tensor], levels: Sequence[int], mode: str) -> Tensor:
    return maps[0].new_empty(_backends.count_rows(maps, regions), maps[0].shape[-3] * count_bins(levels))


def _pool_argmax_shape(maps: Tensor, levels: Sequence[int]) -> tuple[Tensor, Tensor]:
    argmax = maps.new_empty(_backends.argmax_shape(maps, levels), dtype=torch.int16)
    return _pool_shape([maps], [], levels, "max"), argmax


def _backward(
    grad: Tensor,
    maps: list[Tensor],
    regions: list[Tensor],
    argmax: Tensor | None,
    levels: Sequence[int],
    mode: str,
    checked: object = None,
) -> list[Tensor]:
    if argmax is not None:
        return [_backends.backward_argmax(grad, argmax, maps[0], levels)]
    return _backends.backward(grad, maps, regions, levels, mode, checked)


def _backward_shape(grad: Tensor, maps: list[Tensor], *rest: object) -> list[Tensor]:
    return [torch.empty_like(m) for m in maps]


def _score_shape(
    maps: Tensor, regions: list[Tensor], weight: Tensor, levels: Sequence[int], mode: str
) -> Tensor:
    return weight.new_empty(sum(one.shape[0] for one in regions), weight.shape[0])


_pool_known, _pool_constant = _define_both(
    "pyramid_pool", "(Tensor[] maps, Tensor[] regions, int[] levels, str mode) -> Tensor", _pool, _pool_shape
)
_argmax_known, _argmax_constant = _define_both(
    "pyramid_pool_argmax",
    "(Tensor maps, int[] levels) -> (Tensor, Tensor)",
    _backends.pool_argmax,
    _pool_argmax_shape,
)
_backward_known, _backward_constant = _define_both(
    "pyramid_pool_backward",
    "(Tensor grad, Tensor[] maps, Tensor[] regions, Tensor? argmax, int[] levels, str mode) -> Tensor[]",
    _backward,
    _backward_shape,
)
_score_constant = _define(
    "region_scores",
    "(Tensor maps, Tensor[] regions, Tensor weight, int[] levels, str mode) -> Tensor",
    _backends.score,
    _score_shape,
)


def _gradient(
    grad: Tensor,
    maps: list[Tensor],
    regions: list[Tensor],
    argmax: Tensor | None,
    levels: Sequence[int],
    mode: str,
    checked: object = None,
) -> list[Tensor]:
    """Compute gradients for the maps, by a kernel or, for transforms, by differentiable operations."""
    if is_transformed(grad) or is_batched_gradient(grad):
        return list(_fallback.backward(grad, maps, regions, levels, mode))
    if torch.is_grad_enabled():
        return _backward_known(grad, maps, regions, argmax, levels, mode)
    if _is_direct(grad):
        return _backward(grad, maps, regions, argmax, levels, mode, checked)
    return _backward_constant(grad, maps, regions, argmax, levels, mode)


# Gradients of the registered operators.


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    maps, regions, ctx.levels, ctx.mode = inputs
    ctx.count = len(maps)
    ctx.save_for_backward(*maps, *regions)


def _derivative(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    maps, regions = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
    given = _gradient(grad, list(maps), list(regions), None, ctx.levels, ctx.mode)
    return given, [None] * len(regions), None, None


def _save_argmax(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    maps, ctx.levels = inputs
    ctx.save_for_backward(maps, output[1])
    ctx.mark_non_differentiable(output[1])
    # Otherwise zeros are allocated for the gradient of the argmax indices.
    ctx.set_materialize_grads(False)


def _derivative_argmax(ctx: Any, grad: Tensor | None, _: object) -> tuple[Any, ...]:
    if grad is None:
        return None, None
    maps, argmax = ctx.saved_tensors
    return _gradient(grad, [maps], [], argmax, ctx.levels, "max")[0], None


def _save_again(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:
    _, maps, regions, _, ctx.levels, ctx.mode = inputs
    ctx.count = len(maps)
    ctx.save_for_backward(*maps, *regions)


def _second_derivative(ctx: Any, tangents: list[Tensor]) -> tuple[Any, ...]:
    """Differentiate the gradient, which is linear in that of the features and constant in the maps."""
    maps, regions = list(ctx.saved_tensors[: ctx.count]), list(ctx.saved_tensors[ctx.count :])
    there = [one.to(maps[0].device) for one in regions]
    given = _fallback.jvp(maps, tangents, there, ctx.levels, ctx.mode)
    return given, [torch.zeros_like(m) for m in maps], [None] * len(regions), None, None, None


torch.library.register_autograd("sppnet::pyramid_pool", _derivative, setup_context=_save)
torch.library.register_autograd("sppnet::pyramid_pool_argmax", _derivative_argmax, setup_context=_save_argmax)
torch.library.register_autograd(
    "sppnet::pyramid_pool_backward", _second_derivative, setup_context=_save_again
)


class _Pooling(torch.autograd.Function):
    """Eager pooling with a gradient; the validated regions are saved for the backward pass."""

    @staticmethod
    def forward(ctx: Any, regions: list[Tensor], levels: Sequence[int], mode: str, *maps: Tensor) -> Tensor:
        ctx.checked, ctx.levels, ctx.mode, ctx.count = None, levels, mode, len(maps)
        given, direct = list(maps), _is_direct(*maps)
        argmax: list[Tensor] = []
        if _backends.has_argmax(maps, regions, mode):
            call = _backends.pool_argmax if direct else _argmax_constant
            rows, found = call(maps[0], levels)
            argmax = [found]
        elif direct:
            rows, ctx.checked = _backends.pool(given, regions, levels, mode)
        else:
            rows = _pool_constant(given, regions, levels, mode)
        ctx.regions = len(regions)
        ctx.save_for_backward(*maps, *regions, *argmax)
        return rows

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        tensors = list(ctx.saved_tensors)
        end = ctx.count + ctx.regions
        maps, regions, argmax = tensors[: ctx.count], tensors[ctx.count : end], [*tensors[end:], None][0]
        given = _gradient(grads[0], maps, regions, argmax, ctx.levels, ctx.mode, ctx.checked)
        return None, None, None, *given


# Functions for `sppnet.ops.pyramid`.


def pool(maps: list[Tensor], regions: list[Tensor], levels: Sequence[int], mode: str) -> Tensor:
    """Compute features ``[N, C * bins]``."""
    if is_transformed(*maps):
        _check_transformed(maps, regions)
        return _fallback.pool(maps, regions, levels, mode)
    if not torch.is_grad_enabled() or not any(m.requires_grad for m in maps):
        direct = _is_direct(*maps)
        return (_pool if direct else _pool_constant)(maps, regions, levels, mode)
    if not torch.compiler.is_compiling():
        return _Pooling.apply(regions, levels, mode, *maps)
    if _backends.has_argmax(maps, regions, mode):
        return _argmax_known(maps[0], levels)[0]
    return _pool_known(maps, regions, levels, mode)


def pool_regions(maps: Tensor, regions: list[Tensor], levels: Sequence[int], mode: str) -> Tensor:
    """Compute features ``[N, C * bins]`` of regions; there are none without maps."""
    if not regions:
        return maps.new_empty(0, maps.shape[1] * count_bins(levels))
    return pool([maps], regions, levels, mode)


def score(
    maps: Tensor, regions: list[Tensor], weight: Tensor, bias: Tensor | None, levels: Sequence[int], mode: str
) -> Tensor:
    """Compute scores ``[N, K]``; features are stored only if a derivative is required."""
    differentiable = torch.is_grad_enabled() and (maps.requires_grad or weight.requires_grad)
    if differentiable or is_transformed(maps, weight, bias):
        rows = pool_regions(maps, regions, levels, mode).to(weight.dtype)
        return torch.nn.functional.linear(rows, weight, bias)
    direct = _is_direct(maps) and not is_lazy(weight)
    call = _backends.score if direct else _score_constant
    scores = call(maps, regions, weight, levels, mode)
    return scores if bias is None else scores + bias


def _check_transformed(maps: list[Tensor], regions: list[Tensor]) -> None:
    """Check regions whose values are wrapped by a transform; there are no values during tracing."""
    if torch.compiler.is_compiling() or not regions:
        return
    _backends.check_count(regions, maps[0])
    for i, one in enumerate(regions):
        values = values_of(one, torch.int64)
        if values is None or not values.size:
            continue
        boxes = values.reshape(-1, 4).T
        repeats = boxes.shape[1] // one.shape[0]
        lengths = [0] * i + [boxes.shape[1]]
        _backends.check_cells(boxes, lengths, maps[0].shape[2], maps[0].shape[3], repeats)
