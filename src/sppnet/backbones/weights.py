"""Weights in safetensors files, local or downloaded; pickles are never read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sppnet.errors import UserError

_TENSORS, _MODEL, _CONFIG = "model.safetensors", "model.json", "config.toml"
_TRUNK, _HEAD = "backbone.trunk.", "head."
_THREE = 3


def weights_file(path: Path) -> Path:
    """Return the safetensors file for a path, which may be a run folder."""
    return path / _TENSORS if path.is_dir() else path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file or a run folder, floating ones as float32.

    Raises:
        UserError: the file does not exist, has another suffix or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = weights_file(path)
    if not path.is_file():
        raise UserError(path, "a .safetensors file", "no such file")
    if path.suffix != ".safetensors":
        raise UserError(
            path,
            "weights in a .safetensors file, which cannot carry code",
            f"a {path.suffix or 'nameless'} file",
            "Convert it once, if you trust it: safetensors.torch.save_file(torch.load(FILE, "
            "weights_only=True), 'weights.safetensors')",
        )
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(path, "a valid .safetensors file", str(error)) from error
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def read_normalisation(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Read mean and standard deviation of the training images, if the file has them.

    The ``model.safetensors`` of a run of ``sppnet train classify`` has them; they may differ from the default
    of the architecture.

    Returns:
        Mean and standard deviation of red, green and blue, or None.

    Raises:
        UserError: the values are invalid.
    """
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = set(file.keys())
        if not {"backbone.mean", "backbone.std"} <= names:
            return None
        mean, std = (file.get_tensor(name).flatten().tolist() for name in ("backbone.mean", "backbone.std"))
    if not len(mean) == len(std) == 3 or not all(1e-6 < value < 1e6 for value in std):
        raise UserError(path, "mean and standard deviation above 0 of three colours", f"{mean} and {std}")
    return tuple(mean), tuple(std)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a network, or of the backbone in a run under the names of its library.

    Args:
        path: a safetensors file with the parameter names of a library, or the ``model.safetensors`` of a run.

    Raises:
        UserError: the file does not exist, has another suffix or is damaged.
    """
    return trunk_tensors(read_tensors(path))


def trunk_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select the tensors of the backbone in a run, with the names of the library; return others unchanged."""
    if not any(name.startswith(_TRUNK) for name in tensors):
        return dict(tensors)
    # Adapters store networks of other libraries as "net".
    return {
        name.removeprefix(_TRUNK).removeprefix("net."): value
        for name, value in tensors.items()
        if name.startswith(_TRUNK)
    }


@dataclass(frozen=True)
class FcWeights:
    """The two fully connected layers of a pretrained network before its classifier.

    Attributes:
        path: the file.
        tensors: ``fc6.weight``, ``fc6.bias``, ``fc7.weight`` and ``fc7.bias``.
        levels: pyramid levels of the input of fc6, ``(6,)`` for pooling to 6x6 bins; None if unknown.
    """

    path: Path
    tensors: dict[str, Tensor]
    levels: tuple[int, ...] | None

    @property
    def widths(self) -> tuple[int, int]:
        """Numbers of units of fc6 and fc7."""
        return len(self.tensors["fc6.bias"]), len(self.tensors["fc7.bias"])


def read_fc_weights(path: Path, *, required: bool = True) -> FcWeights | None:
    """Read fc6 and fc7 of a file, named ``fc6.weight`` or, in a run, ``head.fc6.weight``.

    Args:
        path: a safetensors file or a run folder.
        required: raise if the file has no such layers, instead of returning None.

    Raises:
        UserError: the file does not exist or is damaged, or the shapes do not match.
    """
    file = weights_file(path)
    given = read_tensors(file)
    if f"{_HEAD}fc6.weight" in given and f"{_HEAD}fc8.weight" in given:
        given = {name.removeprefix(_HEAD): value for name, value in given.items() if name.startswith(_HEAD)}
    names = [f"{layer}.{kind}" for layer in ("fc6", "fc7") for kind in ("weight", "bias")]
    missing = [name for name in names if name not in given]
    if missing:
        if not required:
            return None
        some = ", ".join(list(given)[:3])
        expected = "fc6 and fc7 of a network with two fully connected layers before its classifier"
        raise UserError(file, expected, f"a file without {missing[0]} (it has {some}, ...)")
    tensors = {name: given[name] for name in names}
    shapes = [list(tensors[name].shape) for name in names]
    (one, one_bias, two, two_bias) = shapes
    if [len(shape) for shape in shapes] != [2, 1, 2, 1] or (
        one[0] != one_bias[0] or two[0] != two_bias[0] or two[1] != one[0]
    ):
        raise UserError(file, "fc6 and fc7 with matching shapes", " ".join(map(str, shapes)))
    return FcWeights(file, tensors, _trained_levels(file))


