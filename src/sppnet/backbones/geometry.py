"""Where a network's cells lie on its input, found by measuring.

The network is run with every operation replaced by its shape: convolutions and max pools become plain
averages over the same windows, normalisations and activations do nothing, gates over the whole image
(squeeze and excite) are held at one. What a cell then averages is its receptive field, and the centroid
of its gradient is the field's centre. No table of kernels, paddings or ceil modes is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from sppnet.errors import UserError
from sppnet.structures import Grid, ImageSize

# Functions that leave every value where it is, by the names that torch gives them.
_NORMALISATIONS = {
    "batch_norm",
    "layer_norm",
    "group_norm",
    "instance_norm",
    "rms_norm",
    "local_response_norm",
}
_ACTIVATIONS = {
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "celu",
    "gelu",
    "silu",
    "mish",
    "prelu",
    "softplus",
}
_SQUASHES = {"hardswish", "hardtanh", "hardsigmoid", "sigmoid", "tanh", "clamp"}
_POWERS = {"pow", "square", "__pow__"}
_DROPOUTS = {"dropout", "feature_dropout", "alpha_dropout"}
_POINTWISE = _NORMALISATIONS | _ACTIVATIONS | _SQUASHES | _DROPOUTS | _POWERS
_MAX_POOLS = {"max_pool2d", "_max_pool2d"}
_PRODUCTS = {"mul", "mul_", "__mul__", "__rmul__", "__imul__"}
_SUMS = {"add", "add_", "__add__", "__radd__", "__iadd__"}
_LENGTHS = {"norm", "vector_norm", "linalg_vector_norm"}
_CENTRAL_CELLS = 2
_TOLERANCE = 0.25
_BORDER = 0.02
SHORT = 64
"""Pixels of the side that is not measured along, unless a network needs more."""
_LONGEST = 4096
"""Pixels beyond which no image is made to get away from a network's borders."""
# What networks raise when an image's size does not suit them.
_REFUSALS = (RuntimeError, ValueError, AssertionError, IndexError, TypeError)
_ANY_SIZE = "a network that takes images of any size and gives maps [B, C, h, w]"
_WAY_OUT = "Take a convolutional network, such as a resnet or convnext"


