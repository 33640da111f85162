"""The GPU's kernels: their values through Triton's interpreter, and that they compile for GPUs.

Where there is a GPU, they run on it as well.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sppnet.benchmark.pooling import random_regions
from sppnet.ops import region_pyramid_pool, region_pyramid_scores, spatial_pyramid_pool
from sppnet.ops.pyramid import Mode

pytest.importorskip("triton")


@pytest.mark.parametrize("case", ["0", *(pytest.param(n, marks=pytest.mark.exhaustive) for n in "12")])
def test_values_and_gradients_through_the_interpreter(case: str) -> None:
    # The interpreter must be requested before the kernels are imported.
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("interpreted.py")), case]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("capability", "kind"), [(80, "*fp32"), pytest.param(90, "*bf16", marks=pytest.mark.exhaustive)]
)
def test_every_kernel_compiles_for_nvidia(capability: int, kind: str) -> None:
    # Without a GPU too: Triton brings all it needs down to the machine code.
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from sppnet.ops.gpu import backward, forward, tables

    constants = {"LEVEL": 3, "BLOCK_C": 32, "DERIVED": (1, 9), "COUNT": 1, "IS_WHOLE": False, "UNIT": "x"}
    constants |= {
        "DOUBLINGS": 2,
        "BLOCK_CELLS": 16,
        "IS_MEAN": True,
        "IS_UNMASKED": True,
        "ROWS": 3,
        "TOO": 1,
    }
    constants |= {"HAS_MARKS": True, "HAS_FLAG": True, "HAS_TABLES": True}
    constants |= {"BLOCK_REGIONS": 128, "BLOCK_GRADIENTS": 64}
    types = {"boxes": "*i32", "regions": "*i64", "ends": "*i64", "bad": "*i32"}
    types |= {"sums": "*i64", "notes": "*i32"}
    types |= dict.fromkeys(("maps", "grad", "out"), kind)
    for kernel in (
        tables._prepare_kernel,
        forward._max_kernel,
        forward._bin_kernel,
        backward._largest_kernel,
        backward._max_kernel,
        backward._bin_kernel,
        backward._mean_kernel,
        backward._finish_kernel,
    ):
        used = {name: value for name, value in constants.items() if name in kernel.arg_names}
        keys = kernel in (backward._max_kernel, backward._bin_kernel)
        read = dict.fromkeys(("tables", "cells"), "*i64" if keys else kind) | {"_tables": kind}
        signature = {name: (types | read).get(name, "i32") for name in kernel.arg_names}
        signature |= dict.fromkeys(used, "constexpr")
        source = ASTSource(fn=kernel, signature=signature, constexprs=used)
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 1})
        assert made.asm["cubin"]
        # `sppnet.ops.gpu.launch` takes these from what Triton's launch returns.
        assert made.packed_metadata
        assert hasattr(type(made), "run")
        assert hasattr(made, "function")


def test_code_is_sought_once_for_launches_that_share_it() -> None:
    from sppnet.ops.gpu.launch import Launch

    done: list[object] = []

    class Made:
        function, packed_metadata = "code", "metadata"

        def run(self, *args: object) -> None:
            done.append(args)

    class Kernel:
        def __getitem__(self, grid: object) -> Callable[..., Made]:
            def launch(*args: object, **options: object) -> Made:
                done.append((grid, args, options))
                return Made()

            return launch

    kernel, memory = Kernel(), torch.zeros(1)
    first, other = Launch(kernel, 3, (7, True), ("a",), 1, 128), Launch(kernel, 3, (7, True), ("b",), 1)
    for launch in (first, first, other):
        launch(5, memory)
    Launch(kernel, 4, (9, True), ("a",), 1, 128)(5, memory)
    quickly = (1, 1, 5, "code", "metadata", None, None, None, memory)
    assert done == [
        ((3, 1, 1), (memory, 7, True), {"num_warps": 1, "maxnreg": 128}),
        (3, *quickly, 7, True),
        ((3, 1, 1), (memory, 7, True), {"num_warps": 1}),
        (4, *quickly, 9, True),
    ]


def _codes(
    maps: torch.Tensor, rows: torch.Tensor, told: bool = True, levels: tuple[int, ...] = (3, 1)
) -> list[Any]:
    from sppnet.ops.gpu import forward
    from sppnet.ops.gpu.tables import Regions, form_of, form_of_regions

    regions = form_of_regions(Regions(rows, None), told)
    plan = forward.pooling(form_of(maps), regions, levels, "max")
    assert plan.preparation.launch is not None
    return [launch._key for launch in (plan.preparation.launch, *plan.launches)]


def test_what_code_depends_on_tells_launches_apart_and_sizes_do_not() -> None:
    rows = torch.zeros(400, 4, dtype=torch.int64)
    codes = _codes(torch.zeros(1, 32, 5, 6), rows)
    assert codes == _codes(torch.zeros(1, 32, 7, 9), rows[:320])
    assert codes == _codes(torch.zeros(2, 64, 7, 9), rows[:399])
    last = torch.channels_last
    for others in (
        _codes(torch.zeros(1, 24, 5, 6), rows),
        _codes(torch.zeros(1, 32, 5, 6).half(), rows),
        _codes(torch.zeros(1, 32, 5, 6).contiguous(memory_format=last), rows),
        _codes(torch.zeros(1 + 32 * 30)[1:].view(1, 32, 5, 6), rows),
        _codes(torch.zeros(1, 32, 5, 6), rows.int()),
        _codes(torch.zeros(1, 32, 5, 6), torch.zeros(1 + 400 * 4, dtype=torch.int64)[1:].view(400, 4)),
        _codes(torch.zeros(1, 32, 5, 6), rows, told=False),
        _codes(torch.zeros(1, 32, 5, 6), rows, levels=(3,)),
    ):
        assert codes != others
    # Few regions of a large map are read cell by cell.
    assert _codes(torch.zeros(1, 32, 40, 60), rows[:9])[1] != codes[1]


def _maps(batch: int, channels: int, dtype: torch.dtype, layout: str) -> torch.Tensor:
    # Few values: maxima in several places.
    whole = torch.randint(-8, 5, (batch, channels, 23, 34), generator=torch.Generator().manual_seed(3))
    maps = whole.to(dtype)[:, :, 1:-1, 2:-2]
    maps[0, 0, 4, 4], maps[0, 1], maps[-1, 2] = float("nan"), -float("inf"), -0.0
    if layout == "strided":
        return maps
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    return maps.contiguous(memory_format=form)


def _regions(batch: int) -> list[torch.Tensor]:
    boxes = random_regions(300, 21, 30)
    return [boxes] if batch == 1 else [boxes[:90], boxes[:0], boxes[90:]]


def _same(got: torch.Tensor, expected: torch.Tensor, mode: str) -> None:
    assert got.is_cuda
    assert got.dtype == expected.dtype
    step = 0.0 if mode == "max" else 4 * torch.finfo(got.dtype).eps
    torch.testing.assert_close(got.cpu(), expected, rtol=step, atol=step, equal_nan=True)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@needs_gpu
@pytest.mark.parametrize("mode", ["max", "mean"])
@pytest.mark.parametrize("levels", [(6, 3, 2, 1), (1,), (5, 8, 4, 2), (12, 6, 3), (40,)])
@pytest.mark.parametrize(
    ("dtype", "layout", "batch", "channels"),
    [
        (torch.float32, "NCHW", 1, 256),
        (torch.float32, "strided", 3, 37),
        (torch.float16, "channels_last", 3, 64),
        (torch.bfloat16, "NCHW", 1, 100),
        (torch.float64, "NCHW", 3, 5),
    ],
)
def test_a_gpu_gives_what_the_cpu_gives(
    dtype: torch.dtype,
    layout: str,
    batch: int,
    channels: int,
    levels: tuple[int, ...],
    mode: Mode,
) -> None:
    maps, regions = _maps(batch, channels, dtype, layout), _regions(batch)
    here = maps.cuda()
    there = [r.cuda() for r in regions]
    rest = (levels, mode)
    expected = region_pyramid_pool(maps, regions, *rest)
    _same(region_pyramid_pool(here, there, *rest), expected, mode)
    _same(region_pyramid_pool(here, regions, *rest), expected, mode)
    _same(region_pyramid_pool(here, [r.int() for r in there], *rest), expected, mode)
    _same(spatial_pyramid_pool(here, *rest), spatial_pyramid_pool(maps, *rest), mode)
    several = [maps[0], maps[-1, :, :3, 1:], maps[0, :, 5:6, 7:8]]
    given = [m.cuda() for m in several]
    _same(spatial_pyramid_pool(given, *rest), spatial_pyramid_pool(several, *rest), mode)


@needs_gpu
@pytest.mark.parametrize("mode", ["max", "mean"])
@pytest.mark.parametrize("levels", [(6, 3, 2, 1), (8, 2), (12, 6, 3)])
@pytest.mark.parametrize(
    ("dtype", "layout", "batch", "channels"),
    [
        (torch.float32, "NCHW", 1, 256),
        (torch.float32, "strided", 3, 37),
        (torch.bfloat16, "channels_last", 3, 64),
    ],
)
def test_gradients_on_a_gpu(
    dtype: torch.dtype, layout: str, batch: int, channels: int, levels: tuple[int, ...], mode: Mode
) -> None:
    maps, regions = _maps(batch, channels, dtype, layout).nan_to_num(7, neginf=-9), _regions(batch)
    ours, theirs = maps.clone().requires_grad_(), maps.cuda().requires_grad_()

    def check(pool: Callable[[torch.Tensor, list[torch.Tensor]], torch.Tensor]) -> None:
        rows, again = pool(ours, regions), pool(theirs, [r.cuda() for r in regions])
        grad = torch.randint(-2, 3, rows.shape, generator=torch.Generator().manual_seed(5)).to(dtype)
        given: list[torch.Tensor] = []
        for _ in range(2):
            ours.grad = theirs.grad = None
            rows.backward(grad, retain_graph=True)
            again.backward(grad.cuda(), retain_graph=True)
            assert theirs.grad is not None
            given.append(theirs.grad)
        assert torch.equal(*given)
        assert ours.grad is not None
        step = 8 * torch.finfo(dtype).eps
        largest = float(ours.grad.abs().max())
        torch.testing.assert_close(given[0].cpu(), ours.grad, rtol=step, atol=step * largest)

    check(lambda leaf, boxes: region_pyramid_pool(leaf, boxes, levels, mode))
    check(lambda leaf, boxes: spatial_pyramid_pool(leaf, levels, mode))
    check(lambda leaf, boxes: spatial_pyramid_pool([leaf[0], leaf[-1, :, 2:9]], levels, mode))


@needs_gpu
def test_regions_outside_are_named_on_a_gpu() -> None:
    maps, regions = _maps(3, 8, torch.float32, "NCHW").cuda(), [r.cuda() for r in _regions(3)]
    regions[2] = regions[2].clone()
    regions[2][7, 2] = 31
    with pytest.raises(ValueError, match=r"regions\[2\]\[7\]"):
        region_pyramid_pool(maps, regions)
    with pytest.raises(ValueError, match=r"regions\[2\]\[7\]"):
        region_pyramid_pool(maps, [r.cpu() for r in regions])
    regions[2][7] = torch.tensor([2**40, -(2**40), -5, 2**33])
    with pytest.raises(ValueError, match=r"regions\[2\]\[7\]"):
        region_pyramid_pool(maps, regions)


@needs_gpu
def test_a_captured_graph_pools_anew() -> None:
    maps, regions = _maps(1, 32, torch.float32, "NCHW").nan_to_num(7).cuda(), _regions(1)[0].cuda()
    region_pyramid_pool(maps, [regions])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        rows, whole = region_pyramid_pool(maps, [regions]), spatial_pyramid_pool(maps)
    for _ in range(3):
        maps += torch.randn_like(maps)
        regions[:] = random_regions(300, 21, 30, int(maps[0, 0, 0, 0].abs() * 1000)).cuda()
        graph.replay()
        assert torch.equal(rows, region_pyramid_pool(maps, [regions]))
        assert torch.equal(whole, spatial_pyramid_pool(maps))


@needs_gpu
def test_scores_on_a_gpu() -> None:
    maps, regions = _maps(3, 32, torch.float32, "NCHW").nan_to_num(7, neginf=-9), _regions(3)
    weight, bias = torch.randn(20, 32 * 14) / 100, torch.randn(20)
    expected = region_pyramid_scores(maps, regions, weight, bias, (3, 2, 1))
    there = [r.cuda() for r in regions]
    got = region_pyramid_scores(maps.cuda(), there, weight.cuda(), bias.cuda(), (3, 2, 1))
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-4, atol=1e-4)


@needs_gpu
def test_more_boxes_than_a_grid_has_rows() -> None:
    maps = torch.randn(1, 3, 5, 5)
    regions = random_regions(70_000, 5, 5)
    rows = region_pyramid_pool(maps.cuda(), [regions.cuda()], (2, 1))
    assert torch.equal(rows.cpu(), region_pyramid_pool(maps, [regions], (2, 1)))
