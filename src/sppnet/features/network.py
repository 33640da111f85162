"""Where a network computes, and how a run keeps it."""

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
    """The device of a name.

    Args:
        name: ``"auto"`` (CUDA where there is one, otherwise the CPU), ``"cpu"``, ``"cuda"``, ``"mps"``, or
            one of torch's, such as ``"cuda:1"``.

    Raises:
        UserError: an unknown name, or a device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError("device", "auto, cpu, cuda or mps", repr(name)) from None
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device.type not in there:
        raise UserError("device", "auto, cpu, cuda or mps", repr(name))
    if not there[device.type]:
        raise UserError("device", f"a machine with {device.type}", "none", "Use auto or cpu.")
    return device


def backbone_tensors(backbone: Backbone) -> dict[str, Tensor]:
    """A backbone's weights under the names that a run keeps them by."""
    return {_PREFIX + name: value for name, value in backbone.state_dict().items()}


def restore_backbone(spec: dict[str, Any], tensors: Mapping[str, Tensor], folder: Path) -> Backbone:
    """The backbone that a run describes, with the weights among its tensors.

    Raises:
        UserError: the description or the weights are damaged; it names the run's folder.
    """
    backbone = backbone_from_spec(spec)
    state = {name.removeprefix(_PREFIX): t for name, t in tensors.items() if name.startswith(_PREFIX)}
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(folder, f"the weights of {backbone.name}", str(error), "Fit again.") from error
    return backbone
