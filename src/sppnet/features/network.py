"""The device of a network, and its weights in saved runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sppnet.backbones import Backbone, backbone_from_spec
from sppnet.errors import UserError

_PREFIX = "backbone."


def pick_device(name: str) -> torch.device:
    """Return the device with a name.

    Args:
        name: ``"auto"`` (CUDA if available, otherwise the CPU), ``"cpu"``, ``"cuda"``, ``"mps"``, or a device
            of torch, such as ``"cuda:1"``.

    Raises:
        UserError: the name is unknown, or the device is not available.

    Examples:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError("device", "auto, cpu, cuda or mps", repr(name)) from None
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device.type not in available:
        raise UserError("device", "auto, cpu, cuda or mps", repr(name))
    if not available[device.type]:
        raise UserError("device", f"a machine with {device.type}", "none", "Use auto or cpu.")
    return device


def backbone_tensors(backbone: Backbone) -> dict[str, Tensor]:
    """Return the weights of a backbone under their names in saved runs."""
    return {_PREFIX + name: value for name, value in backbone.state_dict().items()}


def restore_backbone(spec: dict[str, Any], tensors: Mapping[str, Tensor], folder: Path) -> Backbone:
    """Restore the backbone of a saved run.

    Args:
        spec: the description of the backbone.
        tensors: the tensors of the run, among them the weights.
        folder: the folder of the run, for error messages.

    Raises:
        UserError: the description or the weights are damaged.
    """
    backbone = backbone_from_spec(spec)
    state = {name.removeprefix(_PREFIX): t for name, t in tensors.items() if name.startswith(_PREFIX)}
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(folder, f"the weights of {backbone.name}", str(error), "Fit again.") from error
    return backbone
