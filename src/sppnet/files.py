"""Atomic writes: the module of the package that creates, replaces and removes files of the user.

A file is written in its folder under a unique temporary name and then renamed. A reader gets the old file or
the new one, whole, and a write that fails or is killed leaves the old one. Temporary files are created
exclusively and without following links, so that a link with a predictable name is never written through.
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

# The temporary name has a fixed length, so that a target with the longest allowed name can be written.
_TEMPORARY = re.compile(r"\.sppnet-[0-9a-f]{16}\.part")
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def is_temporary(name: str) -> bool:
    """Return whether a file name is a temporary name of this package.

    Examples:
        >>> is_temporary(".sppnet-0123456789abcdef.part"), is_temporary("model.json")
        (True, False)
    """
    return _TEMPORARY.fullmatch(name) is not None


@contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = False) -> Generator[BinaryIO]:
    """Open a binary stream whose content replaces a file when the block ends without an exception.

    Args:
        path: the file. Its folder must exist; a link of that name is replaced, not followed.
        durable: flush the content to disk before the rename, for files that other files refer to.

    Yields:
        A binary stream.

    Raises:
        UserError: the file cannot be written, for lack of space or permission, because its name is too long
            or because it is a folder.

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
        temporary = target.parent / f".sppnet-{secrets.token_hex(8)}.part"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        if durable:
            _flush_folder(target.parent)


def write_bytes(path: str | os.PathLike[str], content: bytes, *, durable: bool = False) -> None:
    """Replace a file with bytes; see `replacing`.

    Examples:
        >>> path = getfixture("tmp_path") / "a.txt"
        >>> write_bytes(path, b"new")
        >>> path.read_bytes()
        b'new'
    """
    with replacing(path, durable=durable) as stream:
        stream.write(content)


def write_text(path: str | os.PathLike[str], text: str, *, durable: bool = False) -> None:
    r"""Replace a file with text in UTF-8; see `replacing`.

    Bytes of file names that are not UTF-8 are written as ``\udcXX``, which JSON reads back.

    Examples:
        >>> path = getfixture("tmp_path") / "a.txt"
        >>> write_text(path, "naïve")
        >>> path.read_text(encoding="utf-8")
        'naïve'
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"), durable=durable)


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Append a line to a text file in one write; a line that a killed writer left unfinished is ended first.

    Raises:
        UserError: the file cannot be written, or is a symbolic link.

    Examples:
        >>> path = getfixture("tmp_path") / "a.txt"
        >>> append_line(path, "one")
        >>> append_line(path, "two")
        >>> path.read_text().split()
        ['one', 'two']
    """
    target = Path(path)
    with _reported(target):
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | _NO_FOLLOW
        descriptor = os.open(target, flags, 0o666)
        try:
            torn = b""
            if os.fstat(descriptor).st_size:
                os.lseek(descriptor, -1, os.SEEK_END)
                torn = b"" if os.read(descriptor, 1) == b"\n" else b"\n"
            content = torn + line.encode("utf-8", "backslashreplace") + b"\n"
            if os.write(descriptor, content) != len(content):
                raise OSError("no space left for the whole line")
        finally:
            os.close(descriptor)


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    durable: bool = False,
) -> str:
    """Replace a safetensors file, tensor by tensor, without a second copy of all tensors in memory.

    Args:
        path: the file.
        tensors: tensors by name, of any dtype of the format, any device and any strides.
        metadata: texts for the header of the file.
        durable: as for `replacing`.

    Returns:
        The SHA-256 of the file, as hexadecimal digits.

    Raises:
        UserError: the file cannot be written.

    Examples:
        >>> import torch
        >>> from safetensors.torch import load_file
        >>> path = getfixture("tmp_path") / "a.safetensors"
        >>> len(write_tensors(path, {"bias": torch.ones(2)}))
        64
        >>> load_file(path)["bias"]
        tensor([1., 1.])
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
    """Make a folder and its parents if they are missing.

    Raises:
        UserError: the folder cannot be made, or a file of that name exists.

    Examples:
        >>> make_folder(getfixture("tmp_path") / "a" / "b").is_dir()
        True
    """
    folder = Path(path)
    with _reported(folder, "a folder that can be written"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def remove(path: str | os.PathLike[str]) -> None:
    """Remove a file if it exists.

    Raises:
        UserError: the file cannot be removed.

    Examples:
        >>> path = getfixture("tmp_path") / "a.txt"
        >>> path.touch()
        >>> remove(path)
        >>> path.exists()
        False
    """
    target = Path(path)
    with _reported(target, "a file that can be removed"):
        target.unlink(missing_ok=True)


def rename(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Rename a file in one step; an existing file of the new name is replaced.

    Raises:
        UserError: the file cannot be renamed.

    Examples:
        >>> folder = getfixture("tmp_path")
        >>> (folder / "a.txt").touch()
        >>> rename(folder / "a.txt", folder / "b.txt")
        >>> [path.name for path in folder.iterdir()]
        ['b.txt']
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
        raise UserError(_printable(path), expected, error.strerror or str(error)) from error
    except UnicodeError as error:
        raise UserError(_printable(path), "a name of the file system", "unsupported characters") from error
    except ValueError as error:
        if "null" not in str(error):
            raise
        raise UserError(_printable(path), "a name without null characters", "a null character") from error


def _printable(path: Path) -> str:
    """Return a path as text that any terminal can print."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _flush_folder(folder: Path) -> None:
    """Flush a folder, so that a rename survives a power failure; POSIX only."""
    if os.name == "posix":
        with suppress(OSError):  # some file systems refuse to flush a folder; the content is flushed already
            descriptor = os.open(folder, os.O_RDONLY | cast("int", getattr(os, "O_DIRECTORY", 0)))
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
