"""Create a backbone from its name, or from the description in a run."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sppnet.backbones.base import Backbone, LayerInfo
from sppnet.backbones.builtin_trunk import renamed
from sppnet.backbones.geometry import SHORT, count_channels, measure_grids, smallest_side
from sppnet.backbones.registry import find_adapter
from sppnet.backbones.weights import read_normalisation, run_backbone
from sppnet.errors import UserError
from sppnet.structures import Grid, ImageSize

_RANDOM = "random:"


# Inference mode of a caller is left, because parameters and buffers created in it cannot be trained.
@torch.inference_mode(False)
def load_backbone(
    name: str, weights: Path | str | None = None, layers: tuple[str, ...] | None = None, seed: int = 0
) -> Backbone:
    """Load a backbone with its weights, for images of any size.

    Args:
        name: ``builtin``, ``lite0``, ``lite2``, ``torchvision:NAME``, ``timm:NAME`` or a network of the
            paper: ``zf5``, ``convnet5``, ``overfeat5`` or ``overfeat7``. Weights of the latter are random
            without a file; the suffix ``/4`` selects a quarter of the channels. The prefix ``random:``, such
            as in ``random:timm:resnet18``, selects random weights.
        weights: a safetensors file with the parameter names of the library, in any floating dtype, or a run,
            whose mean and standard deviation are used too. None for the bundled weights (builtin), those of
            an installed package (lite0, lite2) or a download.
        layers: names of layers in the library, or ``stride8``, ``stride16``, ... None for the default:
            strides 8, 16 and 32 of builtin, lite0 and lite2, and one layer of other networks.
        seed: seed of random weights.

    Returns:
        The backbone, in evaluation mode.

    Raises:
        UserError: the name, a layer or the file is invalid, the weights do not match, there is no connection,
            or the network does not support images of any size.

    Examples:
        >>> [info.name for info in load_backbone("builtin").layers]
        ['stride8', 'stride16', 'stride32']
    """
    weights = None if weights is None else Path(weights)
    random = name.startswith(_RANDOM)
    run = None if weights is None else run_backbone(weights)
    if random and weights is not None:
        raise UserError("weights", f"no weights file with {name}", weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bare = name.removeprefix(_RANDOM)
        network = find_adapter(bare).make()(bare, layers, weights, pretrained=not random)
    trunk, names, mean, std = network.trunk, network.layers, network.mean, network.std
    if run is not None:
        mean, std = run.mean, run.std  # the normalisation of the training
    elif weights is not None:
        mean, std = read_normalisation(weights) or (mean, std)
    trunk.eval()
    with _one_thread():
        channels = count_channels(trunk, name, network.patch)
        if network.patch:
            # Attention is global: the receptive field of every cell is the image.
            side = multiple = network.patch
            grids = (Grid(float(multiple), multiple / 2),) * len(names)
        else:
            side = smallest_side(trunk)
            grids, multiple = measure_grids(trunk, name, short=max(SHORT, side))
    infos = tuple(LayerInfo(n, c, g) for n, c, g in zip(names, channels, grids, strict=True))
    side = -(-side // multiple) * multiple
    return Backbone(name, trunk, infos, ImageSize(side, side), mean, std, multiple)


@contextmanager
def _one_thread() -> Generator[None]:
    """Use one thread: the measurements are small, and on a busy machine several threads are slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode(False)
def backbone_from_spec(spec: dict[str, Any]) -> Backbone:
    """Create the architecture described by `Backbone.spec`; the weights are loaded afterwards.

    Args:
        spec: the description.

    Returns:
        The backbone with random weights.

    Raises:
        UserError: the description is incomplete or names an unknown network.

    Examples:
        >>> backbone_from_spec(load_backbone("builtin").spec()).name
        'builtin'
    """
    spec = renamed(spec)
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
    network = find_adapter(bare).make()(bare, names, None, pretrained=False)
    return Backbone(name, network.trunk, infos, ImageSize(height, width), mean, std, multiple)
