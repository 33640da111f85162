"""Digests of the inputs of cached stages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sppnet.backbones import Backbone

_VERSION = 3
"""Version of the stages; raised when equal settings give other tensors."""


def key_of(*parts: object) -> str:
    """Return a digest of values that JSON can represent, equal in all processes.

    Examples:
        >>> key_of("maps", 1) == key_of("maps", 1), key_of("maps", 1) == key_of("maps", 2)
        (True, False)
    """
    text = json.dumps([_VERSION, *parts], sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:40]


def file_key(path: Path) -> str:
    """Return a digest of the content of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:40]


def tensors_key(tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of names, types, shapes and values.

    Examples:
        >>> tensors_key({"a": torch.zeros(2)}) == tensors_key({"a": torch.zeros(1, 2)})
        False
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:40]


def network_key(network: Backbone) -> str:
    """Return a digest of a network: its description, weights and dtype."""
    return key_of(network.spec(), str(network.precision), tensors_key(network.state_dict()))
