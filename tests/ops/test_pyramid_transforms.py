"""Forward mode, ``torch.func`` and second derivatives against those of torch's adaptive pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Operation, Pool, operations, pool_crops
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.functional import linear

from sppnet.errors import UserError
from sppnet.ops import region_pyramid_pool, region_pyramid_scores, spatial_pyramid_pool

pytestmark = pytest.mark.usefixtures("one_thread")
func, functional = torch.func, torch.autograd.functional
LEVELS = (3, 1)


def squares(pool: Pool) -> Pool:
    return lambda maps: pool(maps).pow(2).sum()


def dual(pool: Pool, maps: Tensor, tangent: Tensor) -> Any:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(pool(forward_ad.make_dual(maps, tangent))).tangent


def dual_gradient(pool: Pool, maps: Tensor, tangent: Tensor) -> Any:
    """The pooling outside of the dual level, its gradient along a tangent of the features' gradient."""
    leaf = maps.clone().requires_grad_()
    rows = pool(leaf)
    direction = torch.linspace(-1, 1, rows.numel(), dtype=rows.dtype).view_as(rows)
    with forward_ad.dual_level():
        grad = forward_ad.make_dual(torch.ones_like(rows), direction)
        return forward_ad.unpack_dual(torch.autograd.grad(rows, leaf, grad)[0]).tangent


def three_times(pool: Pool, maps: Tensor, tangent: Tensor) -> tuple[Tensor, ...]:
    leaf = maps.clone().requires_grad_()
    (first,) = torch.autograd.grad(squares(pool)(leaf), leaf, create_graph=True)
    (second,) = torch.autograd.grad((first**3).sum(), leaf, create_graph=True)
    return first, second, *torch.autograd.grad((second * tangent).sum(), leaf)


def stacked(maps: Tensor, tangent: Tensor) -> Tensor:
    return torch.stack([maps, tangent, maps - tangent], 2)


def one_by_one(call: Callable[[Tensor], Any], batch: Tensor) -> Any:
    found = [call(one) for one in batch.unbind(2)]
    return torch.stack(found)


MODES: dict[str, Callable[[Pool, Tensor, Tensor], Any]] = {
    "jvp": lambda f, m, t: func.jvp(f, (m,), (t,)),
    "vjp": lambda f, m, t: func.vjp(f, m)[1](f(t)),
    "grad": lambda f, m, t: func.grad(squares(f))(m),
    "jacfwd": lambda f, m, t: func.jacfwd(f)(m),
    "jacrev": lambda f, m, t: func.jacrev(f)(m),
    "functionalize": lambda f, m, t: func.functionalize(f)(m),
    "forward over reverse": lambda f, m, t: func.jvp(func.grad(squares(f)), (m,), (t,)),
    "reverse over forward": lambda f, m, t: func.grad(lambda x: func.jvp(f, (x,), (t,))[1].pow(2).sum())(m),
    "dual numbers": dual,
    "dual numbers in the backward pass": dual_gradient,
    "double backward jvp": lambda f, m, t: functional.jvp(f, m, t),
    "hvp": lambda f, m, t: functional.hvp(squares(f), m, t),
    "batched gradients": lambda f, m, t: functional.jacobian(f, m, vectorize=True),
    "third derivative": three_times,
}
MAPPED: dict[str, Callable[[Pool], Callable[[Tensor], Any]]] = {
    "vmap": lambda f: f,
    "per-sample gradients": lambda f: func.grad(squares(f)),
    "vmap of jvp": lambda f: lambda m: func.jvp(f, (m,), (m.cos(),))[1],
    "nested vmap": lambda f: lambda m: func.vmap(f)(torch.stack([m, m.sin()])),
}


def flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for one in value for t in flat(one)]


