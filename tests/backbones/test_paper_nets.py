from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sppnet.backbones import backbone_from_spec, load_backbone
from sppnet.backbones.paper_nets import ChannelNorm
from sppnet.errors import UserError


@pytest.mark.parametrize(
    ("name", "side", "stride", "first", "channels"),
    [
        ("zf5/8", 13, 16.0, 20.5, 32),
        ("convnet5/8", 13, 16.0, 15.5, 32),
        ("overfeat5/8", 18, 12.0, 8.5, 64),
        ("overfeat7/8", 18, 12.0, 8.5, 64),
    ],
)
def test_maps_at_224_have_the_printed_sides(
    name: str, side: int, stride: float, first: float, channels: int
) -> None:
    backbone = load_backbone(name)
    (maps,) = backbone(torch.rand(1, 3, 224, 224))
    assert maps.shape == (1, channels, side, side)
    assert (backbone.layers[0].grid.stride, backbone.layers[0].grid.first) == (stride, first)


@pytest.mark.parametrize(("pixels", "side"), [(180, 10), (480, 29), (576, 35), (688, 42)])
def test_zf5_has_the_released_sides_at_other_sizes(pixels: int, side: int) -> None:
    (maps,) = load_backbone("zf5/16")(torch.rand(1, 3, pixels, 48))
    assert maps.shape[2] == side


@pytest.mark.parametrize(("pixels", "side"), [(64, 13), (51, 10)])
def test_small_zf5_has_the_paper_s_sides_at_small_sizes(pixels: int, side: int) -> None:
    (maps,) = load_backbone("zf5-small/8")(torch.rand(1, 3, pixels, pixels))
    assert maps.shape[2:] == (side, side)


def test_printed_layers_of_zf5_and_its_inner_maps() -> None:
    backbone = load_backbone("zf5", layers=("conv1", "conv2", "conv4", "conv5"))
    convolutions = [m for m in backbone.trunk if isinstance(m, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size[0], c.stride[0]) for c in convolutions] == [
        (96, 7, 2), (256, 5, 2), (384, 3, 1), (384, 3, 1), (256, 3, 1),
    ]  # fmt: skip
    with torch.inference_mode():
        maps = backbone(torch.rand(1, 3, 224, 224))
    assert [tuple(m.shape[1:]) for m in maps] == [(96, 110, 110), (256, 26, 26), (384, 13, 13), (256, 13, 13)]


def test_norm_within_a_channel_is_the_plain_sum() -> None:
    maps = torch.rand(1, 2, 4, 5, generator=torch.Generator().manual_seed(0)) * 100
    ours = ChannelNorm()(maps)
    for channel in range(2):
        for row in range(4):
            for column in range(5):
                near = maps[0, channel, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
                wanted = maps[0, channel, row, column] / (1 + 5e-5 * (near**2).sum() / 9) ** 0.75
                assert ours[0, channel, row, column] == pytest.approx(float(wanted), rel=1e-5)


def test_weights_from_a_file_and_from_a_run(tmp_path: Path) -> None:
    source = load_backbone("zf5/16", seed=1)
    plain = {k.removeprefix("trunk."): v for k, v in source.state_dict().items()}
    save_file(plain, tmp_path / "plain.safetensors")
    save_file({f"backbone.trunk.{k}": v for k, v in plain.items()}, tmp_path / "run.safetensors")
    image = torch.rand(1, 3, 64, 64)
    for name in ("plain", "run"):
        read = load_backbone("zf5/16", tmp_path / f"{name}.safetensors")
        # Not to the last bit: convolutions depend on where their weights lie in memory.
        torch.testing.assert_close(read(image)[0], source(image)[0])
    again = backbone_from_spec(source.spec())
    again.load_state_dict(source.state_dict())
    torch.testing.assert_close(again(image)[0], source(image)[0])


@pytest.mark.parametrize(("name", "layers"), [("zf5/3", None), ("zf5/", None), ("zf5/16", ("conv6",))])
def test_mistakes_are_named(name: str, layers: tuple[str, ...] | None) -> None:
    with pytest.raises(UserError, match=r"/2, /4|conv1 to conv5"):
        load_backbone(name, layers=layers)
