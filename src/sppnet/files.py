"""Atomic writes: the module of the package that creates, replaces and removes files of the user.

A file is written in its folder under a unique temporary name and then renamed. A reader gets the old file or
the new one, whole, and a write that fails or is killed leaves the old one. Temporary files are created
exclusively and without following links, so that a link with a predictable name is never written through.
Every failure of the file system raises `sppnet.errors.UserError` with the path.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sppnet._file_system import NO_FOLLOW, create_temporary, flush_folder, reported, temporary_prefix
from sppnet._tensor_chunks import tensor_chunks

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "append_line",
    "is_temporary",
    "make_folder",
    "new_temporary",
    "remove",
    "remove_folder",
    "remove_temporaries",
    "rename",
    "replacing",
    "write_bytes",
    "write_tensors",
    "write_text",
]

# The temporary name has a fixed length, so that a target with the longest allowed name can be written.
_TEMPORARY = re.compile(r"\.sppnet-[0-9a-f]{16}\.part")


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
    with reported(target):
        temporary, descriptor = create_temporary(target)
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
            flush_folder(target.parent)


def new_temporary(path: str | os.PathLike[str]) -> Path:
    """Create an empty temporary file in the folder of a file, for libraries that only write to a path.

    The caller renames it to ``path`` or removes it.

    Raises:
        UserError: the folder is not writable.

    Examples:
        >>> is_temporary(new_temporary(getfixture("tmp_path") / "film.mp4").name)
        True
    """
    with reported(Path(path)):
        temporary, descriptor = create_temporary(Path(path))
        os.close(descriptor)
    return temporary


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
    with reported(target):
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | NO_FOLLOW
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
    with replacing(path, durable=durable) as stream:
        for content in tensor_chunks(tensors, metadata):
            digest.update(content)
            stream.write(content)
    return digest.hexdigest()


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder and its parents if they are missing.

    Raises:
        UserError: the folder cannot be made, or a file of that name exists.

    Examples:
        >>> make_folder(getfixture("tmp_path") / "a" / "b").is_dir()
        True
    """
    folder = Path(path)
    with reported(folder, "a folder that can be written"):
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
    with reported(target, "a file that can be removed"):
        target.unlink(missing_ok=True)


def remove_folder(path: str | os.PathLike[str]) -> None:
    """Remove a folder and its contents, if it exists; symbolic links are removed, not followed.

    Raises:
        UserError: a file or folder cannot be removed.

    Examples:
        >>> folder = make_folder(getfixture("tmp_path") / "a" / "b")
        >>> remove_folder(folder.parent)
        >>> folder.parent.exists()
        False
    """
    target = Path(path)
    with reported(target, "a folder that can be removed"):
        if os.path.lexists(target):
            shutil.rmtree(target)


def remove_temporaries(folder: str | os.PathLike[str], of: Iterable[str] | None = None) -> None:
    """Remove temporary files of killed processes from a folder; the caller holds its lock.

    Args:
        folder: the folder.
        of: names of the files that were written; None for all files, if the lock covers the whole folder.

    Examples:
        >>> folder = getfixture("tmp_path")
        >>> _ = new_temporary(folder / "a.txt")
        >>> remove_temporaries(folder)
        >>> list(folder.iterdir())
        []
    """
    with reported(Path(folder), "a folder that can be read"):
        names = os.listdir(folder)
    starts = tuple(map(temporary_prefix, of)) if of is not None else ".sppnet-"
    for name in names:
        if is_temporary(name) and name.startswith(starts):
            remove(Path(folder) / name)


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
    with reported(Path(target)):
        os.replace(source, target)