def assert_same(ours: Any, expected: Any) -> None:
    for a, b in zip(flat(ours), flat(expected), strict=True):
        step = 1e-4 if b.dtype == torch.float32 else 1e-9
        torch.testing.assert_close(a, b, rtol=step, atol=step * (1 + float(b.abs().max())))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Operation]:
    batch, channels = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    # Few values: often several cells of a bin hold its maximum.
    maps = torch.randint(-3, 4, (batch, channels, height, width), generator=generator).to(dtype)
    tangent = torch.randn(maps.shape, generator=generator, dtype=dtype)
    regions = []
    for _ in range(batch):
        x = sorted(draw(st.tuples(st.integers(0, width - 1), st.integers(0, width - 1))))
        y = sorted(draw(st.tuples(st.integers(0, height - 1), st.integers(0, height - 1))))
        regions.append(torch.tensor([[x[0], y[0], x[1] + 1, y[1] + 1], [0, 0, width, height]]))
    levels = draw(st.lists(st.integers(1, 4), min_size=1, max_size=2))
    mode = draw(st.sampled_from(["max", "mean"]))
    return maps, tangent, draw(st.sampled_from(operations(maps.shape, regions, levels, mode)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODES)
@given(case=cases())
@settings(deadline=None, max_examples=12)
def test_derivatives_are_those_of_adaptive_pooling(name: str, case: tuple[Tensor, Tensor, Operation]) -> None:
    maps, tangent, operation = case
    take = MODES[name]
    assert_same(take(operation.ours, maps, tangent), take(operation.oracle, maps, tangent))


@pytest.mark.parametrize("name", MAPPED)
@given(case=cases())
@settings(deadline=None, max_examples=12)
def test_mapped_operations_are_those_of_each_sample(
    name: str, case: tuple[Tensor, Tensor, Operation]
) -> None:
    maps, tangent, operation = case
    batch, transform = stacked(maps, tangent), MAPPED[name]
    got = func.vmap(transform(operation.ours), in_dims=2)(batch)
    if name == "nested vmap":
        expected = one_by_one(lambda m: torch.stack([operation.oracle(m), operation.oracle(m.sin())]), batch)
    else:
        expected = one_by_one(transform(operation.oracle), batch)
    assert_same(got, expected)


BOXES = torch.tensor(
    [[[0, 0, 7, 5], [2, 1, 3, 4]], [[1, 1, 2, 2], [0, 3, 7, 4]], [[6, 4, 7, 5], [0, 0, 1, 5]]]
)
MAPS = torch.randn(3, 2, 5, 7, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("mode", ["max", "mean"])
def test_regions_weights_and_lists_can_be_mapped(mode: str) -> None:
    weights = torch.randn(3, 4, 20, generator=torch.Generator().manual_seed(3))
    rows = torch.stack([pool_crops(MAPS[:1], [one], LEVELS, mode) for one in BOXES])
    same = func.vmap(lambda r: region_pyramid_pool(MAPS[:1], [r], LEVELS, mode))(BOXES)
    torch.testing.assert_close(same, rows)
    moved = func.vmap(lambda r: region_pyramid_pool(MAPS[:1], [r], LEVELS, mode), in_dims=1)
    torch.testing.assert_close(moved(BOXES.movedim(0, 1)), rows)
    scores = func.vmap(lambda r, w: region_pyramid_scores(MAPS[:1], [r], w, None, LEVELS, mode))
    torch.testing.assert_close(scores(BOXES, weights), rows @ weights.mT)
    both = func.vmap(lambda m, r: region_pyramid_pool(m[None], [r], LEVELS, mode))(MAPS, BOXES)
    torch.testing.assert_close(both, pool_crops(MAPS, list(BOXES), LEVELS, mode).view(3, 2, -1))
    lists = func.vmap(lambda a, b: spatial_pyramid_pool([a, b], LEVELS, mode))(MAPS, MAPS[:, :, 2:])
    torch.testing.assert_close(lists[:, 1], spatial_pyramid_pool(MAPS[:, :, 2:], LEVELS, mode))
    pixels = func.vmap(lambda r: region_pyramid_pool(MAPS[:1], [r], LEVELS, mode, spatial_scale=0.25))
    torch.testing.assert_close(pixels(BOXES * 4.0), rows)


@pytest.mark.filterwarnings("ignore")
def test_linearize() -> None:
    given = func.linearize(lambda m: region_pyramid_pool(m, list(BOXES), LEVELS, "mean"), MAPS)[1](MAPS.cos())
    torch.testing.assert_close(given, pool_crops(MAPS.cos(), list(BOXES), LEVELS, "mean"))


def test_tangents_of_weight_and_bias() -> None:
    weight, bias = torch.randn(2, 4, 20), torch.randn(2, 4)
    regions = list(BOXES)

    def score(weight: Tensor, bias: Tensor) -> Tensor:
        return region_pyramid_scores(MAPS, regions, weight, bias, LEVELS)

    rows = pool_crops(MAPS, regions, LEVELS, "max")
    expected = linear(rows, weight[1], bias[1])
    given = func.jvp(score, (weight[0], bias[0]), (weight[1], bias[1]))[1]
    torch.testing.assert_close(given, expected)
    with forward_ad.dual_level():
        made = [forward_ad.make_dual(*pair) for pair in (weight, bias)]
        torch.testing.assert_close(forward_ad.unpack_dual(score(*made)).tangent, expected)


@pytest.mark.parametrize("wrong", [[0, 0, 0, 3], [-3, 0, 0, 0], [0, 9, 0, 0]])
def test_mapped_regions_outside_are_named(wrong: list[int]) -> None:
    boxes = BOXES.clone()
    boxes[1, 1] += torch.tensor(wrong)
    calls = [
        lambda: func.vmap(lambda r: region_pyramid_pool(MAPS[:1], [r]))(boxes),
        lambda: func.vmap(lambda r: region_pyramid_pool(MAPS[:1], [r]), in_dims=1)(boxes.movedim(0, 1)),
        lambda: func.grad(lambda m: region_pyramid_pool(m, [boxes[1]]).sum())(MAPS[:1]),
        lambda: func.vmap(lambda m: region_pyramid_pool(m[None], [boxes[1]]))(MAPS),
    ]
    for call in calls:
        with pytest.raises(UserError, match=r"regions\[0\]\[1\]: expected 0 <= x0 < x1 <= 7"):
            call()


def test_compiled_transforms() -> None:
    regions = list(BOXES)
    calls = [
        func.vmap(lambda m: spatial_pyramid_pool(m[None], LEVELS)),
        func.grad(lambda m: region_pyramid_pool(m, regions, LEVELS).pow(2).sum()),
        lambda m: func.jvp(lambda x: spatial_pyramid_pool(x, LEVELS), (m,), (m.cos(),))[1],
    ]
    for call in calls:
        torch.compiler.reset()
        compiled = torch.compile(call, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(MAPS), call(MAPS))


def test_an_unused_dual_level_changes_nothing() -> None:
    leaf = MAPS.clone().requires_grad_()
    with forward_ad.dual_level():
        rows = spatial_pyramid_pool(leaf, LEVELS)
        rows.sum().backward()
    assert forward_ad._current_level < 0
    expected = func.grad(lambda m: pool_crops(m, [torch.tensor([[0, 0, 7, 5]])] * 3, LEVELS, "max").sum())(
        MAPS
    )
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, expected)


def test_lazy_negations_are_resolved() -> None:
    maps = torch.complex(MAPS, MAPS + 1).conj().imag
    assert maps.is_neg()
    torch.testing.assert_close(spatial_pyramid_pool(maps), spatial_pyramid_pool(-(MAPS + 1)))
    leaf = MAPS.clone().requires_grad_()
    rows = spatial_pyramid_pool(leaf, LEVELS)
    grad = torch.complex(rows, rows).detach().conj().imag
    (got,) = torch.autograd.grad(rows, leaf, grad)
    again = MAPS.clone().requires_grad_()
    (expected,) = torch.autograd.grad(spatial_pyramid_pool(again, LEVELS), again, -rows.detach())
    assert torch.equal(got, expected)