class _Shapes(TorchFunctionMode):
    """Replaces what is computed by where it is computed from.

    With equal weights all channels of a map are the same, so one is computed and the others are views of
    it; ``_singles`` knows that one, so that the next convolution need not average over the copies.
    """

    def __init__(self) -> None:
        super().__init__()
        self._singles: dict[int, tuple[Tensor, Tensor]] = {}  # by id; the second keeps the id taken

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "conv2d":
            return self._convolution(*args, **given)
        if name == "linear":
            return _average_linear(*args, **given)
        if name == "conv1d":  # only gates are convolved along one axis
            return torch.ones_like(args[0])
        if name in _MAX_POOLS:
            return self._pool(*args, **given)
        if name == "cat":
            return self._join(func, *args, **given)
        if name.removesuffix("_") in _POINTWISE:
            return args[0] if args else given["input"]
        if name in _SUMS:
            return self._sum(args[0], args[1])
        if name in _LENGTHS:  # a statistic of the whole image has no place
            return func(*args, **given).detach()
        if name in _PRODUCTS:
            return self._product(func, args[0], args[1])
        return func(*args, **given)

    def _single(self, x: Tensor) -> Tensor:
        known = self._singles.get(id(x))
        return x.mean(1, keepdim=True) if known is None else known[0]

    def _spread(self, single: Tensor, channels: int) -> Tensor:
        out = single.expand(-1, channels, -1, -1)
        self._singles[id(out)] = (single, out)
        return out

    def _convolution(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        if x.shape[-2:].numel() == 1:  # a gate over the whole image
            return x.new_ones(x.shape[0], weight.shape[0], 1, 1)
        kernel = x.new_full((1, 1, *weight.shape[2:]), 1.0 / weight[0, 0].numel())
        out = functional.conv2d(self._single(x), kernel, None, stride, padding, dilation)
        return self._spread(out, weight.shape[0])

    def _pool(
        self,
        x: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor:
        out = functional.avg_pool2d(self._single(x), kernel_size, stride or kernel_size, padding, ceil_mode)
        return self._spread(out, x.shape[1])

    def _join(self, func: Callable[..., Any], tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
        if dim != 1 or any(id(t) not in self._singles for t in tensors):
            return func(tensors, dim)
        channels = sum(t.shape[1] for t in tensors)
        weighted = [self._single(t) * (t.shape[1] / channels) for t in tensors]
        return self._spread(torch.stack(weighted).sum(0), channels)

    def _product(self, func: Callable[..., Any], one: Any, other: Any) -> Any:
        """Factors move no cell, and numbers must stay small: a deep network's would pass all bounds."""
        if _is_map(one) and (isinstance(other, float) or _is_factor(other)):
            return one
        if _is_factor(one) and _is_map(other):
            return other
        if _is_map(one) and _is_map(other) and one.shape == other.shape:
            # What depends on no pixel is a gate over the whole image, spread over the map.
            if not (one.requires_grad and other.requires_grad):
                return one if one.requires_grad else other
            return self._sum(one / 2, other / 2)  # a cell sees what both see
        return func(one, other)

    def _sum(self, one: Any, other: Any) -> Any:
        """Never in place: views of one channel cannot be written to."""
        if id(one) in self._singles and id(other) in self._singles:
            return self._spread(self._single(one) + self._single(other), one.shape[1])
        return one + other


def _is_map(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.is_floating_point()


def _is_factor(value: Any) -> bool:
    """Whether a factor is the same everywhere on the map: a parameter, or a gate over the whole image."""
    return isinstance(value, nn.Parameter) or (
        isinstance(value, Tensor) and value.ndim == 4 and value.shape[2:].numel() == 1
    )


def _average_linear(x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    shape = (*x.shape[:-1], weight.shape[0])
    if x.shape[1:-1].numel() == 1:  # a gate over the whole image
        return x.new_ones(shape)
    return x.mean(-1, keepdim=True).expand(shape)


def _centre(cell: Tensor, image: Tensor, axis: int) -> float:
    """The centroid of what ``cell`` depends on, along ``axis``, in continuous pixels."""
    (gradient,) = torch.autograd.grad(cell, image, retain_graph=True)
    weight = gradient.abs().sum(dim=[d for d in range(4) if d != axis])
    places = torch.arange(len(weight), dtype=weight.dtype, device=weight.device) + 0.5
    return float((weight * places).sum() / weight.sum())


def _axis_grid(line: Tensor, image: Tensor, axis: int, where: str) -> Grid:
    middle = len(line) // 2
    cells = range(max(middle - _CENTRAL_CELLS, 0), min(middle + _CENTRAL_CELLS, len(line) - 1) + 1)
    if len(cells) < 2:
        raise UserError(where, "a layer with several cells on a large image", f"{len(line)} cells")
    centres = [_centre(line[i], image, axis) for i in (cells[0], cells[-1])]
    measured = (centres[1] - centres[0]) / (cells[-1] - cells[0])
    if not measured > 0.5:
        raise UserError(where, "cells on a regular grid", f"centres at {centres} pixels")
    # Borders reach the middle of a very deep network, and shift its centroids a little.
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
            with _Shapes():
                maps = trunk(image)
        except (*_REFUSALS, AttributeError) as error:
            got = f"an error where each operation gives its shape: {_first_line(error)}"
            raise UserError(where, "a network whose cells can be located", got, _WAY_OUT) from error
        return [_axis_grid(m[0].mean(0).mean(3 - axis), image, axis, where) for m in maps]


def measure_grids(
    trunk: nn.Module, where: str, long: int = 512, short: int = SHORT
) -> tuple[tuple[Grid, ...], int]:
    """The grid of every map that ``trunk`` gives.

    Where a network is deep, its borders reach far into the image and shift what is measured: so the image
    grows until it makes no difference.

    Args:
        trunk: normalised ``[B, 3, H, W]`` to a tuple of maps; its weights play no part.
        where: the network's name, for messages.
        long: pixels of the side that is measured along, at first; a power of two.
        short: pixels of the other side, which the trunk must take.

    Returns:
        The grids, and what the sides of an input must be multiples of for them to hold: 1, or the
        largest stride where padding depends on the input's size (TensorFlow's "same").

    Raises:
        UserError: the cells lie on no regular grid, on one that moves with the image's size, or differ
            between the two axes, or the trunk fails where its operations are replaced.
    """
    known: tuple[list[Grid], int] | None = None
    while True:
        try:
            found = _measure(trunk, where, long, short)
        except UserError:
            if 2 * long > _LONGEST:
                raise
            found = None  # a longer image has more cells, and some free of borders
        if known and found and known[1] == found[1] and _agree(known[0], found[0]):
            return tuple(found[0]), found[1]
        if 2 * long > _LONGEST:
            got = f"none that is the same on {long // 2} and {long} pixels"
            raise UserError(where, "cells on a regular grid", got, _WAY_OUT)
        known, long = found, 2 * long


def _measure(trunk: nn.Module, where: str, long: int, short: int) -> tuple[list[Grid], int]:
    """`measure_grids` with an image of one length."""
    rows = _axis_grids(trunk, 2, long, short, where)
    if _agree(rows, _axis_grids(trunk, 3, long - 1, short, where)):
        return rows, 1
    columns = _axis_grids(trunk, 3, long, short, where)
    if not _agree(rows, columns):
        raise UserError(where, "the same grid down and across", f"{rows} down and {columns} across")
    return rows, round(max(grid.stride for grid in rows))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _agree(ours: list[Grid], theirs: list[Grid]) -> bool:
    return all(
        a.stride == b.stride and abs(a.first - b.first) < _TOLERANCE
        for a, b in zip(ours, theirs, strict=True)
    )


def run_zeros(trunk: nn.Module, size: ImageSize) -> tuple[Tensor, ...]:
    """The trunk's maps of one empty image, without gradients."""
    weight = next(trunk.parameters())
    image = torch.zeros(1, 3, size.height, size.width, dtype=weight.dtype, device=weight.device)
    # Not inference mode: a network may keep tensors that it makes in its first pass, and training needs them.
    with torch.no_grad():
        return tuple(trunk(image))


def try_size(trunk: nn.Module, size: ImageSize, where: str) -> tuple[Tensor, ...]:
    """The trunk's maps of one empty image of a size that it may not be made for.

    Raises:
        UserError: the network fails; the message names the network and its own reason.
    """
    try:
        return run_zeros(trunk, size)
    except _REFUSALS as error:
        got = f"an error from it at {size.height} x {size.width}: {_first_line(error)}"
        raise UserError(where, _ANY_SIZE, got, _WAY_OUT) from error


def count_channels(trunk: nn.Module, where: str) -> list[int]:
    """Run the trunk at two odd sizes; the number of channels of each layer's map.

    Raises:
        UserError: the network fails at either, or its maps are not ``[B, C, h, w]`` growing with the image.
    """
    sizes = (ImageSize(97, 131), ImageSize(161, 115))  # no factor in common with each other or any stride
    shapes = [[list(m.shape) for m in try_size(trunk, size, where)] for size in sizes]
    for wide, high in zip(*shapes, strict=True):
        maps = len(wide) == len(high) == 4 and wide[1] == high[1]
        if not maps or wide[2] > wide[3] or high[2] < high[3] or wide[2] >= high[2]:
            raise UserError(where, _ANY_SIZE, f"shapes {wide} and {high} at 97 x 131 and 161 x 115", _WAY_OUT)
    return [shape[1] for shape in shapes[0]]


def smallest_side(trunk: nn.Module, largest: int = 128) -> int:
    """The side of the smallest square that the trunk turns into at least one cell a layer, by bisection.

    Args:
        trunk: normalised ``[B, 3, H, W]`` to a tuple of maps.
        largest: a side that is known to do.
    """

    def takes(side: int) -> bool:
        try:
            return all(0 not in m.shape for m in run_zeros(trunk, ImageSize(side, side)))
        except _REFUSALS:  # what torch raises for a window larger than its input
            return False

    low, high = 0, largest
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if takes(middle) else (middle, high)
    return high
