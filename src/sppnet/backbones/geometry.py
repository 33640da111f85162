"""Measurement of a network's output: grids, channels and minimum input size.

Grids are measured with `ReceptiveFieldMode`: a cell is the average of its receptive field, so that the
centroid of its gradient is the centre of the field. This requires no table of kernels, paddings and ceil
modes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sppnet.backbones.receptive_fields import ReceptiveFieldMode
from sppnet.errors import UserError
from sppnet.structures import Grid, ImageSize

_CENTRAL_CELLS = 2
_TOLERANCE = 0.25
_BORDER = 0.02
SHORT = 64
"""Pixels of the side that is not measured, unless the minimum of a network is larger."""
_LONGEST = 4096
"""Maximum pixels of the measured side; longer images reduce the influence of borders."""
# Errors that networks raise for unsupported image sizes.
_REFUSALS = (RuntimeError, ValueError, AssertionError, IndexError, TypeError)
_ANY_SIZE = "a network that accepts images of any size and returns maps [B, C, h, w]"
_HINT = "Choose a convolutional network, such as a resnet or convnext."


def _centre(cell: Tensor, image: Tensor, axis: int) -> float:
    """Compute the centroid of the receptive field of ``cell`` along ``axis``, in continuous pixels."""
    (gradient,) = torch.autograd.grad(cell, image, retain_graph=True)
    weight = gradient.abs().sum(dim=[d for d in range(4) if d != axis])
    positions = torch.arange(len(weight), dtype=weight.dtype, device=weight.device) + 0.5
    return float((weight * positions).sum() / weight.sum())


def _axis_grid(line: Tensor, image: Tensor, axis: int, where: str) -> Grid:
    middle = len(line) // 2
    cells = range(max(middle - _CENTRAL_CELLS, 0), min(middle + _CENTRAL_CELLS, len(line) - 1) + 1)
    if len(cells) < 2:
        raise UserError(where, "a layer with several cells on a large image", f"{len(line)} cells")
    centres = [_centre(line[i], image, axis) for i in (cells[0], cells[-1])]
    measured = (centres[1] - centres[0]) / (cells[-1] - cells[0])
    if not measured > 0.5:
        raise UserError(where, "cells on a regular grid", f"centres at {centres} pixels")
    # In very deep networks, the borders influence the central cells and shift their centroids slightly.
    stride = float(round(measured)) if abs(measured - round(measured)) < _BORDER * measured else measured
    first = sum(c - i * stride for c, i in zip(centres, (cells[0], cells[-1]), strict=True)) / 2
    half = round(2 * first) / 2
    return Grid(stride, half if abs(first - half) < _BORDER else round(first, 4))


def _axis_grids(trunk: nn.Module, axis: int, long: int, short: int, where: str) -> list[Grid]:
    shape = [1, 3, short, short]
    shape[axis] = long
    device = next(trunk.parameters()).device
    with torch.inference_mode(False), torch.enable_grad():
        image = torch.ones(shape, dtype=torch.float64, device=device, requires_grad=True)
        try:
            with ReceptiveFieldMode():
                maps = trunk(image)
        except (*_REFUSALS, AttributeError) as error:
            got = f"an error with replaced operations: {_first_line(error)}"
            raise UserError(where, "a network whose cells can be located", got, _HINT) from error
        return [_axis_grid(m[0].mean(0).mean(3 - axis), image, axis, where) for m in maps]


def measure_grids(
    trunk: nn.Module, where: str, long: int = 512, short: int = SHORT
) -> tuple[tuple[Grid, ...], int]:
    """Measure the grid of every map of ``trunk``.

    In deep networks, borders influence cells far inside the image, so the image is enlarged until the
    measurement does not change.

    Args:
        trunk: module that maps normalised images ``[B, 3, H, W]`` to a tuple of maps; its weights have no
            effect.
        where: name of the network, for error messages.
        long: initial pixels of the measured side; a power of two.
        short: pixels of the other side, at least the minimum of the network.

    Returns:
        The grids, and the required divisor of the sides of an input: 1, or the largest stride if padding
        depends on the size of the input (TensorFlow's "same").

    Raises:
        UserError: a grid is not regular, depends on the size of the image or differs between the axes, or
            the trunk fails with replaced operations.
    """
    last: tuple[list[Grid], int] | None = None
    while True:
        try:
            found = _measure(trunk, where, long, short)
        except UserError:
            if 2 * long > _LONGEST:
                raise
            found = None  # a longer image has more cells, some without influence of the borders
        if last and found and last[1] == found[1] and _agree(last[0], found[0]):
            return tuple(found[0]), found[1]
        if 2 * long > _LONGEST:
            got = f"different grids for {long // 2} and {long} pixels"
            raise UserError(where, "cells on a regular grid", got, _HINT)
        last, long = found, 2 * long


def _measure(trunk: nn.Module, where: str, long: int, short: int) -> tuple[list[Grid], int]:
    """Measure grids and divisor with an image of one size."""
    rows = _axis_grids(trunk, 2, long, short, where)
    if _agree(rows, _axis_grids(trunk, 3, long - 1, short, where)):
        return rows, 1
    columns = _axis_grids(trunk, 3, long, short, where)
    if not _agree(rows, columns):
        raise UserError(where, "equal grids along both axes", f"{rows} vertically and {columns} horizontally")
    return rows, round(max(grid.stride for grid in rows))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _agree(ours: list[Grid], theirs: list[Grid]) -> bool:
    return all(
        a.stride == b.stride and abs(a.first - b.first) < _TOLERANCE
        for a, b in zip(ours, theirs, strict=True)
    )


def run_zeros(trunk: nn.Module, size: ImageSize) -> tuple[Tensor, ...]:
    """Compute the maps of a zero image, without gradients."""
    weight = next(trunk.parameters())
    image = torch.zeros(1, 3, size.height, size.width, dtype=weight.dtype, device=weight.device)
    # Not inference mode, because networks may store tensors of the first pass that training uses later.
    with torch.no_grad():
        return tuple(trunk(image))


def try_size(trunk: nn.Module, size: ImageSize, where: str) -> tuple[Tensor, ...]:
    """Compute the maps of a zero image of a size that the network may not support.

    Raises:
        UserError: the network fails; the message includes the reason.
    """
    try:
        return run_zeros(trunk, size)
    except _REFUSALS as error:
        got = f"an error at {size.height} x {size.width}: {_first_line(error)}"
        raise UserError(where, _ANY_SIZE, got, _HINT) from error


def count_channels(trunk: nn.Module, where: str, patch: int = 0) -> list[int]:
    """Return the number of channels of each map, measured at two sizes of the image.

    Args:
        trunk: module that maps normalised images ``[B, 3, H, W]`` to a tuple of maps.
        where: name of the network, for error messages.
        patch: required divisor of the sides of an input; 0 for none.

    Raises:
        UserError: the network fails, or its outputs are not maps ``[B, C, h, w]`` that grow with the image.
    """
    if patch:
        sizes = (ImageSize(3 * patch, 5 * patch), ImageSize(7 * patch, 4 * patch))
    else:
        # Without common factors with each other or any stride.
        sizes = (ImageSize(97, 131), ImageSize(161, 115))
    tried = " and ".join(f"{size.height} x {size.width}" for size in sizes)
    shapes = [[list(m.shape) for m in try_size(trunk, size, where)] for size in sizes]
    for wide, high in zip(*shapes, strict=True):
        maps = len(wide) == len(high) == 4 and wide[1] == high[1]
        if not maps or wide[2] > wide[3] or high[2] < high[3] or wide[2] >= high[2]:
            raise UserError(where, _ANY_SIZE, f"shapes {wide} and {high} at {tried}", _HINT)
    return [shape[1] for shape in shapes[0]]


def smallest_side(trunk: nn.Module, largest: int = 128) -> int:
    """Find the smallest side of a square image for which every map has a cell, by bisection.

    Args:
        trunk: module that maps normalised images ``[B, 3, H, W]`` to a tuple of maps.
        largest: a sufficient side.
    """

    def suffices(side: int) -> bool:
        try:
            return all(0 not in m.shape for m in run_zeros(trunk, ImageSize(side, side)))
        except _REFUSALS:  # torch raises one for a kernel larger than its input
            return False

    low, high = 0, largest
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high
