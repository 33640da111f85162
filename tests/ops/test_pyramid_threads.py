"""Threads change nothing, many may call at once, and a forked child can pool as well."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from oracle import operations
from torch import Tensor

from sppnet.ops import region_pyramid_pool, spatial_pyramid_pool
from sppnet.ops.cpu import args
from sppnet.ops.cpu import threads as cpu_threads
from sppnet.ops.cpu.jit.entry import work
from sppnet.ops.cpu.jit.inline import part
from sppnet.ops.cpu.jit.simd import take, word

ROWS = args.ROWS


def some_work(seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, a gradient and rows of whole maps, large enough to be shared among threads."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 64, 24, 31, generator=generator).to(dtype).requires_grad_()
    x = torch.randint(0, 31, (400, 2), generator=generator).sort(1).values
    y = torch.randint(0, 24, (400, 2), generator=generator).sort(1).values
    boxes = torch.stack([x[:, 0], y[:, 0], x[:, 1] + 1, y[:, 1] + 1], 1)
    rows = region_pyramid_pool(maps, [boxes, boxes[:37]])
    rows.backward(torch.randn(rows.shape, generator=generator).to(dtype))
    assert maps.grad is not None
    return rows.detach(), maps.grad, spatial_pyramid_pool(maps.detach(), mode="mean")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_are_identical_for_any_number_of_threads(dtype: torch.dtype) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = some_work(1, dtype)
        for count in (2, 3, 7):
            torch.set_num_threads(count)
            for got, wanted in zip(some_work(1, dtype), expected, strict=True):
                assert torch.equal(got, wanted)
    finally:
        torch.set_num_threads(threads)


def test_eight_threads_call_at_once() -> None:
    expected = [some_work(seed) for seed in range(4)]
    with ThreadPoolExecutor(8) as pool:
        for seed, got in enumerate(pool.map(some_work, [0, 1, 2, 3] * 6)):
            for a, b in zip(got, expected[seed % 4], strict=True):
                assert torch.equal(a, b)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_pools_after_its_parent_did() -> None:
    code = """
import os, numpy, torch
from sppnet.ops import spatial_pyramid_pool
torch.set_num_threads(2)
maps = torch.randn(64, 64, 30, 30)
expected = spatial_pyramid_pool(maps).numpy()
child = os.fork()
if child == 0:
    # Compared by numpy: torch's own operations wait forever for the threads that the parent had.
    os._exit(0 if numpy.array_equal(spatial_pyramid_pool(maps).numpy(), expected) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_every_unit_is_done_once_whoever_runs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def count_units(kinds, struct, scratch, first, last):
        for unit in range(first, last):
            place = word(struct, ROWS) + 8 * unit
            take(place, kinds[0])

    counted = part(count_units)

    @numba.cfunc("void(int64)")
    def entry(struct):
        work(counted, (np.int64(1),), struct)

    for own_threads in (False, True):
        # With OpenMP's threads where torch has them, and with an executor as after a fork.
        monkeypatch.setattr(cpu_threads._workers, "forked", own_threads)
        for threads in (1, 2, 5):
            done = np.zeros(101, np.int64)
            struct = np.zeros(args.FIELDS, np.int64)
            struct[[args.UNIT_COUNT, args.UNIT_RUN, args.ROWS]] = 101, 4, done.ctypes.data
            cpu_threads.run(entry.address, struct.ctypes.data, threads)
            assert (done == 1).all()
            assert 1 <= struct[args.NEXT_THREAD] <= threads


def test_a_forked_childs_threads_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        expected = some_work(2)
        monkeypatch.setattr(cpu_threads._workers, "forked", True)
        for got, wanted in zip(some_work(2), expected, strict=True):
            assert torch.equal(got, wanted)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(params=["no RTLD_NOLOAD", "another OpenMP library"])
def fallback(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The executor in place of torch's OpenMP threads, as on Windows and macOS, with several threads."""
    if request.param == "no RTLD_NOLOAD":
        monkeypatch.delattr(os, "RTLD_NOLOAD")
    else:
        monkeypatch.setattr(cpu_threads.Path, "glob", lambda self, pattern: iter(()))
    cpu_threads._parallel.cache_clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    assert cpu_threads._parallel() is None
    monkeypatch.undo()
    yield
    cpu_threads._parallel.cache_clear()
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("fallback")
@pytest.mark.parametrize("mode", ["max", "mean"])
def test_the_executor_pools_as_adaptive_pooling_does(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients of whole maps, lists, regions and scores, large enough for several threads."""
    submitted: list[object] = []
    submit = cpu_threads._workers.submit

    def counted(call: Callable[[], object]) -> Future[object]:
        submitted.append(call)
        return submit(call)

    monkeypatch.setattr(cpu_threads._workers, "submit", counted)
    generator = torch.Generator().manual_seed(4)
    maps = torch.randn(2, 64, 40, 52, generator=generator)
    x = torch.randint(0, 52, (150, 2), generator=generator).sort(1).values
    y = torch.randint(0, 40, (150, 2), generator=generator).sort(1).values
    boxes = torch.stack([x[:, 0], y[:, 0], x[:, 1] + 1, y[:, 1] + 1], 1)
    for operation in operations(maps.shape, [boxes, boxes[:31]], (6, 3, 2, 1), mode):
        submitted.clear()
        ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
        got, expected = operation.ours(ours), operation.oracle(theirs)
        torch.testing.assert_close(
            got, expected, rtol=1e-4, atol=1e-3 if operation.name == "scores" else 1e-5
        )
        weights = torch.randn(got.shape, generator=generator)
        got.backward(weights)
        expected.backward(weights)
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-3)
        assert submitted, operation.name


@pytest.mark.exhaustive
def test_a_cache_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    code = """
import torch
from sppnet.ops import spatial_pyramid_pool
assert spatial_pyramid_pool(torch.ones(1, 1, 2, 2)).sum() == 50
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": "/proc/none"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment, cwd=tmp_path)
