from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from sppnet.errors import UserError
from sppnet.locks import LOCK, locked, locked_file
from sppnet.runs import lock_run


def test_the_lock_is_re_entrant_within_a_thread_only(tmp_path: Path) -> None:
    said: list[str] = []

    def other() -> None:
        try:
            with locked(tmp_path):
                said.append("inside")
        except UserError as error:
            said.append(str(error))

    def ask() -> str:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return said[-1]

    with locked(tmp_path), locked(tmp_path):
        assert "in use by another thread" in ask()
    assert ask() == "inside"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_live_process_blocks_and_a_dead_one_does_not(tmp_path: Path) -> None:
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with locked(tmp_path):
            os.write(ready[1], b"x")
            os.read(done[0], 1)
            os._exit(0)  # as a kill would end it: the lock file stays
    os.read(ready[0], 1)
    with pytest.raises(UserError, match=f"in use by process {child} on"), locked(tmp_path):
        pass
    os.write(done[1], b"x")
    os.waitpid(child, 0)
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_hold_the_lock_of_its_parent(tmp_path: Path) -> None:
    done = os.pipe()
    with locked(tmp_path):
        child = os.fork()
        if child == 0:
            os.read(done[0], 1)
            os._exit(0)
    with locked(tmp_path):
        pass
    os.write(done[1], b"x")
    os.waitpid(child, 0)


def test_a_new_folder_without_files_is_removed(tmp_path: Path) -> None:
    with lock_run(tmp_path / "deep" / "run"):
        assert (tmp_path / "deep" / "run").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_locks_of_files_and_of_other_names_are_independent(tmp_path: Path) -> None:
    folder = locked(tmp_path), locked(tmp_path, name=".other.lock")
    files = locked_file(tmp_path / "a.npy"), locked_file(tmp_path / "b.npy")
    with folder[0], folder[1], files[0], files[1]:
        assert len(list(tmp_path.glob(".*lock"))) == 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["mine", "processor", "x" * 400])
def test_a_file_of_the_user_is_no_lock_file(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK).write_text(content)
    with pytest.raises(UserError, match="expected a lock file of sppnet"), locked(tmp_path):
        pass
    assert (tmp_path / LOCK).read_text() == content


@pytest.mark.parametrize("content", ["", "proc", "process", "process 1 on elsewhere\n"])
def test_whatever_a_killed_writer_left_in_the_lock_file_is_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK).write_text(content)
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
