"""Read weights from safetensors files, local or downloaded. Pickles are never read."""

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
    """Return the safetensors file of a path, which may also be a run folder."""
    return path / _TENSORS if path.is_dir() else path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file, or of a run folder, floating ones as float32.

    Raises:
        UserError: no such file, another kind of file, or a damaged one.
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
            "Convert it once, where you trust it: safetensors.torch.save_file(torch.load(FILE, "
            "weights_only=True), 'weights.safetensors')",
        )
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(path, "a whole .safetensors file", str(error)) from error
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def read_normalisation(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation of the images that weights were trained on, where their file says so.

    The ``model.safetensors`` of a run of ``sppnet train classify`` does: a network that started with
    ``--start he`` is worth nothing under the normalisation that its architecture has by default.

    Raises:
        UserError: values that no normalisation has.
    """
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = set(file.keys())
        if not {"backbone.mean", "backbone.std"} <= names:
            return None
        mean, std = (file.get_tensor(name).flatten().tolist() for name in ("backbone.mean", "backbone.std"))
    if not len(mean) == len(std) == 3 or not all(1e-6 < value < 1e6 for value in std):
        raise UserError(path, "a mean and a deviation above 0 of three colours", f"{mean} and {std}")
    return tuple(mean), tuple(std)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a network's weights; of a run of this package, those of its backbone under their own names.

    Args:
        path: a safetensors file with a library's parameter names, or the ``model.safetensors`` of a run.

    Raises:
        UserError: no such file, another kind of file, or a damaged one.
    """
    return trunk_tensors(read_tensors(path))


def trunk_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the backbone in a run, under the names of the library; others unchanged."""
    if not any(name.startswith(_TRUNK) for name in tensors):
        return dict(tensors)
    # Wrappers of other libraries' networks hold them as "net".
    return {
        name.removeprefix(_TRUNK).removeprefix("net."): value
        for name, value in tensors.items()
        if name.startswith(_TRUNK)
    }


@dataclass(frozen=True)
class FcWeights:
    """Two fully connected layers in front of a classifier, as a pretrained network has them.

    Attributes:
        path: the file.
        tensors: ``fc6.weight``, ``fc6.bias``, ``fc7.weight`` and ``fc7.bias``.
        levels: the pyramid that the first layer was trained on, ``(6,)`` for a last pool to 6x6 bins; None
            where the file does not say.
    """

    path: Path
    tensors: dict[str, Tensor]
    levels: tuple[int, ...] | None

    @property
    def widths(self) -> tuple[int, int]:
        """Units of fc6 and of fc7."""
        return len(self.tensors["fc6.bias"]), len(self.tensors["fc7.bias"])


def read_fc_weights(path: Path, *, required: bool = True) -> FcWeights | None:
    """Read fc6 and fc7 of a file, named ``fc6.weight`` or, in a run, ``head.fc6.weight``.

    Args:
        path: a safetensors file or a run folder.
        required: raise where the file has no such layers; otherwise return None.

    Raises:
        UserError: no such file, a damaged one, or layers of impossible shapes.
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
        wanted = "fc6 and fc7 of a network with two fully connected layers before its classifier"
        raise UserError(file, wanted, f"a file without {missing[0]} (it has {some}, ...)")
    tensors = {name: given[name] for name in names}
    shapes = [list(tensors[name].shape) for name in names]
    (one, one_bias, two, two_bias) = shapes
    if [len(shape) for shape in shapes] != [2, 1, 2, 1] or (
        one[0] != one_bias[0] or two[0] != two_bias[0] or two[1] != one[0]
    ):
        raise UserError(file, "fc6 and fc7 whose shapes fit together", " ".join(map(str, shapes)))
    return FcWeights(file, tensors, _trained_levels(file))


def _trained_levels(file: Path) -> tuple[int, ...] | None:
    """Return the pyramid in the config of the run that a file belongs to."""
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
    """How a run describes its backbone.

    Attributes:
        name: as `sppnet.backbones.load_backbone` takes it.
        layers: names of its maps.
        mean: what was subtracted from images in 0..1, per channel.
        std: what they were divided by.
    """

    name: str
    layers: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def run_backbone(path: Path) -> RunBackbone | None:
    """Return the backbone of the run that a weights file belongs to; None for a file that is not in a run.

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
    """Return the name of a parameter in a file: timm's feature networks join two levels into one."""
    if name in given:
        return name
    bare = name.removeprefix("model.")
    return bare if bare in given else re.sub(r"_(\d+)(?=\.)", r".\1", bare, count=1)


def fill(net: nn.Module, given: dict[str, Tensor], where: object) -> None:
    """Copy weights into a network; tensors that the network lacks, such as a classifier's, are ignored.

    Args:
        net: filled in place.
        given: tensors under the names that torchvision or timm uses.
        where: the file, for messages.

    Raises:
        UserError: a tensor that the network needs is missing or of another shape; names the first.
    """
    state = net.state_dict()
    found: dict[str, Tensor] = {}
    for name, old in state.items():
        theirs = _given_name(name, given)
        if theirs not in given:
            if name.endswith("num_batches_tracked"):
                continue
            kept = ", ".join(list(given)[:3])
            raise UserError(
                where, f"the tensor {name} {list(old.shape)}", f"a file without it (it has {kept}, ...)"
            )
        if given[theirs].shape != old.shape:
            raise UserError(where, f"{name} of shape {list(old.shape)}", f"shape {list(given[theirs].shape)}")
        found[name] = given[theirs].to(old.dtype)
    with torch.no_grad():
        for name, old in state.items():
            if name in found:
                old.copy_(found[name])


def download(repository: str, name: str) -> Path:
    """Return the ``model.safetensors`` of a Hugging Face repository, from the local cache if it is there.

    Raises:
        UserError: no connection, or no such file.
    """
    import huggingface_hub as hub

    kept = hub.try_to_load_from_cache(repository, "model.safetensors")
    if isinstance(kept, str):
        return Path(kept)
    try:
        # Ask for the metadata first: without a connection the download itself retries for half a minute.
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, "model.safetensors"), timeout=10)
        return Path(hub.hf_hub_download(repository, "model.safetensors"))
    except Exception as error:  # the HTTP client's own classes, which change between versions
        first_line = (str(error).strip().splitlines() or [""])[0]
        got = f"{type(error).__name__} ({first_line})"
        hint = "Pass local weights with --weights FILE.safetensors, or take --backbone builtin"
        raise UserError(name, f"its weights from huggingface.co/{repository}", got, hint) from error
