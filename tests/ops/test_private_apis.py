"""Probes of the private interfaces in use: a new version of torch or numba that changes one fails here.

Those of numba that compile are in test_inline.py, those of Triton in test_pyramid_triton.py.
"""

from __future__ import annotations

import numba
import torch
from numba import types
from torch.autograd import forward_ad

from sppnet.ops._torch_state import is_batched_gradient, is_lazy, is_observed, is_transformed, values_of
from sppnet.ops.cpu.jit.inline import has
from sppnet.ops.cpu.jit.simd import instruction


def test_the_features_of_the_processor_are_known() -> None:
    found: list[bool] = []

    @instruction
    def look(typingctx, x):
        def codegen(context, builder, sig, values):
            found.append(has(context, "none of any processor"))
            return values[0]

        return types.int64(x), codegen

    assert numba.njit(lambda x: look(x))(7) == 7
    assert found == [False]


def test_transforms_of_functorch_are_noticed() -> None:
    seen: list[tuple[bool, bool]] = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append((is_transformed(x), is_observed()))
        return x.sum()

    x = torch.ones(3)
    look(x)
    torch.func.vmap(look)(x[None])
    torch.func.grad(look)(x)
    torch.func.jvp(look, (x,), (x,))
    torch.func.functionalize(look)(x)
    assert seen == [(False, False)] + [(True, True)] * 4


def test_dual_numbers_are_noticed() -> None:
    x = torch.ones(3)
    with forward_ad.dual_level():
        pair = forward_ad.make_dual(x, x)
        assert is_transformed(x, None, pair)
        assert not is_transformed(x, None)
    assert not is_transformed(x)


def test_tracers_and_profilers_are_noticed() -> None:
    seen: list[bool] = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(is_observed())
        return x + 1

    with torch.profiler.profile():
        look(torch.ones(3))
    torch.fx.experimental.proxy_tensor.make_fx(look)(torch.ones(3))
    torch.compile(look, backend="eager")(torch.ones(3))
    assert seen[:2] == [True, True]


def test_gradients_in_batches_are_noticed() -> None:
    seen: list[bool] = []

    class Look(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
            seen.append(is_batched_gradient(grad))
            return grad

    x = torch.ones(3, requires_grad=True)
    torch.autograd.grad(Look.apply(x), x, torch.eye(3), is_grads_batched=True)
    torch.autograd.grad(Look.apply(x), x, torch.ones(3))
    assert seen == [True, False]


def test_lazy_tensors_are_noticed() -> None:
    assert is_lazy(torch.complex(torch.ones(2), torch.ones(2)).conj().imag)
    assert is_lazy(torch._efficientzerotensor((2,)))
    assert not is_lazy(torch.zeros(2))


def test_values_under_wrappers() -> None:
    x = torch.arange(24).view(2, 3, 4)
    found: list[object] = []

    def look(y: torch.Tensor) -> torch.Tensor:
        found.append(values_of(y, torch.int64))
        return y

    look(x)
    torch.func.vmap(look, in_dims=1)(x)
    # The outer map takes axis 2, the inner one axis 0 of the rest, which comes first.
    torch.func.vmap(torch.func.vmap(look), in_dims=2)(x)
    torch.func.grad(lambda y: look(x).sum() * y)(torch.tensor(1.0))
    expected = [x, x.movedim(1, 0), x.movedim(2, 1), x]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(torch.as_tensor(one), other)
    assert values_of(x.to("meta"), torch.int64) is None
