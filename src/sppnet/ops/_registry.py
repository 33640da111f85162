"""How functions become operations of torch: defined, given shapes and gradients, called at little cost."""

# What torch says of its own state is said in private.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_library = torch.library.Library("sppnet", "FRAGMENT")


def _define(name: str, schema: str, function: Callable[..., Any]) -> Callable[..., Any]:
    _library.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
    _library.impl(name, function, "CompositeExplicitAutograd")
    return getattr(torch.ops.sppnet, name).default


def _twins(
    name: str, schema: str, function: Callable[..., Any], fake: Callable[..., Any]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    constant = f"{name}_constant"
    both = _define(name, schema, function), _define(constant, schema, function)
    for one in (name, constant):
        torch.library.register_fake(f"sppnet::{one}", fake)
    return both


def _watched() -> bool:
    """Whether something has to see operations: a graph in the making, a mode, a transform, a profiler."""
    # The first holds while torch.compile follows this code, which so never comes to the rest.
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._is_tracing()
        or torch.autograd._profiler_enabled()
    )


def _straight(named: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """What calls the ``function`` of the operation ``named``: through torch only where that has a part in it.

    Its way from call to function takes as long as a launch on a GPU, or as a small map's pooling.
    """

    def call(*args: Any) -> Any:
        first = args[0] if isinstance(args[0], Tensor) else args[0][0]
        plain = type(first) is Tensor and not first.is_meta and not _watched()
        return (function if plain else named)(*args)

    return call


def operation(schema: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function under its own name for all devices.

    Not by ``torch.library.custom_op``, which imports torch's compiler on the first call: a second or two.
    """
    return lambda function: _straight(_define(function.__name__, schema, function), function)


def gradient_of(schema: str, fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a gradient, which has none itself, and as ``<name>_constant`` without saying so.

    That one is called where no gradient of the gradient could be asked for: see `pooling`.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__
        known, constant = _twins(name, schema, function, fake)
        torch.library.register_autograd(f"sppnet::{name}", _no_second)
        straight = _straight(constant, function)
        return lambda *args: (known if torch.is_grad_enabled() else straight)(*args)

    return register


def _no_second(ctx: Any, *grads: Any) -> None:
    raise RuntimeError("Pyramid pooling has no second derivatives: its gradient cannot be derived again.")


def pooling(
    schema: str, fake: Callable[..., Any], keep: Callable[..., None], gradient: Callable[..., Any]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function with its gradient for the maps, and as ``<name>_constant`` without one.

    Where no gradient will be asked for, the latter is called, and else, but for graphs that are being made,
    a function of torch's own autograd around it: what registered operations do about gradients takes longer
    than their dispatch, and on a GPU, or with data that fill the caches, a good part of the whole call.

    Args:
        schema: of the function, the maps first.
        fake: gives the shape of its result.
        keep: keeps in a context, of the inputs and the output, what ``gradient`` needs.
        gradient: from that context and the gradients of the outputs, those of the inputs.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__
        known, named = _twins(name, schema, function, fake)
        constant = _straight(named, function)

        class Pooling(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, listed: bool, rest: tuple[Any, ...], *maps: Tensor) -> Any:
                inputs = (list(maps) if listed else maps[0], *rest)
                output = constant(*inputs)
                keep(ctx, inputs, output)
                return output

            @staticmethod
            def backward(ctx: Any, *grads: Tensor) -> Any:
                given = gradient(ctx, *grads)[0]
                return None, None, *([given] if isinstance(given, Tensor) else given)

        torch.library.register_autograd(f"sppnet::{name}", gradient, setup_context=keep)

        def call(maps: Tensor | Sequence[Tensor], *rest: Any) -> Any:
            listed = not isinstance(maps, Tensor)
            needed = any(m.requires_grad for m in maps) if listed else maps.requires_grad
            if not needed or not torch.is_grad_enabled():
                return constant(maps, *rest)
            if torch.compiler.is_compiling():
                return known(maps, *rest)
            return Pooling.apply(listed, rest, *(maps if listed else (maps,)))

        return call

    return register
