"""One writer at a time for a folder: a lock file that dies with its process."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from sppnet.errors import UserError
from sppnet.files import make_folder

__all__ = ["LOCK", "locked"]

LOCK = ".lock"
"""The lock's file name in the folder; it is removed with the lock."""

_guard = threading.Lock()
_held: dict[str, tuple[int, int]] = {}
"""File number and thread of every lock of this process, by the folder."""


def _forget() -> None:
    # A forked child must not keep the lock alive when its parent dies.
    for number, _ in _held.values():
        with suppress(OSError):
            os.close(number)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def locked(folder: str | os.PathLike[str], *, create: bool = False) -> Generator[None]:
    """Hold a folder's lock during the block; a thread that holds it already goes on.

    The operating system drops the lock when the process ends, however it ends, so a killed writer blocks
    nobody. A folder that was made for the lock and is still empty afterwards is removed again.

    Args:
        folder: what to lock.
        create: make the folder where it is missing.

    Raises:
        UserError: another process or thread holds the lock, or the folder cannot be written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with locked(folder), locked(folder):
        ...         print("inside")
        inside
    """
    place = Path(folder)
    made = _make(place) if create else []
    key = os.path.realpath(place)
    with _guard:
        owner = _held.get(key)
        if owner is not None and owner[1] != threading.get_ident():
            raise _in_use(place, "another thread of this process")
        if owner is None:
            _held[key] = (_acquire(place), threading.get_ident())
    try:
        yield
    finally:
        if owner is None:
            with _guard:
                number, _ = _held.pop(key)
                _release(place / LOCK, number)
        for empty in made:
            with suppress(OSError):
                empty.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make a folder; those that were missing, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    make_folder(folder)
    return missing


def _acquire(folder: Path) -> int:
    path = folder / LOCK
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    while True:
        try:
            number = os.open(path, flags, 0o666)
        except OSError as error:
            wanted = "a folder that can be written"
            raise UserError(folder, wanted, error.strerror or str(error)) from error
        if not _lock(number):
            said = os.pread(number, 200, 0).decode("utf-8", "replace") if hasattr(os, "pread") else ""
            os.close(number)
            raise _in_use(folder, said.strip() or "another process")
        # The last owner may have removed the file between our opening and locking it.
        if _same_file(number, path):
            break
        os.close(number)
    with suppress(OSError):  # a full disk: the lock holds without the owner's name in it
        os.ftruncate(number, 0)
        os.write(number, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return number


def _same_file(number: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(number), os.stat(path))
    except OSError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock(number: int) -> bool:
        # One byte far behind the owner's name, which others must be able to read.
        os.lseek(number, 1 << 20, os.SEEK_SET)
        try:
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        os.lseek(number, 0, os.SEEK_SET)
        return True

    def _release(path: Path, number: int) -> None:
        os.lseek(number, 1 << 20, os.SEEK_SET)
        with suppress(OSError):
            msvcrt.locking(number, msvcrt.LK_UNLCK, 1)
        os.close(number)
        with suppress(OSError):  # in use by the next owner
            path.unlink()

else:
    import fcntl

    def _lock(number: int) -> bool:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return _owner_is_gone(number)
        return True

    def _release(path: Path, number: int) -> None:
        # Removed while it is locked: whoever waits for it sees that its file is gone.
        with suppress(OSError):
            path.unlink()
        os.close(number)

    def _owner_is_gone(number: int) -> bool:
        """On file systems without locks: whether the process that the file names has ended."""
        words = os.pread(number, 200, 0).decode("utf-8", "replace").split()
        if len(words) != 4 or not words[1].isdigit():
            return True
        if words[3] != socket.gethostname():
            return False
        try:
            os.kill(int(words[1]), 0)
        except (ProcessLookupError, OverflowError):
            return True
        except OSError:
            return False
        return False


def _in_use(folder: Path, owner: str) -> UserError:
    hint = "Wait until it has finished, or name another folder."
    return UserError(folder, "a run that nothing else writes to", f"one in use by {owner}", hint)
