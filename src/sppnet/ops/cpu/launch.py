"""Execution of kernels: args struct, scratch memory and threads."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from sppnet.ops.cpu import args
from sppnet.ops.cpu.edges import Integers
from sppnet.ops.cpu.jit.entry import Entry
from sppnet.ops.cpu.plan import Plan
from sppnet.ops.cpu.threads import run

_THREAD_BYTES = 512 << 10
"""Minimum bytes to read and write per thread; fewer take less time than waking a thread."""

NANS = {
    torch.float16: (1 << 10) - 1,
    torch.bfloat16: (1 << 7) - 1,
    torch.float32: (1 << 23) - 1,
}
"""Number of NaNs of either sign of each type."""


def run_kernel(
    entry: Entry, plan: Plan, units: Integers, scratch: int, size: int, fields: Mapping[int, int]
) -> bool:
    """Run a kernel over all units on several threads.

    Args:
        entry: entry point of the kernel.
        plan: tables of the kernel.
        units: table of the units of work.
        scratch: bytes of scratch memory per thread.
        size: bytes of a pooled value of all channels.
        fields: further fields of the args struct, by offset.

    Returns:
        False if the kernel stopped at a NaN that it does not support.
    """
    work = size * (len(plan.boxes) * plan.bins + plan.all_cells)
    threads = min(torch.get_num_threads(), len(units), 1 + work // _THREAD_BYTES)
    memory = torch.empty(threads * scratch, dtype=torch.uint8, device="cpu")
    struct = np.zeros(args.FIELDS, np.int64)
    struct[args.UNIT_COUNT], struct[args.UNIT_RUN] = len(units), max(1, len(units) // (8 * threads))
    struct[args.SCRATCH], struct[args.SCRATCH_BYTES] = memory.data_ptr(), scratch
    struct[args.MAPS], struct[args.BOXES], struct[args.LEVELS] = plan.addresses
    struct[args.LEVEL_COUNT], struct[args.UNITS] = len(plan.levels), units.ctypes.data
    struct[args.BINS], struct[args.ACROSS], struct[args.BLOCK_RUN] = plan.bins, plan.across, 1
    struct[args.ROW_DOUBLINGS], struct[args.COLUMN_DOUBLINGS] = plan.doublings
    for field, value in fields.items():
        struct[field] = value
    run(entry.address, struct.ctypes.data, threads)
    return not struct[args.FOUND_NAN]
