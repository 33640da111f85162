"""A torch function mode in which the cells of a network are averages of their receptive fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# Functions that do not move values, by their names in torch.
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


class ReceptiveFieldMode(TorchFunctionMode):
    """Replace the operations of a network by averages over the same cells.

    Convolutions and max pooling become averages, normalisations and activations identities, and gates over
    the whole image (squeeze and excite) ones. With equal weights all channels of a map are equal, so one is
    computed and the others are views of it. ``_singles`` stores that channel, so that the next convolution
    does not average over the views.
    """

    def __init__(self) -> None:
        super().__init__()
        self._singles: dict[int, tuple[Tensor, Tensor]] = {}  # by id; the second tensor keeps the id in use

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
        if name == "conv1d":  # used in gates only
            return torch.ones_like(args[0])
        if name in _MAX_POOLS:
            return self._pool(*args, **given)
        if name == "cat":
            return self._join(func, *args, **given)
        if name.removesuffix("_") in _POINTWISE:
            return args[0] if args else given["input"]
        if name in _SUMS:
            return self._sum(args[0], args[1])
        if name in _LENGTHS:  # a statistic of the whole image has no position
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
        """Ignore factors, which do not move cells and would overflow in deep networks."""
        if _is_map(one) and (isinstance(other, float) or _is_factor(other)):
            return one
        if _is_factor(one) and _is_map(other):
            return other
        if _is_map(one) and _is_map(other) and one.shape == other.shape:
            # A map that does not depend on the image is an expanded gate.
            if not (one.requires_grad and other.requires_grad):
                return one if one.requires_grad else other
            return self._sum(one / 2, other / 2)  # the receptive field is the union of both
        return func(one, other)

    def _sum(self, one: Any, other: Any) -> Any:
        """Add out of place, because views of one channel are not writable."""
        if id(one) in self._singles and id(other) in self._singles:
            return self._spread(self._single(one) + self._single(other), one.shape[1])
        return one + other


def _is_map(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.is_floating_point()


def _is_factor(value: Any) -> bool:
    """Return whether a factor is constant over the map: a parameter, or a gate over the whole image."""
    return isinstance(value, nn.Parameter) or (
        isinstance(value, Tensor) and value.ndim == 4 and value.shape[2:].numel() == 1
    )


def _average_linear(x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    shape = (*x.shape[:-1], weight.shape[0])
    if x.shape[1:-1].numel() == 1:  # a gate over the whole image
        return x.new_ones(shape)
    return x.mean(-1, keepdim=True).expand(shape)
