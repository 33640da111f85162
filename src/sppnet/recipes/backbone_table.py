"""Create the table of ``sppnet backbones``.

    python -m sppnet.recipes.backbone_table

Strides and channels are measured on networks with random weights. Licences and sizes of the published weights
are those that timm states, accuracies and times those of docs/builtin.md. Nothing is downloaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sppnet.backbones import load_backbone
from sppnet.backbones.catalogue import CATALOGUE, Entry

PAPER_NETS = ("zf5", "convnet5", "overfeat5", "overfeat7")
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
"""The weights of SqueezeNet are published as a pickle only; timm publishes the others as safetensors."""
# From docs/builtin.md: `fit` with default options; milliseconds per image of 640x480 on two threads.
MEASURED: dict[str, dict[str, float]] = {
    "builtin": {"caltech101_accuracy": 0.867, "bccd_ap50": 0.869, "milliseconds": 32.0},
    "torchvision:squeezenet1_0": {"caltech101_accuracy": 0.898, "bccd_ap50": 0.881, "milliseconds": 49.0},
}


def entry(name: str, tag: str | None, licence: str | None, size_mb: float) -> Entry:
    """Create one row of the table.

    Args:
        name: name of the network.
        tag: name of its weights in timm, if any; they determine licence and size.
        licence: licence of weights that are not in timm.
        size_mb: size of weights that are not in timm.
    """
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
        **MEASURED.get(name, {}),
    )


def _published(tag: str) -> tuple[str | None, float]:
    """Return licence and size in MB of weights in timm, as float32 with the classifier."""
    import timm

    config: Any = timm.get_pretrained_cfg(tag)
    network = timm.create_model(tag, pretrained=False)
    return config.license, round(4 * sum(p.numel() for p in network.parameters()) / 1e6, 1)


def make_table() -> list[Entry]:
    """Create all rows."""
    import timm

    entries = [entry("builtin", None, "apache-2.0", 0.0)]
    for name in TORCHVISION:
        tag = f"{name}.tv_in1k"
        known = timm.is_model_pretrained(tag)
        entries.append(entry(f"torchvision:{name}", tag if known else None, "bsd-3-clause", 0.0))
    entries += [entry(f"timm:{tag}", tag, None, 0.0) for tag in TIMM]
    return entries + [entry(name, None, "apache-2.0", 0.0) for name in PAPER_NETS]


def main() -> None:
    """Write the table to the package."""
    lines = [json.dumps(one.to_dict()) for one in make_table()]
    Path(CATALOGUE).write_text("[\n " + ",\n ".join(lines) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
