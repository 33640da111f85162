"""A lock file that allows one writer per folder or file and is released when its process ends."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from sppnet.errors import UserError
from sppnet.files import make_folder

__all__ = ["LOCK", "locked", "locked_file"]

LOCK = ".lock"
"""The name of the lock file in a run folder; the file is removed when the lock is released."""

_OWNER = "process"
"""The first word of a lock file. A file with other content is not a lock file."""

_guard = threading.Lock()
_held: dict[str, tuple[int, int]] = {}
"""File descriptor and thread of every lock of this process, by path of the lock file."""


def _forget() -> None:
    # A forked child must not keep the lock alive when its parent dies.
    for descriptor, _ in _held.values():
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def locked(folder: str | os.PathLike[str], *, create: bool = False, name: str = LOCK) -> Generator[None]:
    """Hold the lock of a folder during the block; the lock is re-entrant within a thread.

    The operating system releases the lock when the process ends, even when it is killed. A folder that was
    made for the lock and is still empty afterwards is removed again.

    Args:
        folder: the folder to lock.
        create: make the folder if it is missing.
        name: the name of the lock file; locks of different names are independent.

    Raises:
        UserError: another process or thread holds the lock, the folder cannot be written, or a file of that
            name is not a lock file.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with locked(folder), locked(folder):
        ...         print("inside")
        inside
    """
    path = Path(folder)
    with _holding(path, path / name, create=create):
        yield


@contextmanager
def locked_file(path: str | os.PathLike[str]) -> Generator[None]:
    """Hold the lock of a file to be written during the block, as `locked` does for a folder.

    The lock file is in the folder of the file. A missing folder is created, and removed if it is still empty
    afterwards.

    Raises:
        UserError: see `locked`.

    Examples:
        >>> path = getfixture("tmp_path") / "features.npy"
        >>> with locked_file(path):
        ...     len(list(path.parent.glob(".sppnet-*.lock")))
        1
    """
    target = Path(path)
    digest = hashlib.sha256(target.name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    with _holding(target, target.parent / f".sppnet-{digest}.lock", create=True):
        yield


@contextmanager
def _holding(owned: Path, path: Path, *, create: bool) -> Generator[None]:
    """Hold the lock file ``path`` of the folder or file ``owned``."""
    made = _make(path.parent) if create else []
    key = os.path.join(os.path.realpath(path.parent), path.name)
    try:
        with _guard:
            owner = _held.get(key)
            if owner is not None and owner[1] != threading.get_ident():
                raise _in_use(owned, "another thread of this process")
            if owner is None:
                _held[key] = (_acquire(owned, path), threading.get_ident())
        try:
            yield
        finally:
            if owner is None:
                with _guard:
                    descriptor, _ = _held.pop(key)
                    _release(path, descriptor)
    finally:
        for empty in made:
            with suppress(OSError):
                empty.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make a folder and return the folders that were missing, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    make_folder(folder)
    return missing


def _acquire(owned: Path, path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    while True:
        try:
            descriptor = os.open(path, flags, 0o666)
        except (OSError, ValueError) as error:
            expected = "a folder that can be written"
            raise UserError(path.parent, expected, getattr(error, "strerror", None) or error) from error
        content = _content(descriptor)
        if content is None:
            os.close(descriptor)
            hint = "Remove it, or choose another folder."
            raise UserError(path, "a lock file of sppnet, or none", "another file", hint)
        if not _lock(descriptor):
            os.close(descriptor)
            raise _in_use(owned, content or "another process")
        # The last owner may have removed the file between opening and locking.
        if _same_file(descriptor, path):
            break
        os.close(descriptor)
    with suppress(OSError):  # a full disk: the lock holds without the name of its owner
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{_OWNER} {os.getpid()} on {socket.gethostname()}\n".encode())
    return descriptor


def _content(descriptor: int) -> str | None:
    """Return the description of the owner in a lock file; None if the file is not a lock file."""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        text = os.read(descriptor, 300).decode("utf-8", "replace").strip()
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        return None
    # The first word is incomplete if its writer was killed or the disk was full.
    return text if len(text) < 300 and (_OWNER.startswith(text) or text.startswith(f"{_OWNER} ")) else None


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        # One byte far behind the owner's name, which other processes must be able to read.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        os.lseek(descriptor, 0, os.SEEK_SET)
        return True

    def _release(path: Path, descriptor: int) -> None:
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        with suppress(OSError):
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        os.close(descriptor)
        with suppress(OSError):  # in use by the next owner
            path.unlink()

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return _owner_is_gone(descriptor)
        return True

    def _release(path: Path, descriptor: int) -> None:
        # Removed while it is locked: a waiting process then finds that its file is gone.
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)

    def _owner_is_gone(descriptor: int) -> bool:
        """Return whether the process that the file names has ended, on file systems without locks."""
        fields = (_content(descriptor) or "").split()
        if len(fields) != 4 or not fields[1].isdigit():
            return True
        if fields[3] != socket.gethostname():
            return False
        try:
            os.kill(int(fields[1]), 0)
        except (ProcessLookupError, OverflowError):
            return True
        except OSError:
            return False
        return False


def _in_use(owned: Path, owner: str) -> UserError:
    hint = "Wait until it has finished, or choose another name."
    return UserError(owned, "a path that no other process writes to", f"one in use by {owner}", hint)
