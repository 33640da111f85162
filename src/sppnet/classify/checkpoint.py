"""Where a training run stands, in one safetensors file: tensors, and the rest as JSON in its header."""

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
        kept: the epoch whose weights the run keeps; 0 before the first has ended.
        plateau: what decides about the learning rate.
        scaler: of fp16's losses.
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
    """What a training run is: it can be gone on with only if all of this is the same.

    Attributes:
        config: the classifier's parameters, without those that training does not depend on.
        names: class names.
        data: `data_digest` of the images.
    """

    config: dict[str, object]
    names: tuple[str, ...]
    data: str

    def digest(self) -> str:
        """A checksum of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def check_same(self, other: Training, path: Path) -> None:
        """Raise `UserError` for the first thing in which ``other``, which is asked for, differs.

        Args:
            other: what is to be trained now.
            path: the checkpoint of this training, for messages.
        """
        hint = "Use the same as before, or train without resume."
        mine, theirs = _flat(self.config), _flat(other.config)
        for name in sorted(mine.keys() | theirs.keys()):
            if mine.get(name) != theirs.get(name):
                raise UserError(path, f"{name} {mine.get(name)}, as training began", theirs.get(name), hint)
        if self.names != other.names:
            raise UserError(path, f"the classes {', '.join(self.names)}", ", ".join(other.names), hint)
        if self.data != other.data:
            raise UserError(path, "the images and labels that training began with", "others", hint)


def data_digest(root: str | os.PathLike[str], *parts: Sequence[Sample]) -> str:
    """A checksum of file names (relative to ``root``), file sizes, labels and boxes.

    Raises:
        UserError: an image that is not there.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"part")
        for sample in part:
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
    """Write the file beside its place and rename it: there is always a whole one.

    Raises:
        UserError: the file cannot be written.
    """
    tensors = {_MODEL + name: value for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        momentum = optimiser.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[_MOMENTUM + name] = momentum
    said = {_STATE: json.dumps(asdict(position)), _TRAINING: json.dumps(asdict(training))}
    write_tensors(path, tensors, said, durable=True)


def read_training(path: Path) -> Training:
    """What the training was that wrote a checkpoint.

    Raises:
        UserError: no checkpoint, or a damaged one.
    """
    said, _ = _read(path, tensors=False)
    return Training(said[1]["config"], tuple(said[1]["names"]), said[1]["data"])


def read_checkpoint(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> Position:
    """Put network and optimiser back where `write_checkpoint` found them.

    Raises:
        UserError: no checkpoint, a damaged one, or one of another network.
    """
    (said, _), tensors = _read(path, tensors=True)
    parameters = dict(network.named_parameters())
    wanted = {_MODEL + name: value for name, value in network.state_dict().items()}
    given = {name: value for name, value in tensors.items() if name.startswith(_MODEL)}
    momenta = {n.removeprefix(_MOMENTUM): t for n, t in tensors.items() if n.startswith(_MOMENTUM)}
    try:
        values: dict[str, Any] = {**said, "plateau": Plateau(**said["plateau"])}
        position = Position(**values)
        same = given.keys() == wanted.keys() and momenta.keys() <= parameters.keys()
        same = same and all(value.shape == wanted[name].shape for name, value in given.items())
        same = same and all(value.shape == parameters[name].shape for name, value in momenta.items())
    except (KeyError, TypeError) as error:
        raise UserError(path, "a whole checkpoint", f"one without {error}") from error
    if not same:
        raise UserError(path, "the tensors of this network", "others", "Train without resume.")
    network.load_state_dict({name.removeprefix(_MODEL): value for name, value in given.items()})
    for name, momentum in momenta.items():
        optimiser.state[parameters[name]]["momentum_buffer"] = momentum.to(parameters[name].device)
    return position


def _read(path: Path, *, tensors: bool) -> tuple[tuple[dict[str, Any], dict[str, Any]], dict[str, Tensor]]:
    """Position and training from the header, and the tensors where they are wanted."""
    if not path.is_file():
        raise UserError(path, "the checkpoint of a run", "no such file", "Train without resume.")
    try:
        with safe_open(path, "pt") as file:
            said = cast("Mapping[str, str]", file.metadata() or {})
            state, training = json.loads(said[_STATE]), json.loads(said[_TRAINING])
            found = {name: file.get_tensor(name) for name in sorted(file.keys())} if tensors else {}
        if not isinstance(state, dict) or not {"config", "names", "data"} <= set(training):
            raise ValueError("a header without position or training")
    except KeyError as error:
        hint = "It was written by an earlier version: train without resume."
        raise UserError(path, "a whole checkpoint", f"one without {error}", hint) from error
    except (OSError, SafetensorError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        raise UserError(path, "a whole checkpoint", str(error), "Train without resume.") from error
    return (cast("dict[str, Any]", state), cast("dict[str, Any]", training)), found


def _flat(config: Mapping[str, object]) -> dict[str, object]:
    """Options by their names, those of nested tables too."""
    found: dict[str, object] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            inner = _flat(cast("dict[str, object]", value))
            found |= {f"{name}.{below}": content for below, content in inner.items()}
        else:
            found[name] = value
    return found
