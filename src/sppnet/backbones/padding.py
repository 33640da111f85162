"""Convolutions whose padding depends on the size of their input, with a constant padding instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

Pair = tuple[int, int]


def constant_padding(trunk: nn.Module, image: Tensor, *, shift: bool = True) -> nn.Module:
    """Replace timm's ``Conv2dSame`` by convolutions with a constant padding.

    If the sides of an input are multiples of the stride, its padding is the same for all sizes: in a network
    whose inputs have such sides at every convolution, no padding depends on the size.

    Args:
        trunk: a network; it is changed. Convolutions with an input of other sides remain.
        image: an input whose sides are as required.
        shift: shift the kernels of depthwise convolutions instead of copying their input into a padded one,
            which is faster on CPUs; GPUs have kernels for sides of 3 and 5 only.

    Returns:
        The network.
    """
    found = {
        name: cast("nn.Conv2d", module)
        for name, module in trunk.named_modules()
        if type(module).__name__ == "Conv2dSame"
    }
    uneven: set[str] = set()

    def check(name: str, conv: nn.Conv2d) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            sides = given[0].shape[2:]
            if any(side % step for side, step in zip(sides, conv.stride, strict=True)):
                uneven.add(name)

        return note

    hooks = [conv.register_forward_pre_hook(check(name, conv)) for name, conv in found.items()]
    try:
        with torch.no_grad():
            trunk(image)
    finally:
        for hook in hooks:
            hook.remove()
    for name in found.keys() - uneven:
        trunk.set_submodule(name, _padded(found[name], shift=shift))
    return trunk


def _padded(conv: nn.Conv2d, *, shift: bool) -> nn.Module:
    """Return a convolution with the padding that sides of a multiple of the stride have."""
    kernel, stride, dilation = (cast("Pair", v) for v in (conv.kernel_size, conv.stride, conv.dilation))
    totals = [max(0, (k - 1) * d + 1 - s) for k, s, d in zip(kernel, stride, dilation, strict=True)]
    (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in totals)
    # One more weight of 0 before the others shifts a kernel by one cell.
    shifted = shift and conv.groups > 1 and dilation == (1, 1)
    before = (bottom - top, right - left) if shifted else (0, 0)
    plain = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        (kernel[0] + before[0], kernel[1] + before[1]),
        stride,
        (bottom, right) if shifted else 0,
        dilation,
        conv.groups,
        bias=conv.bias is not None,
    ).requires_grad_(False)
    plain.weight.copy_(pad(conv.weight, (before[1], 0, before[0], 0)))
    if plain.bias is not None and conv.bias is not None:
        plain.bias.copy_(conv.bias)
    plain = plain.to(conv.weight.device, conv.weight.dtype).requires_grad_(conv.weight.requires_grad)
    return plain if shifted else nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), plain)
