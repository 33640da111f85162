"""Make a backbone from its name, or from the description in a run."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sppnet.backbones.base import Backbone, LayerInfo
from sppnet.backbones.geometry import SHORT, count_channels, measure_grids, smallest_side
from sppnet.backbones.registry import find_adapter
from sppnet.backbones.weights import read_normalisation, run_backbone
from sppnet.errors import UserError
from sppnet.structures import Grid, ImageSize

_RANDOM = "random:"


# Parameters and buffers made in inference mode could never be trained: a caller's inference mode is left.
@torch.inference_mode(False)
def load_backbone(
    name: str, weights: Path | None = None, layers: tuple[str, ...] | None = None, seed: int = 0
) -> Backbone:
    """Load a backbone with its weights, for images of any size.

    Args:
        name: ``builtin``, ``lite0``, ``lite2``, ``torchvision:NAME``, ``timm:NAME`` or one of the paper's,
            ``zf5``, ``convnet5``, ``overfeat5`` and ``overfeat7``, whose weights are random unless a file is
            given, and which have a quarter of their channels with ``/4`` appended; with ``random:`` before
            it, such as ``random:timm:resnet18``, the weights are the network's own random start, drawn
            from ``seed``.
        weights: a safetensors file with the library's own parameter names, in any floating precision, or a
            run of this package, whose mean and standard deviation are taken too; None takes the bundled
            weights (builtin), those of an installed package (lite0, lite2) or downloads them.
        layers: which layers to give, by the library's names or as ``stride8``, ``stride16``; None takes
            the network's default: one layer; both of builtin, strides 8, 16 and 32 of lite0 and lite2.
        seed: for random weights.

    Raises:
        UserError: an unknown name, layer or file, weights that do not fit, no connection, or a network
            that does not take images of any size.
    """
    random = name.startswith(_RANDOM)
    run = None if weights is None else run_backbone(weights)
    if random and weights is not None:
        raise UserError("weights", f"no weights file with {name}", weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bare = name.removeprefix(_RANDOM)
        made = find_adapter(bare).make()(bare, layers, weights, pretrained=not random)
    trunk, names, mean, std = made.trunk, made.layers, made.mean, made.std
    if run is not None:
        mean, std = run.mean, run.std  # what the weights were trained with
    elif weights is not None:
        mean, std = read_normalisation(weights) or (mean, std)
    trunk.eval()
    with _one_thread():
        channels = count_channels(trunk, name)
        side = smallest_side(trunk)
        grids, multiple = measure_grids(trunk, name, short=max(SHORT, side))
    infos = tuple(LayerInfo(n, c, g) for n, c, g in zip(names, channels, grids, strict=True))
    side = -(-side // multiple) * multiple
    return Backbone(name, trunk, infos, ImageSize(side, side), mean, std, multiple)


@contextmanager
def _one_thread() -> Generator[None]:
    """Use one thread: the probes are small, and on a busy machine threads wait longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode(False)
def backbone_from_spec(spec: dict[str, Any]) -> Backbone:
    """Rebuild the architecture that ``Backbone.spec`` describes; its weights are loaded afterwards.

    Raises:
        UserError: the description lacks something, or names an unknown network.
    """
    try:
        name = str(spec["name"])
        infos = tuple(
            LayerInfo(str(i["name"]), int(i["channels"]), Grid(float(i["stride"]), float(i["first"])))
            for i in spec["layers"]
        )
        height, width = (int(v) for v in spec["minimum"])
        mean, std = (tuple(float(v) for v in spec[key]) for key in ("mean", "std"))
        multiple = int(spec["multiple"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            "the backbone's description", "name, layers, minimum, multiple, mean and std", repr(error)
        ) from error
    names = tuple(i.name for i in infos)
    bare = name.removeprefix(_RANDOM)
    made = find_adapter(bare).make()(bare, names, None, pretrained=False)
    return Backbone(name, made.trunk, infos, ImageSize(height, width), mean, std, multiple)
