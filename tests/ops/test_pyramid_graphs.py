"""Compilation (one graph for all sizes), export, autocast, dispatch modes, torch's checks of operators."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.export import Dim, export
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from sppnet.nn import RegionPyramidPool2d, SpatialPyramidPool2d
from sppnet.ops import region_pyramid_pool, region_pyramid_scores, spatial_pyramid_pool
from sppnet.ops._fallback import pool_maps

SIZES = [(5 + i, 30 - i) for i in range(20)]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_one_graph_serves_twenty_sizes_of_maps() -> None:
    counter = CompileCounter()
    pool = torch.compile(SpatialPyramidPool2d(), backend=counter, fullgraph=True, dynamic=True)
    for height, width in SIZES:
        maps = torch.randn(2, 3, height, width)
        assert torch.equal(pool(maps), spatial_pyramid_pool(maps))
    assert counter.frame_count == 1


def test_at_most_two_graphs_without_dynamic_shapes() -> None:
    # The first size is taken for a constant, the second shows that it is none.
    counter = CompileCounter()
    pool = torch.compile(SpatialPyramidPool2d(), backend=counter, fullgraph=True)
    for height, width in SIZES:
        pool(torch.randn(2, 3, height, width))
    assert counter.frame_count <= 2


def test_one_graph_serves_twenty_sizes_and_numbers_of_regions() -> None:
    counter = CompileCounter()
    pool = torch.compile(RegionPyramidPool2d(), backend=counter, fullgraph=True, dynamic=True)
    for i, (height, width) in enumerate(SIZES):
        maps = torch.randn(2, 3, height, width)
        # No two sizes of the first call are equal: torch takes such for one and the same.
        regions = [torch.tensor([[0, 0, width, height]]).repeat(n + i, 1) for n in (7, 11)]
        assert torch.equal(pool(maps, regions), region_pyramid_pool(maps, regions))
    assert counter.frame_count == 1


def test_a_compiled_network_trains_at_twenty_sizes_in_one_graph() -> None:
    counter = CompileCounter()
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), SpatialPyramidPool2d((3, 1)), nn.Linear(40, 2)
    )
    plain = torch.compile(network, backend=counter, fullgraph=True, dynamic=True)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True, dynamic=True)
    for height, width in SIZES:
        images = torch.randn(2, 3, height, width)
        plain(images)
        expected = torch.autograd.grad(network(images).square().sum(), list(network.parameters()))
        got = torch.autograd.grad(compiled(images).square().sum(), list(network.parameters()))
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)
    assert counter.frame_count == 1


def test_compiled_code_raises_user_errors() -> None:
    pool = torch.compile(RegionPyramidPool2d(), backend="eager", fullgraph=True, dynamic=True)
    whole = torch.tensor([[0, 0, 6, 6]])
    with pytest.raises(ValueError, match=r"regions\[0\]\[0\]"):
        pool(torch.randn(1, 3, 6, 6), [whole + 1])
    with pytest.raises(ValueError, match="regions: expected one tensor for each of the 2 maps, got 3"):
        pool(torch.randn(2, 3, 6, 6), [whole, whole, whole])


def test_export_with_sizes_left_open() -> None:
    dims = {"maps": {0: Dim("batch", min=1, max=64), 2: Dim("height", min=2), 3: Dim("width", min=2)}}
    program = export(SpatialPyramidPool2d((6, 3, 2, 1)), (torch.randn(2, 3, 13, 17),), dynamic_shapes=dims)
    for batch, height, width in ((1, 5, 40), (3, 64, 2), (2, 13, 17)):
        maps = torch.randn(batch, 3, height, width)
        assert torch.equal(program.module()(maps), spatial_pyramid_pool(maps))


class Plain(nn.Module):
    """The form of plain tensor operations."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, maps: Tensor) -> Tensor:
        return pool_maps(maps, (6, 4, 3, 1), self.mode)


