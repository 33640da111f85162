"""Adapter of torchvision, whose networks are truncated after the last requested layer."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from sppnet.backbones.geometry import try_size
from sppnet.backbones.registry import LoadedTrunk
from sppnet.backbones.weights import download, fill, read_weights
from sppnet.errors import UserError
from sppnet.structures import ImageSize

# The normalisation of all classifiers of torchvision.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# SqueezeNet 1.0 has the best transfer accuracy before its last pooling; the others at stride 16.
_DEFAULT_LAYERS = {"squeezenet1_0": ("stride8",)}
_SIDES = (256, 384)
"""Sides of images to measure strides; two, because some modules return a fixed number of cells."""


class TorchvisionTrunk(nn.Module):
    """A torchvision network up to the last requested layer.

    Args:
        net: module of ``create_feature_extractor`` that maps normalised images to a dict of maps.
        names: keys of the dict, in the order of the outputs.
    """

    def __init__(self, net: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.net = net
        self.names = names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute one map per layer from normalised images ``[B, 3, H, W]``."""
        maps = self.net(images)
        return tuple(maps[name] for name in self.names)


def _make(name: str) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        some = "squeezenet1_0, resnet18, resnet50, mobilenet_v3_large, convnext_tiny"
        raise UserError(
            f"torchvision:{name}", f"a classifier of torchvision, such as {some}", "no such network"
        )
    # The initial weights of both take a minute and are replaced.
    slow = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, **slow).eval()


def _stages(net: nn.Module) -> list[str]:
    """Return the names of the stages: the children of the network, and the children of its sequences."""
    names: list[str] = []
    for name, child in net.named_children():
        if isinstance(child, nn.Sequential) and name in ("features", "trunk_output", "layers"):
            names += [f"{name}.{inner}" for inner, _ in child.named_children()]
        else:
            names.append(name)
    return names


def _last_at_stride(net: nn.Module, stride: int, where: str) -> str:
    """Return the last stage whose map has one cell per ``stride`` pixels."""
    heights: dict[str, int] = {}
    strides: dict[str, list[float]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], object], None]:
        def note(module: nn.Module, given: tuple[Tensor, ...], out: object) -> None:
            if isinstance(out, Tensor) and out.ndim == 4:
                heights[name] = out.shape[2]

        return note

    hooks = [net.get_submodule(name).register_forward_hook(watch(name)) for name in _stages(net)]
    try:
        for side in _SIDES:
            try_size(net, ImageSize(side, side), where)
            for name, height in heights.items():
                strides.setdefault(name, []).append(side / height)
    finally:
        for hook in hooks:
            hook.remove()
    # Networks without padding lose a few cells at the border, but far fewer than half of them.
    matching = [name for name, some in strides.items() if all(stride * 0.75 < s < stride * 1.5 for s in some)]
    if not matching:
        known = ", ".join(f"{name} ({max(some):.1f})" for name, some in strides.items())
        raise UserError(where, f"a network with a map of stride {stride}", f"layers (strides) {known}")
    return matching[-1]


def _check_layer(net: nn.Module, name: str, where: str) -> None:
    try:
        net.get_submodule(name)
    except AttributeError:
        known = ", ".join(_stages(net))
        raise UserError(where, f"one of its layers: {known}, or stride8, stride16", name) from None


def make(name: str, layers: tuple[str, ...] | None, weights: Path | None, *, pretrained: bool) -> LoadedTrunk:
    """Create a torchvision classifier up to the last of ``layers``.

    Args:
        name: ``"torchvision:"`` and the name in torchvision, such as ``"torchvision:squeezenet1_0"``.
        layers: module paths, such as ``"features.10"``, or strides, such as ``"stride8"`` for the last stage
            at that stride; None for stride 16 (SqueezeNet 1.0: stride 8).
        weights: a safetensors file with the parameter names of torchvision.
        pretrained: download weights if there is no file; otherwise weights are random.

    Raises:
        UserError: the network or a layer does not exist, or weights are not available or do not match.
    """
    from torch.fx import GraphModule
    from torch.fx.proxy import TraceError
    from torchvision.models.feature_extraction import create_feature_extractor

    where, name = name, name.removeprefix("torchvision:")
    net = _make(name)
    requested = layers or _DEFAULT_LAYERS.get(name, ("stride16",))
    names: list[str] = []
    for layer in requested:
        if layer.startswith("stride") and layer[6:].isdigit():
            names.append(_last_at_stride(net, int(layer[6:]), where))
        else:
            _check_layer(net, layer, where)
            names.append(layer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about nodes of the training mode, which is not used
        try:
            cut = create_feature_extractor(net, names).eval()
        except (ValueError, TypeError, TraceError) as error:
            raise UserError(where, "a network that torch.fx can truncate", str(error)) from error
    # A single graph, because copies of torchvision's pair of graphs are in training mode.
    extractor = GraphModule(cut, cut.graph).eval()
    if weights is not None:
        fill(extractor, read_weights(weights), weights)
    elif pretrained:
        path = _download(name)
        fill(extractor, read_weights(path), path)
    return LoadedTrunk(TorchvisionTrunk(extractor, tuple(names)), tuple(names), MEAN, STD)


def _download(name: str) -> Path:
    """Download the weights of torchvision, which timm publishes as safetensors for some networks."""
    import timm

    tag = f"{name}.tv_in1k"
    if not timm.is_model_pretrained(tag):
        raise UserError(
            f"torchvision:{name}",
            "weights in a .safetensors file",
            "none published (the downloads of torchvision are pickles, which are never loaded)",
            "Convert them once with safetensors.torch.save_file and pass --weights FILE.safetensors, or "
            "choose a timm: network.",
        )
    return download(f"timm/{tag}", f"torchvision:{name}")
