"""Names to backbones: layers, weights, refusals, descriptions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sppnet.backbones import backbone_from_spec, load_backbone
from sppnet.errors import UserError
from sppnet.structures import Grid, ImageSize

SQUEEZE = "random:torchvision:squeezenet1_0"


@pytest.fixture(scope="module")
def squeeze_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half-precision weights of a whole SqueezeNet, classifier included, as people publish them."""
    from torchvision.models import squeezenet1_0

    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "squeeze.safetensors"
    save_file({k: v.half() for k, v in squeezenet1_0(weights=None).state_dict().items()}, path)
    return path


def test_squeezenet_from_a_file_equals_the_prefix_of_the_network(squeeze_file: Path) -> None:
    from safetensors.torch import load_file
    from torchvision.models import squeezenet1_0

    ours = load_backbone("torchvision:squeezenet1_0", squeeze_file)
    whole = squeezenet1_0(weights=None).eval()
    whole.load_state_dict({k: v.float() for k, v in load_file(squeeze_file).items()})
    images = torch.rand(2, 3, 75, 101)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(ours(images)[0], whole.features[:11]((images - mean) / std))
    (info,) = ours.layers
    assert (info.name, info.channels, info.grid) == ("features.10", 512, Grid(8.0, 9.5))


def test_nothing_past_the_last_layer_is_kept(squeeze_file: Path) -> None:
    keys = load_backbone("torchvision:squeezenet1_0", squeeze_file).state_dict()
    assert any("features.10" in k for k in keys)
    assert not any("features.12" in k or "classifier" in k for k in keys)


def test_layers_by_name_and_by_stride_in_the_order_asked() -> None:
    backbone = load_backbone(SQUEEZE, layers=("stride16", "features.5"))
    assert [(i.name, i.channels, i.grid) for i in backbone.layers] == [
        ("features.12", 512, Grid(16.0, 17.5)),
        ("features.5", 256, Grid(4.0, 5.5)),
    ]
    high, low = backbone(torch.rand(1, 3, 64, 96))
    assert high.shape[1:2] + low.shape[1:2] == (512, 256)
    assert low.shape[2] > 3 * high.shape[2]


@pytest.mark.parametrize(
    ("name", "stride", "found"),
    [
        # Behind it, adaptive pooling gives 6 or 7 cells a side at any size.
        ("random:torchvision:alexnet", 32, ("features.12", Grid(32.0, 31.5))),
        ("random:torchvision:vgg11", 32, ("features.20", Grid(32.0, 16.0))),
        # Takes no image of 64 pixels, and its borders reach the middle of one of 512.
        ("random:torchvision:inception_v3", 32, ("Mixed_7c", Grid(32.0, 37.5))),
    ],
)
def test_networks_by_another_stride(name: str, stride: int, found: tuple[str, Grid]) -> None:
    (info,) = load_backbone(name, layers=(f"stride{stride}",)).layers
    assert (info.name, info.grid) == found


@pytest.mark.parametrize(
    ("name", "layer", "grid"),
    [
        ("random:torchvision:resnet18", "layer3", Grid(16.0, 0.5)),
        ("random:torchvision:mobilenet_v3_small", None, Grid(16.0, 0.5)),
        ("random:torchvision:alexnet", "features.11", Grid(16.0, 15.5)),
        ("random:timm:resnet18", "layer3", Grid(16.0, 0.5)),
        ("random:timm:convnext_atto", "stages.2", Grid(16.0, 8.0)),
        ("random:timm:efficientnet_lite0", None, Grid(16.0, 0.5)),
    ],
)
def test_networks_by_stride_16(name: str, layer: str | None, grid: Grid) -> None:
    backbone = load_backbone(name)
    (info,) = backbone.layers
    assert info.grid == grid
    assert layer is None or info.name == layer
    (values,) = backbone(torch.rand(2, 3, 97, 130))
    assert values.shape[:2] == (2, info.channels)
    assert abs(values.shape[2] - 97 / 16) <= 2
    assert abs(values.shape[3] - 130 / 16) <= 2


def test_two_timm_layers_in_the_order_asked() -> None:
    backbone = load_backbone("random:timm:resnet18", layers=("stride16", "layer2"))
    assert [(i.name, i.channels) for i in backbone.layers] == [("layer3", 256), ("layer2", 128)]
    assert [m.shape[1:] for m in backbone(torch.rand(1, 3, 64, 80))] == [(256, 4, 5), (128, 8, 10)]


def test_timm_weights_from_a_file_under_the_whole_networks_names(tmp_path: Path) -> None:
    import timm

    whole = timm.create_model("convnext_atto").eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.normal_(std=0.2)
    path = tmp_path / "atto.safetensors"
    save_file(whole.state_dict(), path)
    ours = load_backbone("timm:convnext_atto", path)
    images = torch.rand(1, 3, 70, 90)
    with torch.no_grad():
        x = (images - ours.mean) / ours.std
        expected = whole.stages[2](whole.stages[1](whole.stages[0](whole.stem(x))))
        torch.testing.assert_close(ours(images)[0], expected)


