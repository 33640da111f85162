"""What threads are told of a call to a kernel, and the way into its machine code.

A *task* is a row of int64 that all threads of a call share; its words are numbered below. A thread enters
with nothing but the address of the task: the interpreter takes no part until all of them are back.

A *unit* is the work on one block of one map with a run of its boxes, int64 ``[4]``: map, first channel,
first box, the one past the last. Every kernel does the units ``first`` to ``last`` of a task
(`sppnet.ops._tasks`) in memory of its own, ``scratch``, so that threads share nothing but what they read.
``kinds`` are scalars whose types say what is computed with. ``shape`` is int64 ``[10]``:

====  ==========================================================================================
0, 1  channels, bins
2, 3  how many doublings of rows and of columns the tables hold: 1, 1 for no more than the block
4     across, in bytes, or 0 where four places cover every bin
5     whether to stream the output past the caches
6     whether output rows run bin by bin, ``[bins, C]``, and not in the public order
7     how many boxes are scored together
8     bytes from a row of gradients to the next, 0 where all are one
9     how many blocks of a map may be written together
====  ==========================================================================================
"""

# What is here is run by numba's compiler, whose types basedpyright cannot follow.
# pyright: basic

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cached_property
from hashlib import sha256
from importlib.resources import files
from types import CellType, FunctionType
from typing import Any

import numba
from numba import types

from sppnet.ops._parts import in_one_chunk, part, part_giving
from sppnet.ops._simd import least, take, word

# Counted up by the threads: the next unit to do, the next thread's seat. Then how many units there are and
# are taken at a time, the address of the first seat's memory, and the bytes of each.
NEXT, SEAT, COUNT, RUN, SCRATCH, SCRATCH_BYTES = range(6)
# Addresses of the tables of `sppnet.ops._tiles`, how many levels, the address of ``shape``, how many NaNs of
# either sign the type has.
MAPS, BOXES, UNITS, LEVELS, DEPTH, SHAPE, TURN = range(6, 13)
# Addresses: of the rows, their gradients or sums; of the table of the maps' gradients; of the maxima's
# places; of the weights; and how many times 4 classes these are for. Then whether a kernel found what it
# cannot do; how many lines of the next unit's memory to ask for at each bin that is made from cells; and
# whether the pyramid is 3, 2, 1 and four places cover every bin.
ROWS, GRADIENTS, PLACES, WEIGHTS, FOURS, ODD, LINES, COARSE = range(13, 21)
WORDS = 21


@part_giving(types.UniTuple(types.int64, 6))
def tables(task):
    """The addresses of maps, boxes, units and levels, how many levels, and the address of ``shape``."""
    known = word(task, MAPS), word(task, BOXES), word(task, UNITS), word(task, LEVELS)
    return (*known, word(task, DEPTH), word(task, SHAPE))


@part
def work(kernel, kinds, task):
    """What each thread does: take a run of units, call ``kernel`` on it, and again while there are some."""
    scratch = word(task, SCRATCH) + take(task + 8 * SEAT, 1) * word(task, SCRATCH_BYTES)
    count, run = word(task, COUNT), word(task, RUN)
    first = take(task + 8 * NEXT, run)
    while first < count:
        kernel(kinds, task, scratch, first, least(first + run, count))
        first = take(task + 8 * NEXT, run)


def _hash_of_parts() -> str:
    folder = files("sppnet.ops")
    names = ("simd", "parts", "keys", "shuffles", "dots", "paper", "blocks", "tiles", "tasks")
    return sha256(b"".join(folder.joinpath(f"_{name}.py").read_bytes() for name in names)).hexdigest()


_PARTS = _hash_of_parts()


@in_one_chunk
def _compiled(function: Callable[[int], None]) -> int:
    """The address of machine code of ``function``, kept on disk where numba finds a folder to write to."""
    # Nothing here is for numba to rewrite.
    options: dict[str, Any] = {"error_model": "numpy", "no_rewrites": True}
    # Of what the compiler makes, all is needed to the end: to search it for waste takes a sixth longer.
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
    """A function of a task's address as machine code.

    Numba compiles again when the function's file changes, or what the function encloses: so it is made to
    enclose a hash of the files that hold its parts.
    """

    def __init__(self, function: Callable[[int], None]) -> None:
        code = function.__code__.replace(co_freevars=("parts",))
        self._function = FunctionType(
            code, function.__globals__, function.__name__, None, (CellType(_PARTS),)
        )

    @cached_property
    def address(self) -> int:
        """Where the machine code begins, made when it is first asked for."""
        return _compiled(self._function)
