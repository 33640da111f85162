"""The GPU's kernels: their values through Triton's interpreter, and that they compile for GPUs.

Where there is a GPU, they run on it as well.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton")

# The interpreter must be asked for before the kernels are imported.
_INTERPRETED = """
import torch
from sppnet.ops import _gpu, region_pyramid_pool, spatial_pyramid_pool

generator = torch.Generator().manual_seed(1)

def close(got, expected, mode):
    assert got.dtype == expected.dtype and got.shape == expected.shape
    if mode == "max":
        assert torch.equal(got.nan_to_num(7), expected.nan_to_num(7))
        assert torch.equal(got.isnan(), expected.isnan())
    else:
        step = torch.finfo(got.dtype).eps
        torch.testing.assert_close(got, expected, rtol=8 * step, atol=8 * step, equal_nan=True)

for dtype, levels, order in (
    (torch.float32, (6, 3, 2, 1), "channels"),
    (torch.bfloat16, (4, 5, 2), "bins"),
    (torch.float16, (3, 1), "channels"),
):
    maps = torch.randint(-4, 3, (2, 5, 7, 9), generator=generator).to(dtype)
    regions = [torch.tensor([[0, 0, 9, 7], [2, 3, 7, 7]]), torch.tensor([[8, 6, 9, 7]])]
    boxes = _gpu.region_boxes(maps, regions)
    several = [maps[0], maps[1, :, :3, 1:]]
    for mode in ("max", "mean"):
        odd = maps.clone()
        odd[0, 1, 4, 4], odd[0, 2], odd[1, 3] = float("nan"), -float("inf"), -0.0
        rest = (levels, mode, order)
        close(_gpu.pool(odd, boxes, *rest), region_pyramid_pool(odd, regions, *rest), mode)
        close(_gpu.pool(several, None, *rest), spatial_pyramid_pool(several, *rest), mode)

        leaf = maps.clone().requires_grad_()
        rows = region_pyramid_pool(leaf, regions, levels, mode, order)
        grad = torch.randint(-2, 3, rows.shape, generator=generator).to(dtype)
        rows.backward(grad)
        (got,) = _gpu.pool_backward(grad, maps, boxes, levels, mode, order)
        close(got, leaf.grad, mode)
    leaves = [m.detach().clone().requires_grad_() for m in several]
    rows = spatial_pyramid_pool(leaves, levels, "mean", order)
    grad = torch.randint(-2, 3, rows.shape, generator=generator).to(dtype)
    rows.backward(grad)
    for got, leaf in zip(_gpu.pool_backward(grad, several, None, levels, "mean", order), leaves, strict=True):
        close(got, leaf.grad, "mean")

maps = torch.randn(1, 2, 4, 4, generator=generator)
grad = torch.ones(1, 2)
grad[0, 1] = float("inf")
(got,) = _gpu.pool_backward(grad, maps, None, (1,), "max", "channels")
assert got[0, 0].sum() == 1 and got[0, 0].count_nonzero() == 1 and got[0, 1].isnan().all()
wild = torch.tensor([[0, 4, 4, -5, 2, 99, -7]])
assert _gpu.pool(maps, (wild, torch.zeros(1, dtype=torch.int64)), (2,), "max", "channels").isfinite().all()
"""


def test_values_and_gradients_through_the_interpreter() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-W", "ignore", "-c", _INTERPRETED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(("capability", "kind"), [(80, "*fp32"), (90, "*bf16")])
def test_every_kernel_compiles_for_nvidia(capability: int, kind: str) -> None:
    # Without a GPU too: Triton brings all it needs down to the machine code.
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from sppnet.ops import _triton

    constants = {"LEVEL": 3, "SIDE": 4, "BLOCK": 32, "BY_BIN": False, "DERIVED": (1, 1, 9), "COUNT": 1}
    types = {"boxes": "*i64", "owners": "*i64", "sums": "*i64", "odd": "*i8", "scale": "*fp64"}
    for kernel in (
        _triton._max_kernel,
        _triton._mean_kernel,
        _triton._max_gradient_kernel,
        _triton._mean_gradient_kernel,
    ):
        used = {name: value for name, value in constants.items() if name in kernel.arg_names}
        types_here = {"cells": kind, "grad": kind, "out": kind, **types}
        signature = {name: types_here.get(name, "i32") for name in kernel.arg_names}
        signature |= dict.fromkeys(used, "constexpr")
        source = ASTSource(fn=kernel, signature=signature, constexprs=used)
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert made.asm["cubin"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", ["max", "mean"])
def test_a_gpu_gives_what_the_cpu_gives(dtype: torch.dtype, mode: str) -> None:
    from sppnet.ops import region_pyramid_pool

    maps = torch.randn(2, 37, 21, 30).to(dtype)
    regions = [torch.tensor([[0, 0, 30, 21], [2, 3, 7, 8], [4, 4, 5, 5]]), torch.tensor([[1, 0, 9, 21]])]
    ours, theirs = maps.clone().requires_grad_(), maps.cuda().requires_grad_()
    rows = region_pyramid_pool(ours, regions, mode=mode)
    again = region_pyramid_pool(theirs, [r.cuda() for r in regions], mode=mode)
    rows.sum().backward()
    again.sum().backward()
    tolerance = 0.0 if mode == "max" else 2e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(again.cpu(), rows, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(theirs.grad.cpu(), ours.grad, rtol=2e-2, atol=2e-2)
    with pytest.raises(ValueError, match=r"regions\[1\]\[0\]"):
        region_pyramid_pool(theirs, [regions[0].cuda(), regions[1].cuda() + 40], mode=mode)