@pytest.mark.parametrize(
    "name", ["random:torchvision:resnet18", "random:timm:resnet18", SQUEEZE, "random:builtin"]
)
def test_a_description_and_weights_rebuild_the_backbone(name: str) -> None:
    before = load_backbone(name, seed=3)
    after = backbone_from_spec(json.loads(json.dumps(before.spec())))
    after.load_state_dict(before.state_dict())
    assert (after.name, after.layers, after.minimum) == (before.name, before.layers, before.minimum)
    assert after.spec() == before.spec()
    images = torch.rand(1, 3, 61, 83)
    with torch.no_grad():
        for one, two in zip(before(images), after(images), strict=True):
            assert torch.equal(one, two)


def test_random_weights_follow_the_seed_and_leave_the_global_one() -> None:
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    one, two, other = (load_backbone(SQUEEZE, layers=("features.5",), seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    same = [torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_builtin_gives_all_strides_or_some_in_any_order() -> None:
    every = load_backbone("random:builtin", seed=1)
    some = load_backbone("random:builtin", layers=("stride16", "stride8"), seed=1)
    assert [(i.name, i.grid) for i in every.layers] == [
        ("stride8", Grid(8.0, 0.5)),
        ("stride16", Grid(16.0, 0.5)),
        ("stride32", Grid(32.0, 0.5)),
    ]
    images = torch.rand(1, 3, 50, 70)
    with torch.no_grad():
        fine, coarse, _ = every(images)
        found = some(images)
    assert len(found) == 2
    assert torch.equal(found[0], coarse)
    assert torch.equal(found[1], fine)


def test_copies_stay_in_evaluation_mode() -> None:
    import copy

    backbone = copy.deepcopy(load_backbone("random:torchvision:resnet18"))
    assert not any(m.training for m in backbone.modules())


def test_minimum_is_what_the_network_takes_and_no_less() -> None:
    backbone = load_backbone(SQUEEZE)
    side = backbone.minimum.height
    assert backbone(torch.rand(1, 3, side, side))[0].shape[2:] == (1, 1)
    with pytest.raises(UserError, match=f"images of at least {side} x {side}"):
        backbone(torch.rand(1, 3, side - 1, side))
    assert load_backbone("random:torchvision:resnet18").minimum == ImageSize(1, 1)


def test_gradients_reach_the_weights() -> None:
    backbone = load_backbone("random:timm:resnet18")
    backbone(torch.rand(1, 3, 40, 50))[0].sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())


@pytest.mark.parametrize(
    "name",
    [
        "random:torchvision:swin_t",
        "random:timm:swin_tiny_patch4_window7_224",
        "random:timm:hiera_tiny_224",
    ],
)
def test_networks_of_one_size_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(UserError, match="expected a network that accepts images of any size") as caught:
        load_backbone(name)
    assert name.removeprefix("random:") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["zf6", "timm:", "torchvision", "random:random:builtin", ""])
def test_an_unknown_form_lists_the_forms(name: str) -> None:
    with pytest.raises(UserError, match="builtin, lite0, lite2, torchvision:NAME, timm:NAME, zf5"):
        load_backbone(name)


@pytest.mark.parametrize("name", ["torchvision:resnet17", "timm:resnet17"])
def test_an_unknown_network_is_named(name: str) -> None:
    with pytest.raises(UserError, match=rf"{name}: .*no such network"):
        load_backbone(name)


@pytest.mark.parametrize(
    ("name", "layer"),
    [(SQUEEZE, "features.99"), ("random:timm:resnet18", "layer9"), ("random:builtin", "stride4")],
)
def test_an_unknown_layer_lists_the_layers(name: str, layer: str) -> None:
    with pytest.raises(UserError, match=layer):
        load_backbone(name, layers=(layer,))


def test_a_stride_that_a_network_lacks() -> None:
    with pytest.raises(UserError, match="a map of stride 64"):
        load_backbone("random:torchvision:resnet18", layers=("stride64",))
    with pytest.raises(UserError, match="stride64"):
        load_backbone("random:timm:resnet18", layers=("stride64",))


def test_a_description_that_lacks_something() -> None:
    with pytest.raises(UserError, match="layers"):
        backbone_from_spec({"name": "builtin"})


SHARED = Path(__file__).parents[2].parent / "shared" / "weights" / "squeezenet1_0-imagenet.fp16.safetensors"


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_file(), reason="no pretrained weights beside the repository")
def test_published_weights_load_and_differ_from_a_random_start() -> None:
    backbone = load_backbone("torchvision:squeezenet1_0", SHARED)
    start = load_backbone(SQUEEZE)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        (trained,), (random,) = backbone(images), start(images)
    assert torch.isfinite(trained).all()
    # ReLU features of a trained network are sparse; those of a random start are not.
    assert float((trained == 0).float().mean()) > float((random == 0).float().mean())
