"""Prepare a copy of a backbone for fast inference."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sppnet.backbones.base import Backbone
from sppnet.backbones.padding import constant_padding
from sppnet.backbones.timm_nets import TimmTrunk
from sppnet.errors import UserError

Precision = Literal["auto", "float32", "bfloat16"]

_PROBE_SIDE = 96
_ROUNDING = 1e-3


def prepare(
    backbone: Backbone, device: torch.device | str = "cpu", precision: Precision = "auto"
) -> Backbone:
    """Copy a backbone to a device, channels last, with batch normalisation folded into convolutions.

    Save the original, not the copy: ``spec`` describes the parameter names of the original. The copy is
    frozen, but its parameters are ordinary tensors, so gradients flow through it to its input.

    Args:
        backbone: not modified.
        device: device of the copy.
        precision: ``"bfloat16"`` halves the time on processors with matrix units for it (AMX) and is slower
            elsewhere, with a relative error of about 1.5% in the maps; ``"auto"`` selects it only on such
            processors and ``"float32"`` otherwise.

    Returns:
        The frozen copy, in evaluation mode.

    Raises:
        UserError: an unknown precision.

    Examples:
        >>> import torch
        >>> from sppnet.backbones import load_backbone, prepare
        >>> network = prepare(load_backbone("random:builtin"), precision="float32")
        >>> [tuple(maps.shape) for maps in network(torch.rand(1, 3, 64, 96))]
        [(1, 48, 8, 12), (1, 120, 4, 6), (1, 352, 2, 3)]
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise UserError("precision", "auto, float32 or bfloat16", repr(precision))
    target = torch.device(device)
    # Tensors created in inference mode cannot be used in autograd later, so the inference mode of a caller is
    # left.
    with torch.inference_mode(False), torch.no_grad():
        ours = copy.deepcopy(backbone).to("cpu", torch.float32).eval().requires_grad_(False)
        if isinstance(ours.trunk, TimmTrunk):
            ours.trunk.drop_unused()
        if ours.multiple > 1:
            ours.trunk = constant_padding(ours.trunk, _probe(ours), shift=target.type == "cpu")
        ours.trunk = _folded(ours)
        ours = ours.to(target)
        if not any(map(_corrupts_memory, ours.trunk.modules())):
            ours = ours.to(memory_format=torch.channels_last)
        if precision == "bfloat16" or (
            precision == "auto" and target.type == "cpu" and _multiplies_bfloat16()
        ):
            ours.trunk.to(torch.bfloat16)  # mean and std stay float32: images are normalised exactly
    return ours


def _corrupts_memory(module: nn.Module) -> bool:
    """Return whether the gradient of a convolution writes beyond its memory in channels_last on the CPU.

    Seen with torch 2.14 for strided 1x1 convolutions of 3 to 15 channels, as at the input of RepVGG; not with
    1 or 24 channels, groups, other kernels, or without stride.
    """
    if not isinstance(module, nn.Conv2d) or module.kernel_size != (1, 1) or max(module.stride) == 1:
        return False
    return 1 < module.in_channels // module.groups < 16


def _multiplies_bfloat16() -> bool:
    """Return whether the CPU has matrix units for bfloat16; vector instructions alone are not faster."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def _folded(backbone: Backbone) -> nn.Module:
    """Fold every batch normalisation that directly follows a convolution into that convolution.

    The order of layers is observed in a forward pass. A convolution whose output is also used elsewhere must
    not be folded, so the folded trunk is compared with the original and dropped if the maps differ.
    """
    trunk = copy.deepcopy(backbone.trunk).eval()
    image = _probe(backbone)
    for conv_name, norm_name in _pairs(trunk, image):
        conv, norm = trunk.get_submodule(conv_name), trunk.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        trunk.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
        trunk.set_submodule(norm_name, _activation(norm))
    same = all(
        bool((a - b).norm() <= _ROUNDING * b.norm())
        for a, b in zip(trunk(image), backbone.trunk(image), strict=True)
    )
    return trunk.requires_grad_(False) if same else backbone.trunk


def _probe(backbone: Backbone) -> Tensor:
    """Return a random image that the network accepts; its sides are odd multiples of the required divisor.

    Sides that no other images have, such as halves of odd ones, are seen with it.
    """
    side = max(_PROBE_SIDE, backbone.minimum.height, backbone.minimum.width)
    side = (-(-side // backbone.multiple) | 1) * backbone.multiple
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))


def _activation(norm: nn.BatchNorm2d) -> nn.Module:
    """Return the activation that timm's normalisation layers contain, or the identity."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()


def _is_plain(module: nn.Module) -> bool:
    """Return whether a module convolves with its weight; timm's Conv2dSame only pads before it."""
    return type(module) is nn.Conv2d or type(module).__name__ == "Conv2dSame"


def _pairs(trunk: nn.Module, image: Tensor) -> list[tuple[str, str]]:
    """Return names of plain convolutions with the batch normalisation that takes their output.

    Modules that a forward pass uses more than once are left out.
    """
    outputs: dict[int, str] = {}
    alive: list[Tensor] = []  # keeps the tensors' ids unique during the pass
    pairs: list[tuple[str, str]] = []

    def note_convolution(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            outputs[id(out)] = name
            alive.append(out)

        return note

    def note_norm(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            assert isinstance(module, nn.BatchNorm2d)
            if id(given[0]) in outputs and module.running_mean is not None:
                pairs.append((outputs[id(given[0])], name))

        return note

    hooks = [
        module.register_forward_hook(note_convolution(name))
        if _is_plain(module)
        else module.register_forward_pre_hook(note_norm(name))
        for name, module in trunk.named_modules()
        if _is_plain(module) or isinstance(module, nn.BatchNorm2d)
    ]
    try:
        trunk(image)
    finally:
        for hook in hooks:
            hook.remove()
    uses = Counter(name for pair in pairs for name in pair)
    return [pair for pair in pairs if uses[pair[0]] == uses[pair[1]] == 1]
