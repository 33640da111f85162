"""Compilation of Python functions to machine code whose argument is the address of an args struct."""

# This code is compiled by numba, whose types basedpyright cannot infer.
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
    """Read the addresses of maps, boxes, units and levels, and the number of levels."""
    known = word(args, MAPS), word(args, BOXES), word(args, UNITS)
    return (*known, word(args, LEVELS), word(args, LEVEL_COUNT))


@part
def work(kernel, kinds, args):
    """Fetch runs of units and call ``kernel`` on each until there are no more.

    ``kernel`` is called as ``kernel(kinds, args, scratch, first, last)`` for the units ``first`` to ``last``.
    ``kinds`` are scalars whose types select the types of the computation; ``scratch`` is memory of this
    thread, so that threads share only memory that they read.
    """
    scratch = word(args, SCRATCH) + take(args + 8 * NEXT_THREAD, 1) * word(args, SCRATCH_BYTES)
    count, run = word(args, UNIT_COUNT), word(args, UNIT_RUN)
    first = take(args + 8 * NEXT_UNIT, run)
    while first < count:
        kernel(kinds, args, scratch, first, least(first + run, count))
        first = take(args + 8 * NEXT_UNIT, run)


@cache
def _source_hash() -> str:
    """Hash all files of `sppnet.ops.cpu`, so that changes invalidate cached machine code."""
    folder = Path(__file__).parents[1]
    stamp = sha256()
    for file in sorted(folder.rglob("*.py")):
        stamp.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return stamp.hexdigest()


@in_one_chunk
def _compiled(function: Callable[[int], None]) -> int:
    """Return the address of the machine code of ``function``, cached on disk if a folder is writable."""
    # The rewriting passes of numba are disabled, because they do not apply to this code.
    options: dict[str, Any] = {"error_model": "numpy", "no_rewrites": True}
    # The compiler needs all its objects until the end; garbage collection would take a sixth longer.
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
    """An entry point: machine code of a function of the address of an args struct.

    Numba recompiles if the file of the function or its closure changes. The closure includes a hash of all
    source files of the package, which define the parts that it calls.
    """

    def __init__(self, function: Callable[[int], None]) -> None:
        self._source = function

    @cached_property
    def address(self) -> int:
        """Address of the machine code; compiled on first access."""
        function = self._source
        code = function.__code__.replace(co_freevars=("sources",))
        cell = (CellType(_source_hash()),)
        return _compiled(FunctionType(code, function.__globals__, function.__name__, None, cell))
