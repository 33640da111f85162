"""From a name to a backbone, and from a run's description back to one."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sppnet.backbones import paper_nets
from sppnet.backbones.base import Backbone, LayerInfo
from sppnet.backbones.geometry import SHORT, count_channels, measure_grids, smallest_side
from sppnet.backbones.paper_nets import is_paper_net
from sppnet.backbones.weights import run_backbone
from sppnet.errors import UserError
from sppnet.structures import Grid, ImageSize

_FORMS = (
    "builtin, torchvision:NAME, timm:NAME, zf5, convnet5, overfeat5 or overfeat7, with random: before it for "
    "random weights"
)
_RANDOM = "random:"


# Parameters and buffers made in inference mode could never be trained: a caller's inference mode is left.
@torch.inference_mode(False)
def load_backbone(
    name: str, weights: Path | None = None, layers: tuple[str, ...] | None = None, seed: int = 0
) -> Backbone:
    """A backbone with its weights, ready for images of any size.

    Args:
        name: ``builtin``, ``torchvision:NAME``, ``timm:NAME`` or one of the paper's, ``zf5``, ``convnet5``,
            ``overfeat5`` and ``overfeat7``, whose weights are random unless a file is given, and which have
            a quarter of their channels with ``/4`` behind the name; with ``random:`` before it, such as
            ``random:timm:resnet18``, the weights are the network's own random start, drawn from
            ``seed``: what features are worth without pretraining.
        weights: a safetensors file with the library's own parameter names, in any floating precision;
            None takes the bundled weights (builtin) or downloads them.
        layers: which layers to give, by the library's names or as ``stride8``, ``stride16``; None takes
            the network's default: one layer, both of builtin.
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
        trunk, names, mean, std = _make(name.removeprefix(_RANDOM), weights, layers, pretrained=not random)
    if run is not None:
        mean, std = run.mean, run.std  # what the weights were trained with
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
    """The probes are too small to share: on a busy machine threads would wait longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode(False)
def backbone_from_spec(spec: dict[str, Any]) -> Backbone:
    """The architecture that ``Backbone.spec`` described, with weights yet to be loaded.

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
    trunk, *_ = _make(name.removeprefix(_RANDOM), None, names, pretrained=False)
    return Backbone(name, trunk, infos, ImageSize(height, width), mean, std, multiple)


def _make(
    name: str, weights: Path | None, layers: tuple[str, ...] | None, *, pretrained: bool
) -> tuple[nn.Module, tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
    """Trunk, layer names, mean and standard deviation."""
    library, _, net = name.partition(":")
    if name == "builtin":
        from sppnet.backbones import builtin_trunk

        trunk, names = builtin_trunk.make_trunk(layers, weights, pretrained=pretrained)
        return trunk, names, builtin_trunk.BuiltinNet.MEAN, builtin_trunk.BuiltinNet.STD
    if is_paper_net(name):
        trunk, names = paper_nets.make_trunk(name, layers, weights)
        return trunk, names, paper_nets.MEAN, paper_nets.STD
    if library == "torchvision" and net:
        from sppnet.backbones import torchvision_nets

        trunk, names = torchvision_nets.make_trunk(net, layers, weights, pretrained=pretrained)
        return trunk, names, torchvision_nets.MEAN, torchvision_nets.STD
    if library == "timm" and net:
        from sppnet.backbones import timm_nets

        return timm_nets.make_trunk(net, layers, weights, pretrained=pretrained)
    raise UserError("backbone", _FORMS, repr(name))
