"""Atomic writes: the only module of the package that creates, replaces or removes files of the user.

A file is written beside its place under a temporary name of its own and renamed. A reader sees the old file
or the new one, whole, and a write that fails or is killed leaves the old one. Temporary files are created
exclusively and without following links, so a link planted under a predictable name is never written through.
Every failure of the file system raises `sppnet.errors.UserError` with the path.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from sppnet.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "append_line",
    "is_temporary",
    "make_folder",
    "remove",
    "rename",
    "replacing",
    "write_bytes",
    "write_tensors",
    "write_text",
]

# Short, so that any name that the file system allows can be written.
_TEMPORARY = re.compile(r"\.sppnet-[0-9a-f]{16}\.part")
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def is_temporary(name: str) -> bool:
    """Whether a file name is one that a writer of this package uses before it renames the file.

    Examples:
        >>> is_temporary(".sppnet-0123456789abcdef.part"), is_temporary("model.json")
        (True, False)
    """
    return _TEMPORARY.fullmatch(name) is not None


@contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = False) -> Generator[BinaryIO]:
    """Open a binary stream whose content replaces a file when the block ends without an exception.

    Args:
        path: the file. Its folder must exist; a link in its place is replaced, not followed.
        durable: flush the content to the disk before the rename, for files that others refer to.

    Yields:
        a stream to write to.

    Raises:
        UserError: the file cannot be written (no space, no permission, a name too long, a folder there).

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder) / "a.txt") as stream:
        ...         _ = stream.write(b"new")
        ...     (Path(folder) / "a.txt").read_text()
        'new'
    """
    target = Path(path)
    with _reported(target):
        part = target.parent / f".sppnet-{secrets.token_hex(8)}.part"
        number = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o666)
        try:
            with os.fdopen(number, "wb") as stream:
                yield stream
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())
            os.replace(part, target)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        if durable:
            _flush_folder(target.parent)


def write_bytes(path: str | os.PathLike[str], content: bytes, *, durable: bool = False) -> None:
    """Replace a file by ``content``; see `replacing`."""
    with replacing(path, durable=durable) as stream:
        stream.write(content)


def write_text(path: str | os.PathLike[str], text: str, *, durable: bool = False) -> None:
    r"""Replace a file by ``text`` in UTF-8; see `replacing`.

    What UTF-8 cannot hold (parts of file names in another encoding) is written as ``\udcXX``, which JSON
    reads back.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"), durable=durable)


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Add a line to a text file in one write; a line that a killed writer left unfinished is ended first.

    Raises:
        UserError: the file cannot be written, or is a link.
    """
    target = Path(path)
    with _reported(target):
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | _NO_FOLLOW
        number = os.open(target, flags, 0o666)
        try:
            torn = b""
            if os.fstat(number).st_size:
                os.lseek(number, -1, os.SEEK_END)
                torn = b"" if os.read(number, 1) == b"\n" else b"\n"
            content = torn + line.encode("utf-8", "backslashreplace") + b"\n"
            if os.write(number, content) != len(content):
                raise OSError("no space left for the whole line")
        finally:
            os.close(number)


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    durable: bool = False,
) -> str:
    """Replace a safetensors file, tensor by tensor: no second copy of all of them is made.

    Args:
        path: the file.
        tensors: any dtype that the format has, any device and strides.
        metadata: texts for the file's header.
        durable: as for `replacing`.

    Returns:
        The SHA-256 of the file, as hexadecimal digits.

    Raises:
        UserError: the file cannot be written.
    """
    digest = hashlib.sha256()
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in order:
        size = tensors[name].numel() * tensors[name].element_size()
        header[name] = {
            "dtype": _DTYPES[str(tensors[name].dtype).removeprefix("torch.")],
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path, durable=durable) as stream:
        for content in (len(text).to_bytes(8, "little"), text, *map(_content, (tensors[n] for n in order))):
            digest.update(content)
            stream.write(content)
    return digest.hexdigest()


_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8",
}  # fmt: skip


def _content(tensor: Tensor) -> memoryview | bytes:
    import torch

    plain = tensor.detach().cpu().contiguous().flatten()
    return memoryview(cast("bytearray", plain.view(torch.uint8).numpy())) if plain.numel() else b""


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder and its parents where they are missing.

    Raises:
        UserError: it cannot be made, or a file is in its place.
    """
    folder = Path(path)
    with _reported(folder, "a folder that can be written"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def remove(path: str | os.PathLike[str]) -> None:
    """Remove a file where there is one.

    Raises:
        UserError: it cannot be removed.
    """
    target = Path(path)
    with _reported(target, "a file that can be removed"):
        target.unlink(missing_ok=True)


def rename(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Give a file another name in one step; a file of that name is replaced.

    Raises:
        UserError: it cannot be renamed.
    """
    with _reported(Path(target)):
        os.replace(source, target)


@contextmanager
def _reported(path: Path, expected: str = "a file that can be written") -> Generator[None]:
    """Turn failures of the file system into a `UserError` that names the path."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(_shown(path), expected, error.strerror or str(error)) from error
    except UnicodeError as error:
        raise UserError(_shown(path), "a name that the file system can hold", "other characters") from error
    except ValueError as error:
        if "null" not in str(error):
            raise
        raise UserError(_shown(path), "a name without null characters", "one with them") from error


def _shown(path: Path) -> str:
    """The path as text that any terminal can print."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _flush_folder(folder: Path) -> None:
    """Make a rename survive a power failure, on systems where folders can be opened."""
    if os.name == "posix":
        with suppress(OSError):  # some file systems refuse to flush a folder; the content is flushed already
            number = os.open(folder, os.O_RDONLY | cast("int", getattr(os, "O_DIRECTORY", 0)))
            try:
                os.fsync(number)
            finally:
                os.close(number)
