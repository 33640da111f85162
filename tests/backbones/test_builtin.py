from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from sppnet.backbones import backbone_from_spec, load_backbone
from sppnet.backbones.builtin import WEIGHTS, BuiltinNet, load_builtin
from sppnet.errors import UserError

LIMIT = 8_000_000


def _packaged(name: str) -> Path:
    return Path(str(resources.files("sppnet.backbones").joinpath(name)))


@pytest.fixture(scope="module")
def untrained() -> BuiltinNet:
    torch.manual_seed(0)
    return BuiltinNet(folded=True).eval()


def _with_statistics(seed: int) -> BuiltinNet:
    """Every normalisation far from the identity, so that a fold that forgets a part shows."""
    torch.manual_seed(seed)
    net = BuiltinNet(folded=False).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.2, 3.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return net


@settings(deadline=None, max_examples=40)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_every_size_gives_ceil_cells(untrained: BuiltinNet, height: int, width: int) -> None:
    with torch.inference_mode():
        maps = untrained(torch.randn(1, 3, height, width))
    for found, channels, stride in zip(maps, BuiltinNet.CHANNELS, BuiltinNet.STRIDES, strict=True):
        assert found.shape == (1, channels, -(-height // stride), -(-width // stride))
        assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize("size", [(1, 1), (1, 333), (257, 1), (15, 17), (480, 640), (223, 179)])
def test_named_sizes(untrained: BuiltinNet, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        maps = untrained(torch.zeros(2, 3, *size))
        fine = untrained(torch.zeros(2, 3, *size), most=1)
    shapes = [tuple(m.shape[2:]) for m in maps]
    assert shapes == [(-(-size[0] // s), -(-size[1] // s)) for s in (8, 16, 32)]
    assert len(fine) == 1
    torch.testing.assert_close(fine[0], maps[0])


@pytest.mark.parametrize("size", [(64, 64), (33, 57)])
def test_folded_equals_unfolded(size: tuple[int, int]) -> None:
    net = _with_statistics(1)
    folded = net.fold()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        for ours, theirs in zip(folded(images), net(images), strict=True):
            assert float(theirs.std()) > 1e-3
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def test_folding_a_folded_network_changes_nothing(untrained: BuiltinNet) -> None:
    again = untrained.fold().state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in untrained.state_dict().items())


@pytest.mark.parametrize(("layer", "cell"), [(0, (30, 32)), (1, (17, 18)), (2, (14, 15))])
def test_cells_are_centred_on_multiples_of_the_stride(layer: int, cell: tuple[int, int]) -> None:
    # Positive weights and inputs: every pixel that a cell can see has a gradient.
    net = BuiltinNet(folded=True).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.01) if parameter.ndim > 1 else parameter.zero_()
    images = torch.ones(1, 3, 928, 960, requires_grad=True)
    net(images)[layer][0, 0, cell[0], cell[1]].backward()
    assert images.grad is not None
    seen = images.grad[0, 0] > 0
    for axis, position in ((1, cell[0]), (0, cell[1])):
        touched = seen.any(axis).nonzero().flatten().tolist()
        assert touched[0] > 0
        assert touched[-1] < seen.shape[1 - axis] - 1
        # The middle of the first and last pixel seen, in continuous coordinates.
        assert (touched[0] + touched[-1] + 1) / 2 == 0.5 + position * BuiltinNet.STRIDES[layer]


def test_the_packaged_file_is_small_and_half() -> None:
    path = _packaged(WEIGHTS)
    assert path.stat().st_size <= LIMIT
    tensors = load_file(path)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert not any("norm" in name for name in tensors)


def test_the_packaged_network_sees() -> None:
    net = load_builtin()
    assert not net.training
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    torch.manual_seed(0)
    flat, noise = torch.zeros(1, 3, 96, 96), torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        for quiet, loud in zip(net(flat), net(noise), strict=True):
            assert not torch.allclose(quiet, loud)
            # Every channel varies over the cells.
            assert float(loud.flatten(2).std(2).min()) > 0


def test_the_card_fits_the_file() -> None:
    card = json.loads(_packaged("builtin.json").read_text())
    assert card["file"]["bytes"] == _packaged(WEIGHTS).stat().st_size
    assert card["channels"] == list(BuiltinNet.CHANNELS)
    assert card["strides"] == list(BuiltinNet.STRIDES)
    assert card["parameters"] == sum(p.numel() for p in BuiltinNet().parameters())
    assert {"data", "teacher", "recipe", "figures", "limits", "licence"} <= card.keys()


def test_runs_of_version_1_are_restored() -> None:
    old = load_backbone("random:builtin-1", seed=3)
    assert [layer.channels for layer in old.layers] == [256, 256]
    spec = old.spec()
    for name in ("random:builtin", "builtin"):  # the names that such runs have
        restored = backbone_from_spec(spec | {"name": name})
        restored.load_state_dict(old.state_dict())
        images = torch.rand(1, 3, 70, 90)
        with torch.inference_mode():
            for ours, theirs in zip(restored(images), old(images), strict=True):
                torch.testing.assert_close(ours, theirs)
                assert float(ours.min()) >= 0
    current = load_backbone("builtin").spec()
    assert backbone_from_spec(current).name == "builtin"
    with pytest.raises(UserError, match="only runs contain"):
        load_backbone("builtin-1")


def test_weights_of_version_1_are_named(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    save_file(BuiltinNet(version=1).state_dict(), path)
    with pytest.raises(UserError, match="weights of version 1: choose builtin-1"):
        load_backbone("builtin", path)
    assert [layer.channels for layer in load_backbone("builtin-1", path).layers] == [256, 256]


def test_own_weights_are_read(tmp_path: Path, untrained: BuiltinNet) -> None:
    path = tmp_path / "own.safetensors"
    save_file(untrained.state_dict(), path)
    loaded = load_builtin(path).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in untrained.state_dict().items())


def test_bad_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_builtin(tmp_path / "missing.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not tensors")
    with pytest.raises(UserError, match=r"broken\.safetensors: expected a valid \.safetensors file"):
        load_builtin(broken)
    other = tmp_path / "other.safetensors"
    save_file({"fine_head.weight": torch.zeros(2, 2)}, other)
    with pytest.raises(UserError, match=r"1 tensors, .* different"):
        load_builtin(other)