@pytest.mark.parametrize("mode", ["max", "mean"])
def test_the_plain_form_exports_with_sizes_left_open(mode: str) -> None:
    dims = {"maps": {2: Dim("height", min=2, max=512), 3: Dim("width", min=2, max=512)}}
    program = export(Plain(mode), (torch.randn(2, 3, 13, 17),), dynamic_shapes=dims)
    for height, width in ((5, 40), (64, 2), (13, 17), (2, 3), (7, 6)):
        maps = torch.randn(2, 3, height, width)
        torch.testing.assert_close(program.module()(maps), spatial_pyramid_pool(maps, (6, 4, 3, 1), mode))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("sppnet" in name for name in names)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_the_type_of_the_maps(dtype: torch.dtype) -> None:
    maps = torch.randn(1, 3, 9, 9)
    regions = [torch.tensor([[0, 0, 9, 9]])]
    with torch.autocast("cpu", dtype=dtype):
        for given in (maps, maps.to(dtype)):
            assert spatial_pyramid_pool(given).dtype == given.dtype
            assert region_pyramid_pool(given, regions).dtype == given.dtype
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), SpatialPyramidPool2d((2, 1)))
    with torch.autocast("cpu", dtype=dtype):
        pooled = layers(maps)
        assert pooled.dtype == dtype
    pooled.float().sum().backward()
    assert layers[0].weight.grad is not None


def test_opcheck() -> None:
    maps = torch.randn(2, 3, 6, 7, requires_grad=True)
    regions = [torch.tensor([[0, 0, 7, 6]]), torch.tensor([[1, 1, 3, 4], [0, 0, 1, 1]])]
    operations = torch.ops.sppnet
    listed = [maps[0].detach().requires_grad_(), maps[1, :, :4].detach().requires_grad_()]
    for mode in ("max", "mean"):
        for one, boxes in (([maps], []), (listed, []), ([maps], regions)):
            torch.library.opcheck(operations.pyramid_pool.default, (one, boxes, [2, 1], mode))
            grad = torch.randn(len(boxes) + 1 if boxes else 2, 15)
            plain = [m.detach() for m in one]
            torch.library.opcheck(
                operations.pyramid_pool_backward.default, (grad, plain, boxes, None, [2, 1], mode)
            )
    torch.library.opcheck(operations.pyramid_pool_argmax.default, (maps.float(), [2, 1]))
    torch.library.opcheck(
        operations.region_scores.default, (maps.detach(), regions, torch.randn(4, 15), [2, 1], "max")
    )


class _Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_modes_see_the_operations() -> None:
    # A mode that counts, keeps or replaces results must meet operations, not what they are made of.
    maps, regions = torch.randn(2, 3, 6, 7, requires_grad=True), [torch.tensor([[0, 0, 2, 2]])] * 2
    with _Seen() as seen:
        rows = region_pyramid_pool(maps, regions, (2, 1))
        rows.sum().backward()
        spatial_pyramid_pool([maps[0].detach(), maps[1].detach()], (2, 1))
        region_pyramid_scores(maps.detach(), regions, torch.randn(6, 15), None, (2, 1))
    found = [name.split(".")[1].removesuffix("_constant") for name in seen.names if name.startswith("sppnet")]
    assert found == ["pyramid_pool", "pyramid_pool_backward", "pyramid_pool", "region_scores"]


def test_graphs_and_transforms_see_the_operations() -> None:
    maps = torch.randn(2, 3, 6, 7)
    traced = make_fx(lambda maps: spatial_pyramid_pool(maps, (2, 1)))(maps)
    assert any("sppnet.pyramid_pool" in str(node.target) for node in traced.graph.nodes)
    with warnings.catch_warnings():
        # Tracing is deprecated, and torch maps slowly what it knows no rule for.
        warnings.simplefilter("ignore")
        recorded = torch.jit.trace(lambda maps: spatial_pyramid_pool(maps, (2, 1)), maps)
        each = torch.func.vmap(lambda one: spatial_pyramid_pool(one[None], (2, 1))[0])(maps)
    assert "sppnet::pyramid_pool" in str(recorded.graph)
    assert torch.equal(recorded(maps + 1), spatial_pyramid_pool(maps + 1, (2, 1)))
    assert torch.equal(each, spatial_pyramid_pool(maps, (2, 1)))


def test_profilers_see_the_operations() -> None:
    with torch.profiler.profile() as profile:
        spatial_pyramid_pool(torch.randn(1, 3, 6, 7))
    assert any(event.key.startswith("sppnet::pyramid_pool") for event in profile.key_averages())


def test_meta_tensors_give_shapes() -> None:
    maps = torch.randn(2, 3, 6, 7, device="meta")
    assert spatial_pyramid_pool(maps).shape == (2, 150)
    regions = [torch.zeros(n, 4, dtype=torch.int64, device="meta") for n in (4, 5)]
    assert region_pyramid_pool(maps, regions, (2, 1)).shape == (9, 15)
    assert region_pyramid_scores(maps, regions, torch.randn(6, 15, device="meta"), None, (2, 1)).shape == (
        9,
        6,
    )
