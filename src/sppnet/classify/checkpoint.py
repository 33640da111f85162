"""Checkpoints of training, one safetensors file each: tensors, and the rest as JSON in the header."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sppnet.classify.samples import Sample
from sppnet.classify.train_options import Plateau
from sppnet.errors import UserError
from sppnet.files import write_tensors

NAME = "checkpoint.safetensors"
_MODEL, _MOMENTUM, _STATE, _TRAINING = "model.", "momentum.", "state", "training"


@dataclass
class Position:
    """The state of a training run, except for its tensors.

    Random numbers are drawn from the seed again for every step and image, so that the state has no generator.

    Attributes:
        epoch: number of finished epochs.
        step: number of finished steps of the next epoch.
        loss: sum of the losses of the images of these steps.
        wrong: number of these images that were classified wrongly.
        seen: number of these images.
        seconds: training time so far.
        kept: the epoch of the saved weights; 0 before the first epoch has ended.
        plateau: the state of the learning rate schedule.
        scaler: the state of the loss scaler of fp16.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    wrong: int = 0
    seen: int = 0
    seconds: float = 0.0
    kept: int = 0
    plateau: Plateau = field(default_factory=Plateau)
    scaler: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """The identity of a training run, which can be resumed only by an equal one.

    Attributes:
        config: the classifier's parameters that training depends on.
        names: class names.
        data: `data_digest` of the images.
    """

    config: dict[str, object]
    names: tuple[str, ...]
    data: str

    def digest(self) -> str:
        """Return a checksum of all attributes."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def check_same(self, other: Training, path: Path) -> None:
        """Raise `UserError` for the first difference to another training.

        Args:
            other: the requested training.
            path: the checkpoint of this training, for messages.
        """
        hint = "Use the options and data of the checkpoint, or train without resume."
        own, others = _flat(self.config), _flat(other.config)
        for name in sorted(own.keys() | others.keys()):
            if own.get(name) != others.get(name):
                raise UserError(path, f"{name} {own.get(name)}, as in the checkpoint", others.get(name), hint)
        if self.names != other.names:
            raise UserError(path, f"the classes {', '.join(self.names)}", ", ".join(other.names), hint)
        if self.data != other.data:
            raise UserError(path, "the images and labels of the checkpoint", "other images or labels", hint)


def data_digest(root: str | os.PathLike[str], *splits: Sequence[Sample]) -> str:
    """Return a checksum of file names (relative to ``root``), file sizes, labels and boxes.

    Args:
        root: the folder of the data set.
        splits: the samples of each split.

    Raises:
        UserError: an image does not exist.
    """
    digest = hashlib.sha256()
    for split in splits:
        digest.update(b"part")
        for sample in split:
            try:
                size = sample.path.stat().st_size
            except OSError as error:
                raise UserError(sample.path, "an image", error.strerror or error) from error
            name = os.path.relpath(sample.path, root).replace(os.sep, "/")
            digest.update(repr((name, size, sample.label, sample.box)).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def write_checkpoint(
    path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, position: Position, training: Training
) -> None:
    """Write a checkpoint atomically.

    Args:
        path: the file.
        network: its weights are saved.
        optimiser: its momentum is saved.
        position: the state of the training run.
        training: the identity of the training run.

    Raises:
        UserError: the file cannot be written.
    """
    tensors = {_MODEL + name: value for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        momentum = optimiser.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[_MOMENTUM + name] = momentum
    header = {_STATE: json.dumps(asdict(position)), _TRAINING: json.dumps(asdict(training))}
    write_tensors(path, tensors, header, durable=True)


def read_training(path: Path) -> Training:
    """Read the identity of the training run that wrote a checkpoint.

    Raises:
        UserError: the checkpoint is missing or damaged.
    """
    header, _ = _read(path, tensors=False)
    return Training(header[1]["config"], tuple(header[1]["names"]), header[1]["data"])


def read_checkpoint(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> Position:
    """Restore a network and an optimiser from a checkpoint.

    Returns:
        The state of the training run.

    Raises:
        UserError: the checkpoint is missing, damaged or of another network.
    """
    (header, _), tensors = _read(path, tensors=True)
    parameters = dict(network.named_parameters())
    expected = {_MODEL + name: value for name, value in network.state_dict().items()}
    given = {name: value for name, value in tensors.items() if name.startswith(_MODEL)}
    momenta = {n.removeprefix(_MOMENTUM): t for n, t in tensors.items() if n.startswith(_MOMENTUM)}
    try:
        values: dict[str, Any] = {**header, "plateau": Plateau(**header["plateau"])}
        position = Position(**values)
        matches = given.keys() == expected.keys() and momenta.keys() <= parameters.keys()
        matches = matches and all(value.shape == expected[name].shape for name, value in given.items())
        matches = matches and all(value.shape == parameters[name].shape for name, value in momenta.items())
    except (KeyError, TypeError) as error:
        raise UserError(path, "a complete checkpoint", f"a checkpoint without {error}") from error
    if not matches:
        raise UserError(path, "the tensors of this network", "other tensors", "Train without resume.")
    network.load_state_dict({name.removeprefix(_MODEL): value for name, value in given.items()})
    for name, momentum in momenta.items():
        optimiser.state[parameters[name]]["momentum_buffer"] = momentum.to(parameters[name].device)
    return position


def _read(path: Path, *, tensors: bool) -> tuple[tuple[dict[str, Any], dict[str, Any]], dict[str, Tensor]]:
    """Read position and training from the header and, if ``tensors``, the tensors."""
    if not path.is_file():
        raise UserError(path, "the checkpoint of a run", "no such file", "Train without resume.")
    try:
        with safe_open(path, "pt") as file:
            header = cast("Mapping[str, str]", file.metadata() or {})
            state, training = json.loads(header[_STATE]), json.loads(header[_TRAINING])
            values = {name: file.get_tensor(name) for name in sorted(file.keys())} if tensors else {}
        if not isinstance(state, dict) or not {"config", "names", "data"} <= set(training):
            raise ValueError("a header without position or training")
    except KeyError as error:
        hint = "It was written by an earlier version: train without resume."
        raise UserError(path, "a complete checkpoint", f"a checkpoint without {error}", hint) from error
    except (OSError, SafetensorError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        raise UserError(path, "a complete checkpoint", str(error), "Train without resume.") from error
    return (cast("dict[str, Any]", state), cast("dict[str, Any]", training)), values


def _flat(config: Mapping[str, object]) -> dict[str, object]:
    """Return options by name, with ``table.option`` for those of nested tables."""
    values: dict[str, object] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            options = _flat(cast("dict[str, object]", value))
            values |= {f"{name}.{option}": content for option, content in options.items()}
        else:
            values[name] = value
    return values
