"""What a finished stage made, kept on disk under everything that it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sppnet.backbones import Backbone
from sppnet.files import make_folder, write_tensors

_VERSION = 2
"""Of what the stages compute; goes up when the same settings give other tensors."""


def key_of(*parts: object) -> str:
    """A digest of values that JSON can hold, the same in every process."""
    text = json.dumps([_VERSION, *parts], sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def file_key(path: Path) -> str:
    """A digest of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:40]


def tensors_key(tensors: Mapping[str, Tensor]) -> str:
    """A digest of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:40]


def network_key(network: Backbone) -> str:
    """A digest of a network: its description, its weights and the type that it computes in."""
    return key_of(network.spec(), str(network.precision), tensors_key(network.state_dict()))


class StageCache:
    """Tensors by stage and key, a file each; the key stands for everything that they were made from.

    A file is written beside its place and renamed, so one that is there is whole; one that cannot be
    read, or that says another key, is made anew.

    Args:
        folder: made when something is kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.made = 0
        self.found = 0

    def get(self, stage: str, key: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """What ``make`` makes, or what it made when it was asked for the same key before.

        Raises:
            UserError: a folder that cannot be written.
        """
        if self.folder is None:
            return dict(make())
        path = self.folder / stage / f"{key}.safetensors"
        kept = self._read(path, key)
        if kept is not None:
            self.found += 1
            return kept
        tensors = {name: t.detach().cpu().contiguous().clone() for name, t in make().items()}
        self.made += 1
        make_folder(path.parent)
        write_tensors(path, tensors, {"key": key})
        return tensors

    def has(self, stage: str, key: str) -> bool:
        """Whether something was kept; it may still turn out to be damaged."""
        return self.folder is not None and (self.folder / stage / f"{key}.safetensors").exists()

    def bytes(self, stage: str) -> int:
        """Of all files of a stage."""
        if self.folder is None or not (self.folder / stage).is_dir():
            return 0
        return sum(path.stat().st_size for path in (self.folder / stage).glob("*.safetensors"))

    @staticmethod
    def _read(path: Path, key: str) -> dict[str, Tensor] | None:
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as stream:
                if (stream.metadata() or {}).get("key") != key:
                    return None
                return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return None
