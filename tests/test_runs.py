from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import tomli_w
import torch

from sppnet import runs
from sppnet.errors import UserError


def save(folder: Path, *, overwrite: bool = False, **more: object) -> Path:
    tensors = {"svm.weight": torch.randn(3, 5).T, "counts": torch.arange(4), "half": torch.ones(2).half()}
    config = {"backbone": "builtin", "seed": 3, "options": {"levels": [6, 3], "c": 0.5}}
    return runs.save_run(
        folder, "detector", config, tensors, {"names": ["a", "ü"]} | more, overwrite=overwrite
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return save(tmp_path / "deep" / "run")


def test_a_saved_run_is_loaded(tmp_path: Path) -> None:
    tensors = {
        "w": torch.randn(4, 6).T,
        "tied": torch.zeros(3),
        "labels": torch.arange(4),
        "half": torch.ones(2).half(),
    }
    tensors["tied again"] = tensors["tied"]
    config = {"backbone": "builtin", "options": {"levels": [6, 3], "c": 0.5, "on": True}}
    folder = runs.save_run(tmp_path / "run", "classifier", config, tensors, {"names": ["a", "ü"]})
    found = runs.load_run(folder, "classifier")
    assert found.kind == "classifier" == runs.run_kind(folder)
    assert found.config == config
    assert found.model["names"] == ["a", "ü"]
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


def test_a_run_holds_nothing_but_text_and_tensors(run: Path) -> None:
    runs.write_metrics(run, {"AP50": 0.5})
    runs.append_log(run, {"verb": "fit"})
    assert {p.name for p in run.iterdir()} == {
        "config.toml", "model.json", "model.safetensors", "metrics.json", "log.jsonl",
    }  # fmt: skip


def test_metrics_and_log(run: Path) -> None:
    runs.write_metrics(run, {"AP50": 0.5, "per_class": {"a": float("nan")}})
    runs.write_metrics(
        run, {"AP50": torch.tensor(0.25), "at": Path("x"), "curve": torch.tensor([1.0, math.inf])}
    )
    assert json.loads((run / "metrics.json").read_text()) == {"AP50": 0.25, "at": "x", "curve": [1.0, None]}
    runs.append_log(run, {"verb": "fit", "seconds": 1.5})
    runs.append_log(run, {"verb": "evaluate"})
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [r["verb"] for r in records] == ["fit", "evaluate"]
    assert records[0]["time"].endswith("+00:00")


def test_a_run_is_replaced_only_with_overwrite(run: Path) -> None:
    runs.write_metrics(run, {"AP50": 1.0})
    (run / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="overwrite"):
        save(run)
    assert (run / "metrics.json").exists()
    save(run, overwrite=True, names=["c"])
    assert runs.load_run(run).model["names"] == ["c"]
    assert not (run / "metrics.json").exists(), "metrics of the run that is gone"
    assert (run / "notes.txt").read_text() == "mine"


def test_other_folders_are_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="other files"):
        save(tmp_path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match="a file"):
        save(tmp_path / "thesis.tex")
    with pytest.raises(UserError, match="can be written"):
        save(tmp_path / "thesis.tex" / "below")


def test_a_failed_save_leaves_only_the_old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path / "run", names=["old"])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tomli_w, "dumps", fail)
        with pytest.raises(KeyboardInterrupt):
            save(folder, overwrite=True, names=["new"])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    save(folder, overwrite=True, names=["new"])
    assert runs.load_run(folder).model["names"] == ["new"]


def damage(run: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.json", None, "without model.json"),
        ("model.json", b"{", "damaged"),
        ("model.json", b"\xff\xfe", "damaged"),
        ("model.json", b"[1]", "other JSON"),
        ("model.json", b"{}", "other JSON"),
        ("model.json", b'{"format": 1, "kind": ["ranker"]}', "kind \\['ranker'\\]"),
        ("model.json", b'{"format": 2, "kind": "detector"}', "the checksum of model.safetensors"),
        (
            "model.json",
            b'{"format": 99, "package": "9.9.9", "kind": "detector"}',
            "format 99, written by sppnet 9.9.9",
        ),
        ("model.safetensors", None, "no such file"),
        ("model.safetensors", b"", "a changed file"),
        ("model.safetensors", b"\x80\x04nonsense that is no safetensors file", "a changed file"),
        ("config.toml", None, "no such file"),
        ("config.toml", b"backbone = ", "a changed file"),
        ("config.toml", b"\xff", "UTF-8"),
    ],
)
def test_damaged_runs_are_refused_in_one_line(run: Path, name: str, content: bytes | None, said: str) -> None:
    damage(run, name, content)
    with pytest.raises(UserError, match=said) as caught:
        runs.load_run(run)
    assert str(run) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_tensor_file_is_refused(run: Path) -> None:
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="a changed file"):
        runs.load_run(run)


def test_other_folders_and_files_are_not_loaded(tmp_path: Path, run: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        runs.load_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match="a file"):
        runs.load_run(run / "model.json")
    with pytest.raises(UserError, match=r"without model\.json"):
        runs.run_kind(tmp_path)
    with pytest.raises(UserError, match="a run of kind classifier, got a run of kind detector"):
        runs.load_run(run, "classifier")