def _trained_levels(file: Path) -> tuple[int, ...] | None:
    """Return the pyramid levels in the configuration of the run that a file belongs to."""
    from sppnet.config import read_toml

    config = file.with_name(_CONFIG)
    if file.name != _TENSORS or not config.is_file():
        return None
    network = read_toml(config).get("network", {})
    if not isinstance(network, Mapping):
        return None
    levels = cast("Mapping[str, Any]", network).get("pyramid")
    if levels is None:
        return None
    return tuple(int(n) for n in levels) or (6,)


@dataclass(frozen=True)
class RunBackbone:
    """The backbone of a run.

    Attributes:
        name: name for `sppnet.backbones.load_backbone`.
        layers: names of its layers.
        mean: mean of red, green and blue (0..1).
        std: standard deviation of red, green and blue.
    """

    name: str
    layers: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def run_backbone(path: Path) -> RunBackbone | None:
    """Return the backbone of the run that a weights file belongs to; None for other files.

    Args:
        path: a run folder or its ``model.safetensors``.

    Raises:
        UserError: the description of the run is damaged.
    """
    file = weights_file(path)
    description = file.with_name(_MODEL)
    if file.name != _TENSORS or not description.is_file():
        return None
    try:
        model = json.loads(description.read_text(encoding="utf-8"))
        spec = model["network"]["backbone"] if "network" in model else model["backbone"]
        mean, std = (tuple(float(value) for value in spec[key]) for key in ("mean", "std"))
        layers = tuple(str(layer["name"]) for layer in spec["layers"])
        if not len(mean) == len(std) == _THREE or not all(map(math.isfinite, mean + std)) or 0 in std:
            raise ValueError(f"mean {mean} and std {std}")
        return RunBackbone(str(spec["name"]), layers, mean, std)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(description, "the description of a run with a backbone", repr(error)) from error


def _given_name(name: str, given: dict[str, Tensor]) -> str:
    """Return the name of a parameter in a file; feature networks of timm merge two levels of modules."""
    if name in given:
        return name
    bare = name.removeprefix("model.")
    return bare if bare in given else re.sub(r"_(\d+)(?=\.)", r".\1", bare, count=1)


def fill(net: nn.Module, given: dict[str, Tensor], where: object) -> None:
    """Copy weights into a network, ignoring others, such as those of a classifier.

    Args:
        net: the network, which is modified.
        given: tensors by their names in torchvision or timm.
        where: the file, for error messages.

    Raises:
        UserError: a tensor of the network is missing or has another shape; it names the first one.
    """
    state = net.state_dict()
    found: dict[str, Tensor] = {}
    for name, old in state.items():
        theirs = _given_name(name, given)
        if theirs not in given:
            if name.endswith("num_batches_tracked"):
                continue
            some = ", ".join(list(given)[:3])
            raise UserError(
                where, f"the tensor {name} {list(old.shape)}", f"a file without it (it has {some}, ...)"
            )
        if given[theirs].shape != old.shape:
            raise UserError(where, f"{name} of shape {list(old.shape)}", f"shape {list(given[theirs].shape)}")
        found[name] = given[theirs].to(old.dtype)
    with torch.no_grad():
        for name, old in state.items():
            if name in found:
                old.copy_(found[name])


def download(repository: str, name: str) -> Path:
    """Download the ``model.safetensors`` of a Hugging Face repository, unless it is in the local cache.

    Raises:
        UserError: there is no connection, or the file does not exist.
    """
    import huggingface_hub as hub

    cached = hub.try_to_load_from_cache(repository, "model.safetensors")
    if isinstance(cached, str):
        return Path(cached)
    try:
        # Metadata are requested first, because the download retries for half a minute without a connection.
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, "model.safetensors"), timeout=10)
        return Path(hub.hf_hub_download(repository, "model.safetensors"))
    except Exception as error:  # classes of the HTTP client, which differ between versions
        first_line = (str(error).strip().splitlines() or [""])[0]
        got = f"{type(error).__name__} ({first_line})"
        hint = "Pass local weights with --weights FILE.safetensors, or choose --backbone builtin."
        raise UserError(name, f"its weights from huggingface.co/{repository}", got, hint) from error
