"""From a Python function to machine code that threads enter with the address of an args struct."""

# What is here is run by numba's compiler, whose types basedpyright cannot follow.
# pyright: basic

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from types import CellType, FunctionType
from typing import Any

import numba
from numba import types

from sppnet.ops.cpu.args import (
    BOXES,
    LEVEL_COUNT,
    LEVELS,
    MAPS,
    NEXT_THREAD,
    NEXT_UNIT,
    SCRATCH,
    SCRATCH_BYTES,
    UNIT_COUNT,
    UNIT_RUN,
    UNITS,
)
from sppnet.ops.cpu.jit.inline import in_one_chunk, part, part_giving
from sppnet.ops.cpu.jit.simd import least, take, word


@part_giving(types.UniTuple(types.int64, 5))
def tables(args):
    """The addresses of maps, boxes, units and levels, and the number of levels."""
    known = word(args, MAPS), word(args, BOXES), word(args, UNITS)
    return (*known, word(args, LEVELS), word(args, LEVEL_COUNT))


@part
def work(kernel, kinds, args):
    """Take a run of units, call ``kernel`` on it, and repeat until none is left.

    ``kernel`` is called as ``kernel(kinds, args, scratch, first, last)`` for the units ``first`` to ``last``.
    ``kinds`` are scalars whose types select the types of the computation; ``scratch`` is memory of this
    thread alone, so that threads share nothing but what they read.
    """
    scratch = word(args, SCRATCH) + take(args + 8 * NEXT_THREAD, 1) * word(args, SCRATCH_BYTES)
    count, run = word(args, UNIT_COUNT), word(args, UNIT_RUN)
    first = take(args + 8 * NEXT_UNIT, run)
    while first < count:
        kernel(kinds, args, scratch, first, least(first + run, count))
        first = take(args + 8 * NEXT_UNIT, run)


@cache
def _source_hash() -> str:
    """A hash of all files of `sppnet.ops.cpu`: machine code on disk is stale when one of them changes."""
    folder = Path(__file__).parents[1]
    stamp = sha256()
    for file in sorted(folder.rglob("*.py")):
        stamp.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return stamp.hexdigest()


@in_one_chunk
def _compiled(function: Callable[[int], None]) -> int:
    """The address of the machine code of ``function``, cached on disk where numba finds a writable folder."""
    # The code has nothing that numba's rewriting passes look for.
    options: dict[str, Any] = {"error_model": "numpy", "no_rewrites": True}
    # The compiler needs all its objects to the end: searching them for garbage takes a sixth longer.
    collects = gc.isenabled()
    gc.disable()
    try:
        compiled = numba.cfunc("void(int64)", cache=True, **options)(function)
    except RuntimeError:
        compiled = numba.cfunc("void(int64)", **options)(function)
    finally:
        if collects:
            gc.enable()
    assert compiled.address is not None
    return compiled.address


class Entry:
    """An entry point: a function of the address of an args struct, as machine code.

    Numba compiles again when the function's own file changes, or the values that the function encloses. It is
    made to enclose a hash of the source files of the package, which hold the parts that it calls.
    """

    def __init__(self, function: Callable[[int], None]) -> None:
        self._source = function

    @cached_property
    def address(self) -> int:
        """Where the machine code begins; compiled on first access."""
        function = self._source
        code = function.__code__.replace(co_freevars=("sources",))
        cell = (CellType(_source_hash()),)
        return _compiled(FunctionType(code, function.__globals__, function.__name__, None, cell))
