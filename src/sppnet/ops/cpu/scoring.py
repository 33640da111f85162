"""Linear scores of max pooled regions whose features are not stored."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sppnet.ops.cpu import args
from sppnet.ops.cpu.edges import WIDTH, Integers
from sppnet.ops.cpu.kernels import scores as score_kernels
from sppnet.ops.cpu.launch import NANS, run_kernel
from sppnet.ops.cpu.plan import Boxes, Plan, near_order, region_plan, starts_of, weight_blocks

_GROUPS = 8
"""Maximum number of groups of channels whose scores are summed separately."""

_COARSE = (3, 2, 1)
"""The pyramid with specialised code for scores."""

_SCORES = {
    torch.float16: score_kernels.scores_half,
    torch.bfloat16: score_kernels.scores_16,
    torch.float32: score_kernels.scores_32,
}


def score(maps: Tensor, boxes: Boxes, weight: Tensor, levels: Sequence[int]) -> Tensor | None:
    """Compute products ``[N, K]`` of max pooled features and ``weight`` ``[K, C * bins]``; None for a NaN."""
    order = near_order(boxes)
    plan = region_plan(maps, boxes[order], levels, "max")
    channels, classes = maps.shape[1], weight.shape[0]
    lanes = WIDTH // maps.element_size()
    weights = weight_blocks(weight, channels, levels, lanes)
    fours, blocks, parts = weights.shape[1], weights.shape[0], lanes // 16
    # Sums of groups of blocks are added in a fixed order, so that the result does not depend on threads.
    groups = max(1, min(_GROUPS, blocks, channels * plan.bins // (16 * classes)))
    counts, starts = np.array(plan.counts), starts_of(plan.counts)
    slots = np.concatenate([[0], np.cumsum(-(-counts // 4) * 4)])
    sums = torch.empty(groups, int(slots[-1]) // 4, fours, 4, 4, dtype=torch.float32, device="cpu")
    together = max(4, min(32, (16 << 10) // (plan.bins * parts * WIDTH) // 4 * 4))
    units = _score_units(plan, slots, groups, blocks, lanes)
    fields = {
        args.CHANNELS: channels,
        args.BOX_RUN: together,
        args.WEIGHTS: weights.data_ptr(),
        args.CLASS_FOURS: fours,
        args.ROWS: sums.data_ptr(),
        args.NAN_COUNT: NANS[maps.dtype],
        args.IS_COARSE: plan.across == 0 and tuple(levels) == _COARSE,
    }
    scratch = plan.bins * WIDTH * (1 + together * parts) + plan.table_bytes
    if not run_kernel(_SCORES[maps.dtype], plan, units, scratch, channels * maps.element_size(), fields):
        return None
    # In numpy, because threads of torch would spin for a while on the cores of the kernels.
    total = sums.numpy().sum(0).transpose(0, 2, 1, 3).reshape(-1, fours * 4)[:, :classes]
    scores = np.empty((len(plan.boxes), classes), np.float32)
    for rows, count, slot in zip(np.split(order, starts[1:-1]), counts, slots, strict=False):
        scores[rows] = total[slot : slot + count]
    return torch.from_numpy(scores)


def _score_units(plan: Plan, slots: Integers, groups: int, blocks: int, lanes: int) -> Integers:
    """Create the units of scoring: groups of blocks with runs of boxes in fours."""
    starts = starts_of(plan.counts).tolist()
    least = 2 * torch.get_num_threads()
    runs = max(1, min(-(-least // (groups * len(plan.counts))), max(plan.counts) // 128))
    units: list[list[int]] = []
    for group in range(groups):
        head, tail = (blocks * group // groups) * lanes, (blocks * (group + 1) // groups) * lanes
        for one, count in enumerate(plan.counts):
            cuts = [min(count, -(-count * i // runs // 4) * 4) for i in range(runs + 1)]
            for a, b in pairwise(cuts):
                target = (int(slots[one]) + a + group * int(slots[-1])) // 4
                if b > a:
                    units.append([one, head, tail, starts[one] + a, starts[one] + b, target])
    return np.array(units, np.int64).reshape(-1, args.SCORE_FIELDS)
