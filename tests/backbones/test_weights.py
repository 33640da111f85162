"""Weight files: what is read, what is ignored and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sppnet.backbones import load_backbone
from sppnet.backbones.weights import download, fill, read_weights
from sppnet.errors import UserError


def _net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_half_precision_becomes_float32_and_whole_numbers_stay(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.tensor([0.1, 2.0]).half(), "n": torch.tensor(7)}, path)
    read = read_weights(path)
    assert read["a"].dtype == torch.float32
    assert torch.equal(read["a"], torch.tensor([0.1, 2.0]).half().float())
    assert read["n"].dtype == torch.int64


def test_extra_tensors_are_ignored_and_needed_ones_copied() -> None:
    net, other = _net(), _net()
    given = other.state_dict() | {"classifier.weight": torch.zeros(3)}
    given.pop("1.num_batches_tracked")
    fill(net, given, "f")
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_a_missing_tensor_is_named_and_nothing_is_changed() -> None:
    net = _net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    given = {k: v + 1 for k, v in net.state_dict().items() if k != "1.weight"}
    with pytest.raises(UserError, match=r"f: expected the tensor 1\.weight \[4\]"):
        fill(net, given, "f")
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_a_tensor_of_another_shape_is_named_with_both_shapes() -> None:
    net = _net()
    with pytest.raises(UserError, match=r"0\.weight of shape \[4, 3, 3, 3\], got shape \[4, 3, 5, 5\]"):
        fill(net, net.state_dict() | {"0.weight": torch.zeros(4, 3, 5, 5)}, "f")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_weights(tmp_path / "nowhere.safetensors")
    with pytest.raises(UserError, match="no such file"):
        load_backbone("torchvision:resnet18", tmp_path / "nowhere.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x00" * 50)
    with pytest.raises(UserError, match=r"a valid \.safetensors file"):
        read_weights(damaged)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".pkl", ""])
def test_pickles_are_refused_without_being_opened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(UserError, match="safetensors"):
        read_weights(path)


def test_a_weights_file_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(_net().state_dict(), path)
    with pytest.raises(UserError, match=r"other\.safetensors: expected the tensor features\.0\.weight"):
        load_backbone("torchvision:squeezenet1_0", path)


def test_random_and_a_file_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights file with random:"):
        load_backbone("random:builtin", tmp_path / "w.safetensors")


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", fail)
    with pytest.raises(UserError, match=r"timm:x: .*ConnectionError \(no route\).*--weights FILE") as caught:
        download("timm/x", "timm:x")
    assert "\n" not in str(caught.value)


def test_torchvision_weights_that_exist_only_as_pickles() -> None:
    with pytest.raises(UserError, match="pickles, which are never loaded"):
        load_backbone("torchvision:squeezenet1_0")
