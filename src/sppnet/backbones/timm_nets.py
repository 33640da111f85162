"""Networks of timm, through its own feature interface."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from sppnet.backbones.registry import Made
from sppnet.backbones.weights import download, fill, read_weights
from sppnet.errors import UserError

_DEFAULT = ("stride16",)


class TimmTrunk(nn.Module):
    """A timm network that gives some of its stages' maps.

    Args:
        net: what ``timm.create_model(features_only=True)`` made.
        order: for each wanted layer, its place among the maps that ``net`` gives.
    """

    def __init__(self, net: nn.Module, order: tuple[int, ...]) -> None:
        super().__init__()
        self.net = net
        self.order = order

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised ``[B, 3, H, W]`` to one map a layer."""
        maps = self.net(images)
        return tuple(maps[i] for i in self.order)


def _features_only(name: str, out_indices: tuple[int, ...] | None) -> nn.Module:
    import timm

    where = f"timm:{name}"
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0].split('.')[0]}*")[:5]
        some = ", ".join(near or ["resnet18", "convnext_atto", "efficientnet_b0"])
        raise UserError(where, "a network of timm", "no such network", f"Some that exist: {some}")
    try:
        if out_indices is None:
            return timm.create_model(name, features_only=True).eval()
        return timm.create_model(name, features_only=True, out_indices=out_indices).eval()
    except (RuntimeError, AssertionError, TypeError, ValueError, AttributeError) as error:
        raise UserError(where, "a network that timm gives feature maps of", f"{error}") from error


def _place(layer: str, infos: list[dict[str, object]], where: str) -> int:
    """The place of a layer among the network's stages, by its name or its stride; the last that fits."""
    stride = int(layer[6:]) if layer.startswith("stride") and layer[6:].isdigit() else None
    found = [i for i, info in enumerate(infos) if info["module"] == layer or info["reduction"] == stride]
    if not found:
        known = ", ".join(f"{info['module']} (stride {info['reduction']})" for info in infos)
        raise UserError(where, f"one of its layers: {known}", layer)
    return found[-1]


def make(name: str, layers: tuple[str, ...] | None, weights: Path | None, *, pretrained: bool) -> Made:
    """Make a timm network up to the last of ``layers``.

    Args:
        name: ``"timm:"`` and timm's name, such as ``"timm:resnet18"`` or ``"convnext_atto.d2_in1k"``.
        layers: stages as timm's ``feature_info`` names them, such as ``"layer2"``, or ``"stride8"`` and
            the like; None takes stride 16.
        weights: a safetensors file with timm's parameter names.
        pretrained: without a file, download weights; otherwise keep the random start.

    Raises:
        UserError: no such network or layer, or weights that cannot be had or do not fit.
    """
    import timm

    where, name = name, name.removeprefix("timm:")
    whole = _features_only(name, None)
    infos = _infos(whole)
    wanted = [_place(layer, infos, where) for layer in layers or _DEFAULT]
    kept = tuple(sorted(set(wanted)))
    # timm numbers the stages by their "index" where it gives one.
    net = _features_only(name, tuple(int(str(infos[i].get("index", i))) for i in kept))
    given = _infos(net)
    if [i["module"] for i in given] != [infos[k]["module"] for k in kept]:
        raise UserError(
            where, f"its layers {[infos[k]['module'] for k in kept]}", [i["module"] for i in given]
        )
    order = tuple(kept.index(i) for i in wanted)
    config = timm.get_pretrained_cfg(name)
    mean, std = (tuple(config.mean), tuple(config.std)) if config else ((0.5,) * 3, (0.5,) * 3)
    if weights is not None:
        fill(net, read_weights(weights), weights)
    elif pretrained:
        if config is None or not config.hf_hub_id:
            hint = "Pass local weights with --weights FILE.safetensors"
            raise UserError(where, "published weights", "none", hint)
        path = download(str(config.hf_hub_id), where)
        fill(net, read_weights(path), path)
    return Made(TimmTrunk(net, order), tuple(str(infos[i]["module"]) for i in wanted), mean, std)


def _infos(net: nn.Module) -> list[dict[str, object]]:
    # timm gives every network of `features_only` this attribute, which nn.Module's type does not know.
    infos: list[dict[str, object]] = net.feature_info.get_dicts()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    return infos
