from __future__ import annotations

import numba
import pytest
from numba import types
from numba.core import config
from numba.core.errors import NumbaError

from sppnet.ops.cpu.jit.inline import in_one_chunk, part, part_giving


@part_giving(types.int64)
def twice(x):
    return x + x


@part_giving(types.UniTuple(types.int64, 2))
def both(x, y):
    return twice(x), twice(y) + twice(x)


@part_giving(types.float64)
def half(x):
    return x / 2


@part
def unknown(x):
    x.nothing()


def test_parts_call_parts_and_take_several_types() -> None:
    @numba.njit
    def all_of_them(x):
        first, second = both(x, 5)
        return first, second, half(x), half(first + 0.5)

    assert all_of_them(3) == (6, 16, 1.5, 3.25)


def test_a_part_is_optimised_with_its_caller() -> None:
    @numba.cfunc("int64(int64)")
    def four_times(x):
        return twice(twice(x)) + twice(x) - twice(x)

    assert four_times.ctypes(10) == 40
    # Taken in by its caller, nothing is left of it.
    lines = four_times.inspect_llvm().splitlines()
    assert not [line for line in lines if "twice" in line and ("define" in line or "call" in line)]


def test_what_cannot_be_compiled_leaves_the_optimiser_as_it_was() -> None:
    before = config.OPT
    with pytest.raises(NumbaError, match="nothing"):
        numba.njit("void(int64)")(lambda x: unknown(x))
    assert before == config.OPT


def test_a_function_in_one_chunk_does_the_same() -> None:
    @in_one_chunk
    def depth(left, step=1):
        return step + depth(left - step) if left else 0

    assert depth(300) == 300
