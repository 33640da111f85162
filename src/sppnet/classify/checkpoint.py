"""Where a training run stands, in one safetensors file: tensors, and the rest as JSON in its header."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sppnet.classify.train_options import Plateau
from sppnet.errors import UserError

NAME = "checkpoint.safetensors"
_MODEL, _MOMENTUM, _STATE = "model.", "momentum.", "state"


@dataclass
class Position:
    """Where a run stands, beside its tensors.

    What is random in training is drawn anew for every step and image from the seed, so no generator's
    state belongs to it.

    Attributes:
        epoch: epochs that are done.
        step: steps of the next epoch that are done.
        loss: sum of the losses of these steps' images.
        wrong: how many of them were taken for another class.
        seen: how many they were.
        seconds: spent so far.
        plateau: what decides about the learning rate.
        scaler: of fp16's losses.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    wrong: int = 0
    seen: int = 0
    seconds: float = 0.0
    plateau: Plateau = field(default_factory=Plateau)
    scaler: dict[str, Any] = field(default_factory=dict)


def write_checkpoint(
    path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, position: Position
) -> None:
    """Write the file beside its place and rename it: there is always a whole one."""
    tensors = {_MODEL + name: value for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        momentum = optimiser.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[_MOMENTUM + name] = momentum
    write_tensors(path, tensors, {_STATE: json.dumps(asdict(position))})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], said: dict[str, str] | None = None) -> None:
    """A safetensors file, written beside its place and renamed."""
    part = path.with_name(path.name + ".part")
    part.touch()
    mode = part.stat().st_mode
    save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, part, said)
    part.chmod(mode)
    os.replace(part, path)


def read_checkpoint(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> Position:
    """Put network and optimiser back where `write_checkpoint` found them.

    Raises:
        UserError: no checkpoint, a damaged one, or one of another network.
    """
    if not path.is_file():
        raise UserError(path, "the checkpoint of a run", "no such file", "Train without resume.")
    try:
        with safe_open(path, "pt") as file:
            said = json.loads((file.metadata() or {})[_STATE])
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        said["plateau"] = Plateau(**said["plateau"])
        position = Position(**said)
        network.load_state_dict(
            {n.removeprefix(_MODEL): t for n, t in tensors.items() if n.startswith(_MODEL)}
        )
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(path, "a whole checkpoint of this network", str(error)) from error
    for name, parameter in network.named_parameters():
        momentum = tensors.get(_MOMENTUM + name)
        if momentum is not None:
            optimiser.state[parameter]["momentum_buffer"] = momentum.to(parameter.device)
    return position
