"""Vision transformers of timm, whose position embeddings are interpolated to the size of the image."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from sppnet import Classifier
from sppnet.backbones import backbone_from_spec, load_backbone, prepare
from sppnet.errors import UserError
from sppnet.features import extract
from sppnet.structures import Grid, ImageSize

VIT, DINOV2 = "vit_tiny_patch16_224", "vit_small_patch14_dinov2"


@pytest.mark.parametrize(("name", "side"), [(VIT, 16), (DINOV2, 14), ("eva02_tiny_patch14_224", 14)])
def test_cells_are_patches(name: str, side: int) -> None:
    backbone = load_backbone(f"random:timm:{name}")
    (layer,) = backbone.layers
    assert (layer.name, layer.grid) == ("blocks.11", Grid(float(side), side / 2))
    assert (backbone.multiple, backbone.minimum) == (side, ImageSize(side, side))
    with torch.inference_mode():
        for height, width in ((1, 1), (2, 5), (9, 3)):
            (found,) = backbone(torch.rand(1, 3, height * side, width * side))
            assert found.shape == (1, layer.channels, height, width)
    again = backbone_from_spec(backbone.spec())
    assert again.layers == backbone.layers


def test_maps_are_those_of_timm_at_any_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    # Dynamic sizes are an option of timm; the tensors of the file are those of the fixed size.
    reference = timm.create_model(VIT, dynamic_img_size=True).eval()
    save_file(reference.state_dict(), tmp_path / "vit.safetensors")
    backbone = load_backbone(f"timm:{VIT}", tmp_path / "vit.safetensors", ("blocks.5", "blocks.11"))
    images = torch.rand(1, 3, 80, 112)
    with torch.inference_mode():
        found = prepare(backbone)(images)
        normalised = (images - backbone.mean) / backbone.std
        expected = reference.forward_intermediates(normalised, indices=[5, 11], intermediates_only=True)
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.shape == (1, 192, 5, 7)
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_images_are_resized_to_multiples_of_the_patch() -> None:
    network = prepare(load_backbone(f"random:timm:{DINOV2}"))
    maps = extract(network, torch.rand(3, 100, 150), (64,)).maps
    assert maps[0].resized == ImageSize(70, 98)
    assert maps[0].values.shape[1:] == (5, 7)


def test_a_stride_that_a_transformer_lacks_is_refused() -> None:
    with pytest.raises(UserError, match=r"blocks\.11 \(stride 14\)"):
        load_backbone(f"random:timm:{DINOV2}", layers=("stride16",))


def test_a_classifier_on_a_transformer_is_fitted_saved_and_loaded(tmp_path: Path) -> None:
    from PIL import Image

    draw = torch.Generator().manual_seed(0)
    for name, level in (("dark", 30), ("light", 220)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            pixels = (torch.randn(40, 60, 3, generator=draw) * 20 + level).clamp(0, 255).byte().numpy()
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    classifier = Classifier(f"random:timm:{VIT}", device="cpu", levels=(1,), scales=(48,), val_share=0)
    classifier.fit(tmp_path / "data", quiet=True)
    classifier.save(tmp_path / "run")
    source = tmp_path / "data" / "light" / "0.png"
    first, second = classifier.predict(source), Classifier.load(tmp_path / "run").predict(source)
    assert first.name == "light"
    torch.testing.assert_close(first.scores, second.scores)
