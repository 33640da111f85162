"""Writing the files of a run folder, so that a killed writer leaves a whole run."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import tomli_w

from sppnet._run_reading import CONFIG, MODEL, TENSORS, digest_of, read_model, self_digest, staged_path
from sppnet.errors import UserError
from sppnet.files import is_temporary, remove, rename, write_tensors, write_text
from sppnet.locks import LOCK

if TYPE_CHECKING:
    from torch import Tensor

METRICS, LOG, REPORT = "metrics.json", "log.jsonl", "report.html"
_STAGED = re.compile(r"\.run-(?:new|[0-9a-f]{32})\.(?:safetensors|toml)")
# Temporary names of format 1 and of safetensors, left by killed writers.
_EARLIER = re.compile(
    r"(?:config\.toml|model\.json|model\.safetensors|metrics\.json)\.part|\.tmp[A-Za-z0-9]{6}"
)


def json_text(value: object, indent: int | None = 2) -> str:
    r"""Convert a value to JSON: paths to text, tensors and arrays to lists, non-finite numbers to null.

    Bytes of file names that are not UTF-8 are written as ``\udcXX``.

    Args:
        value: nested mappings, lists and tuples of numbers, texts, paths, arrays and tensors.
        indent: spaces per level; None writes one line.

    Examples:
        >>> json_text({"path": Path("a.jpg"), "score": float("nan")}, indent=None)
        '{"path": "a.jpg", "score": null}'
    """
    text = json.dumps(_jsonable(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode()


def _jsonable(value: object) -> object:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in cast("list[object]", value)]
    listed = getattr(value, "tolist", None)
    assert callable(listed), f"{type(value).__name__} cannot be written as JSON"
    return _jsonable(listed())


def is_left_over(name: str) -> bool:
    """Return whether a file is a lock, a temporary file or a staged file of a writer that has ended."""
    return name == LOCK or is_temporary(name) or bool(_STAGED.fullmatch(name) or _EARLIER.fullmatch(name))


def stage(folder: Path, config: Mapping[str, object], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Write a run's tensors and configuration under their staged names and return the checksums."""
    new = folder / ".run-new.safetensors"
    digest = write_tensors(new, tensors, durable=True)
    rename(new, staged_path(folder, TENSORS, digest))
    text = tomli_w.dumps(config)
    text_digest = hashlib.sha256(text.encode()).hexdigest()
    write_text(staged_path(folder, CONFIG, text_digest), text, durable=True)
    return {TENSORS: digest, CONFIG: text_digest}


def settle(folder: Path) -> None:
    """Finish a write, by this process or by one that was killed; the caller holds the lock.

    Staged files that ``model.json`` names are renamed to their final names. Other staged files and temporary
    files are removed.
    """
    try:
        model = read_model(folder)
    except UserError:
        model = {}
    files = {name: digest_of(model, name) for name in (CONFIG, TENSORS)}
    staged = {name: staged_path(folder, name, digest) for name, digest in files.items() if digest}
    if any(path.exists() for path in staged.values()):
        for name in (METRICS, REPORT) if model.get("keeps_log") is True else (METRICS, REPORT, LOG):
            remove(folder / name)
    for name, path in staged.items():
        if path.exists():
            rename(path, folder / name)
    for entry in sorted(folder.iterdir()):
        if entry.name != LOCK and is_left_over(entry.name) and not entry.is_dir():
            remove(entry)


def write_model(folder: Path, model: Mapping[str, object]) -> None:
    """Write ``model.json`` with its own checksum."""
    text = json_text({**model, "sha256": None})
    described = cast("dict[str, object]", json.loads(text))
    write_text(folder / MODEL, json_text({**described, "sha256": self_digest(described)}), durable=True)
