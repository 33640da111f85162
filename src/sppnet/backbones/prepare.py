"""A copy of a backbone that is laid out for speed and no longer meant to be trained or saved."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sppnet.backbones.base import Backbone
from sppnet.errors import UserError

Precision = Literal["auto", "float32", "bfloat16"]

_PROBE_SIDE = 96
_ROUNDING = 1e-3


def prepare(
    backbone: Backbone, device: torch.device | str = "cpu", precision: Precision = "auto"
) -> Backbone:
    """A frozen copy for a device: channels last, batch normalisations inside their convolutions.

    Save the original, whose parameters have the names that ``spec`` rebuilds.

    Args:
        backbone: left as it is.
        device: where the copy lies.
        precision: ``"bfloat16"`` halves the time where the processor multiplies matrices of it (AMX) and
            lengthens it elsewhere, at about 1.5% of relative error in the maps; ``"auto"`` takes it only
            there and ``"float32"`` on everything else.

    Raises:
        UserError: an unknown precision.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise UserError("precision", "auto, float32 or bfloat16", repr(precision))
    ours = copy.deepcopy(backbone).to("cpu", torch.float32).eval().requires_grad_(False)
    ours.trunk = _folded(ours)
    place = torch.device(device)
    ours = ours.to(place).to(memory_format=torch.channels_last)
    if precision == "bfloat16" or (precision == "auto" and place.type == "cpu" and _multiplies_bfloat16()):
        ours.trunk.to(torch.bfloat16)  # mean and std stay float32: images are normalised exactly
    return ours


def _multiplies_bfloat16() -> bool:
    """Whether the CPU has matrix units for bfloat16; vector instructions alone gain nothing."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def _folded(backbone: Backbone) -> nn.Module:
    """The trunk with every normalisation that follows a convolution directly folded into it.

    What follows what is seen in a run, not read from the code; where a convolution's output is used
    elsewhere too, folding would change the result, so the result is compared and dropped if it differs.
    """
    trunk = copy.deepcopy(backbone.trunk).eval()
    random = torch.Generator().manual_seed(0)
    side = max(_PROBE_SIDE, backbone.minimum.height, backbone.minimum.width)
    image = torch.randn(1, 3, side, side, generator=random)
    with torch.inference_mode():
        for conv_name, norm_name in _pairs(trunk, image):
            conv, norm = trunk.get_submodule(conv_name), trunk.get_submodule(norm_name)
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            trunk.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
            trunk.set_submodule(norm_name, _rest(norm))
        same = all(
            bool((a - b).norm() <= _ROUNDING * b.norm())
            for a, b in zip(trunk(image), backbone.trunk(image), strict=True)
        )
    return trunk if same else backbone.trunk


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """What a normalisation does beside normalising: timm's carry their activation."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()


def _pairs(trunk: nn.Module, image: Tensor) -> list[tuple[str, str]]:
    """Names of plain convolutions and of the batch normalisations that take their outputs."""
    made: dict[int, str] = {}
    alive: list[Tensor] = []  # so that no two tensors of the run share an id
    pairs: list[tuple[str, str]] = []

    def note_convolution(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            made[id(out)] = name
            alive.append(out)

        return note

    def note_norm(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            if id(given[0]) in made:
                pairs.append((made[id(given[0])], name))

        return note

    hooks = [
        module.register_forward_hook(note_convolution(name))
        if type(module) is nn.Conv2d
        else module.register_forward_pre_hook(note_norm(name))
        for name, module in trunk.named_modules()
        if type(module) is nn.Conv2d or isinstance(module, nn.BatchNorm2d)
    ]
    try:
        trunk(image)
    finally:
        for hook in hooks:
            hook.remove()
    once = {name for name in (p[0] for p in pairs) if sum(p[0] == name for p in pairs) == 1}
    return [p for p in pairs if p[0] in once]
