from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sppnet.errors import UserError
from sppnet.files import append_line, make_folder, replacing, write_bytes, write_tensors, write_text
from sppnet.runs import json_text


def test_a_failed_write_leaves_only_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    class Stop(Exception):
        pass

    def write() -> None:
        with replacing(path) as stream:
            stream.write(b"half of the ne")
            raise Stop

    with pytest.raises(Stop):
        write()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_links_are_replaced_and_not_followed(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("precious")
    for name in ("model.json", "model.json.part", ".part-model.json"):
        (tmp_path / name).symlink_to(mine)
    write_text(tmp_path / "model.json", "new")
    assert mine.read_text() == "precious"
    assert (tmp_path / "model.json").read_text() == "new"
    (tmp_path / "log").symlink_to(mine)
    with pytest.raises(UserError, match="log"):
        append_line(tmp_path / "log", "line")
    assert mine.read_text() == "precious"


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "\ud800" * 2 + "x", "folder", "missing/below"])
def test_names_that_cannot_be_written_are_reported_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "missing").write_text("a file")
    with pytest.raises(UserError) as caught:
        write_bytes(tmp_path / name, b"x")
    str(caught.value).encode()
    assert "\n" not in str(caught.value)


def test_the_longest_names_of_the_file_system_are_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    write_text(path, "x")
    assert path.read_text() == "x"


def test_a_full_disk_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.bin: .*No space left"), replacing(tmp_path / "a.bin"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_below_a_file_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(UserError, match="a folder that can be written"):
        make_folder(tmp_path / "a" / "b")


def test_an_unfinished_line_is_ended_first(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n{"b": ')
    append_line(path, '{"c": 3}')
    assert path.read_text().splitlines() == ['{"a": 1}', '{"b": ', '{"c": 3}']


def test_file_names_in_another_encoding_survive_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    write_text(tmp_path / "a.json", json_text({"path": name}))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"path": name}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_are_read_by_safetensors(tmp_path: Path, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    tensors = {
        "t": (torch.rand(3, 5, generator=draw) * 9).to(dtype).T,
        "scalar": torch.ones((), dtype=dtype),
        "none": torch.ones(0, 4, dtype=dtype),
        "ü": torch.arange(7).to(torch.uint8),
    }
    write_tensors(tmp_path / "a.safetensors", tensors, {"key": "value"})
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_messages_stay_readable_whatever_a_damaged_file_holds() -> None:
    error = UserError("model.json", "a name", "a" * 100_000, "b" * 1000)
    assert len(str(error)) < 600
    path = "/".join(["folder" * 20] * 30)
    assert path in str(UserError(path, "a file", "none"))
    names = " ".join(f"image{i}.jpg" for i in range(500))
    assert names in str(UserError("data", "images that can be read", names))
