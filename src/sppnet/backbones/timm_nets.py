"""Adapter of timm, which uses its feature extraction interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sppnet.backbones.registry import LoadedTrunk
from sppnet.backbones.weights import download, fill, read_weights
from sppnet.errors import UserError

_DEFAULT = ("stride16",)
_TRANSFORMERS = ("VisionTransformer", "Eva")
"""Classes of timm that interpolate their position embeddings to the size of the image."""


class TimmTrunk(nn.Module):
    """Select output maps of a timm network.

    Args:
        net: a network of ``timm.create_model(features_only=True)``.
        order: index of each requested layer among the outputs of ``net``.
    """

    def __init__(self, net: nn.Module, order: tuple[int, ...]) -> None:
        super().__init__()
        self.net = net
        self.order = order

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute one map per layer from normalised images ``[B, 3, H, W]``."""
        maps = self.net(images)
        return tuple(maps[i] for i in self.order)

    def drop_unused(self) -> None:
        """Remove the blocks after the last layer, which EfficientNets of timm compute for no map."""
        blocks, last = getattr(self.net, "blocks", None), str(_infos(self.net)[-1]["module"])
        if isinstance(blocks, nn.Sequential) and last.startswith("blocks."):
            self.net.blocks = blocks[: int(last.split(".")[1]) + 1]


def _features_only(name: str, out_indices: tuple[int, ...] | None) -> nn.Module:
    import timm

    where = f"timm:{name}"
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0].split('.')[0]}*")[:5]
        some = ", ".join(near or ["resnet18", "convnext_atto", "efficientnet_b0"])
        raise UserError(where, "a network of timm", "no such network", f"Examples: {some}.")
    chosen: dict[str, Any] = {} if out_indices is None else {"out_indices": out_indices}
    try:
        net = timm.create_model(name, features_only=True, **chosen)
        if _is_transformer(net):
            # Without a choice, timm lists the last three blocks alone.
            blocks = len(list(net.get_submodule("model.blocks").children()))
            chosen = chosen or {"out_indices": tuple(range(blocks))}
            net = timm.create_model(name, features_only=True, dynamic_img_size=True, **chosen)
        return net.eval()
    except (RuntimeError, AssertionError, TypeError, ValueError, AttributeError) as error:
        raise UserError(where, "a network with feature extraction in timm", f"{error}") from error


def _is_transformer(net: nn.Module) -> bool:
    return type(getattr(net, "model", None)).__name__ in _TRANSFORMERS


def _index(layer: str, infos: list[dict[str, object]], where: str) -> int:
    """Return the index of a layer among the stages by its name or stride; the last one that matches."""
    stride = int(layer[6:]) if layer.startswith("stride") and layer[6:].isdigit() else None
    found = [i for i, info in enumerate(infos) if info["module"] == layer or info["reduction"] == stride]
    if not found:
        known = ", ".join(f"{info['module']} (stride {info['reduction']})" for info in infos)
        raise UserError(where, f"one of its layers: {known}", layer)
    return found[-1]


def make(name: str, layers: tuple[str, ...] | None, weights: Path | None, *, pretrained: bool) -> LoadedTrunk:
    """Create a timm network up to the last of ``layers``.

    Args:
        name: ``"timm:"`` and the name in timm, such as ``"timm:resnet18"``.
        layers: names of stages in timm's ``feature_info``, such as ``"layer2"``, or strides, such as
            ``"stride8"``; None for stride 16 or, for a vision transformer, its last block.
        weights: a safetensors file with the parameter names of timm.
        pretrained: download weights if there is no file; otherwise weights are random.

    Raises:
        UserError: the network or a layer does not exist, or weights are not available or do not match.
    """
    import timm

    where, name = name, name.removeprefix("timm:")
    whole = _features_only(name, None)
    infos = _infos(whole)
    patch = int(str(infos[-1]["reduction"])) if _is_transformer(whole) else 0
    default = (str(infos[-1]["module"]),) if patch else _DEFAULT
    requested = [_index(layer, infos, where) for layer in layers or default]
    indices = tuple(sorted(set(requested)))
    # timm numbers stages by "index" if the key exists.
    net = _features_only(name, tuple(int(str(infos[i].get("index", i))) for i in indices))
    given = _infos(net)
    if [i["module"] for i in given] != [infos[k]["module"] for k in indices]:
        raise UserError(
            where, f"its layers {[infos[k]['module'] for k in indices]}", [i["module"] for i in given]
        )
    order = tuple(indices.index(i) for i in requested)
    config = timm.get_pretrained_cfg(name)
    mean, std = (tuple(config.mean), tuple(config.std)) if config else ((0.5,) * 3, (0.5,) * 3)
    if weights is not None:
        fill(_filled(net), read_weights(weights), weights)
    elif pretrained:
        if config is None or not config.hf_hub_id:
            hint = "Pass local weights with --weights FILE.safetensors"
            raise UserError(where, "published weights", "none", hint)
        path = download(str(config.hf_hub_id), where)
        fill(_filled(net), read_weights(path), path)
    names = tuple(str(infos[i]["module"]) for i in requested)
    return LoadedTrunk(TimmTrunk(net, order), names, mean, std, patch)


def _filled(net: nn.Module) -> nn.Module:
    """Return the module whose parameters have the names of the whole network in timm."""
    inner = getattr(net, "model", None)
    return inner if isinstance(inner, nn.Module) and _is_transformer(net) else net


def _infos(net: nn.Module) -> list[dict[str, object]]:
    # All networks with features_only have this attribute, which is not in the type of nn.Module.
    infos: list[dict[str, object]] = net.feature_info.get_dicts()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    return infos
