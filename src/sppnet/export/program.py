"""Export classifiers and feature extractors for images of any size with torch.export."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sppnet.backbones import Backbone, prepare
from sppnet.errors import UserError
from sppnet.export.parts import ClassifierParts, FeatureParts, NetworkParts
from sppnet.export.reading import estimator_parts
from sppnet.export.targets import MARK, ExportOptions, check_target, write_export

# Symbolic heights and widths are not int for a type checker.
Side = Any
_SIDES = (203, 331)  # of the traced image
_LEAST, _LARGEST = 32, 1 << 20


def export_program(estimator: object, path: str | os.PathLike[str], *, part: str = "all") -> Path:
    """Write a `torch.export` program for images, uint8 ``[H, W, 3]``, of any size; it needs torch only.

    A classifier returns probabilities ``[K]`` and features ``[D]``; ``part="features"`` of any estimator
    returns the features ``[S, D]`` of the image at S scales. The number of windows and detections of a
    detector depends on the image, which programs cannot express; export detectors to ONNX, and likewise
    trained networks that are tested on crops or regions. Images of less than 32 pixels or maps of less than
    two cells per side raise an AssertionError when the program runs.

    Load it with ``torch.export.load(path).module(check_guards=False)``: torch guards that no map is a single
    cell high or wide, for the sake of memory layouts on which nothing here depends.

    Args:
        estimator: a fitted estimator.
        path: the file, ending in ``.pt2``.
        part: ``all`` or ``features``.

    Returns:
        The path.

    Raises:
        UserError: the estimator is a whole detector or not fitted, the path has another extension, or it is a
            file that sppnet did not export.

    Examples:
        >>> from sppnet import Classifier
        >>> export_program(Classifier(), "model.onnx")
        Traceback (most recent call last):
        sppnet.errors.UserError: model.onnx: expected a file that ends in .pt2, got .onnx
    """
    target = Path(path)
    check_target(target, ".pt2")
    if part not in ("all", "features"):
        raise UserError("part", "all or features for a torch program", repr(part))
    parts = estimator_parts(estimator)
    if part == "features":
        module: nn.Module = _Features(parts.features)
    elif isinstance(parts, ClassifierParts):
        module = _Classifier(parts)
    elif isinstance(parts, NetworkParts):
        if parts.views.full is None or parts.views.positions != "none":
            hint = "Export it to ONNX, or set views to the full image."
            raise UserError("views", "the full image only for a torch program", "crops or regions", hint)
        module = _Network(parts)
    else:
        expected = "a classifier, or the part features"
        raise UserError("format torch", expected, "a whole detector", "Export it to ONNX.")
    height, width = (torch.export.Dim(n, min=_LEAST, max=_LARGEST) for n in ("height", "width"))
    image = torch.zeros(*_SIDES, 3, dtype=torch.uint8)
    program = torch.export.export(module.eval(), (image,), dynamic_shapes=({0: height, 1: width},))
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={MARK: ""})
    return write_export(target, content.getvalue())


def torch_target(estimator: object, path: Path, options: ExportOptions) -> Path:
    """Write a `torch.export` program; see `sppnet.export.targets.Target`."""
    if options.precision != "float32":
        raise UserError("precision", "float32 for a program of torch.export", repr(options.precision))
    return export_program(estimator, path, part=options.part)


class _Features(nn.Module):
    """Features ``[S, D]`` of the image at S scales."""

    def __init__(self, parts: FeatureParts) -> None:
        super().__init__()
        self.backbone = prepare(parts.backbone, "cpu", "float32")
        self.parts = parts

    def levels(self, image: Tensor, scale: int) -> list[Tensor]:
        """Return features ``[C * n * n]`` for each layer and level of an image ``[3, H, W]``."""
        size = _resized(image.shape[1], image.shape[2], scale, self.parts, self.backbone)
        resized = functional.interpolate(
            image[None], size, mode="bilinear", align_corners=False, antialias=self.parts.antialias
        )
        maps = self.backbone.trunk((resized - self.backbone.mean) / self.backbone.std)
        return [_pool(one, level, self.parts.mode) for one in maps for level in self.parts.levels]

    def forward(self, image: Tensor) -> Tensor:
        pixels = image.permute(2, 0, 1).float() / 255
        return torch.stack([torch.cat(self.levels(pixels, scale)) for scale in self.parts.scales])


class _Classifier(nn.Module):
    """Probabilities ``[K]`` and features ``[D]``."""

    def __init__(self, parts: ClassifierParts) -> None:
        super().__init__()
        self.features = _Features(parts.features)
        self.parts = parts
        self.register_buffer("weight", torch.from_numpy(parts.svm.weight.copy()))
        self.register_buffer("bias", torch.from_numpy(parts.svm.bias.copy()))
        self.weight: Tensor
        self.bias: Tensor

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        pixels = image.permute(2, 0, 1).float() / 255
        views = [pixels, pixels.flip(2)] if self.parts.flip else [pixels]
        vectors: list[Tensor] = []
        for scale in self.parts.features.scales:
            pooled = [self.features.levels(view, scale) for view in views]
            if self.parts.normalise:
                pooled = [[functional.normalize(level, dim=0) for level in levels] for levels in pooled]
            joined = [torch.cat(levels) for levels in pooled]
            vectors.append(joined[0] if len(joined) == 1 else joined[0] + joined[1])
        vector = functional.normalize(torch.cat(vectors), dim=0)
        slope, offset = (float(v) for v in self.parts.calibration)
        scores = torch.addmm(self.bias, vector[None], self.weight.T)[0]
        return torch.softmax(slope * scores + offset, 0), vector


class _Network(nn.Module):
    """Probabilities ``[K]`` and features ``[D]`` of a trained network, from the full image."""

    def __init__(self, parts: NetworkParts) -> None:
        super().__init__()
        self.features = _Features(parts.features)
        self.scale = parts.views.full or 0
        self.flip = parts.views.flip
        self.layers = nn.ModuleList()
        for layer in parts.layers:
            linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
            tensors = {"weight": torch.from_numpy(layer.weight), "bias": torch.from_numpy(layer.bias)}
            linear.load_state_dict(tensors)
            self.layers.append(linear)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        pixels = image.permute(2, 0, 1).float() / 255
        views = [pixels, pixels.flip(2)] if self.flip else [pixels]
        rows = torch.stack([torch.cat(self.features.levels(view, self.scale)) for view in views])
        values = rows
        for number, layer in enumerate(self.layers):
            values = layer(values if number == 0 else torch.relu(values))
        return torch.softmax(values, 1).mean(0), rows[0]


def _resized(
    height: Side, width: Side, scale: int, parts: FeatureParts, backbone: Backbone
) -> tuple[Side, Side]:
    """Return the size like `sppnet.features.resized_size`, without a branch on a size."""
    short = torch.sym_min(height, width)
    if parts.longest_shape is not None:
        bound = parts.longest_shape * short
        height, width = torch.sym_min(height, bound), torch.sym_min(width, bound)
    longest = torch.sym_max(height, width)
    step, least = backbone.multiple, backbone.minimum
    side: Side = scale or short

    def rounded(length: Side) -> Side:
        plain = _nearest(length * side, short * step)
        if (limit := parts.long_side) is None:
            return step * plain
        over = _nearest(longest * side, short) > limit
        return step * torch.sym_ite(over, _nearest(length * limit, longest * step), plain)

    return torch.sym_max(rounded(height), least.height), torch.sym_max(rounded(width), least.width)


def _nearest(numerator: Side, denominator: Side) -> Side:
    return (2 * numerator + denominator) // (2 * denominator)


def _pool(maps: Tensor, level: int, mode: str) -> Tensor:
    """Pool a level of maps ``[1, C, H, W]`` with slices: ``[C * level * level]``."""
    for axis in (2, 3):
        side = maps.shape[axis]
        bins = [
            maps.narrow(axis, start := side * i // level, (side * (i + 1) + level - 1) // level - start)
            for i in range(level)
        ]
        pooled = [one.amax(axis, True) if mode == "max" else one.mean(axis, True) for one in bins]
        maps = torch.cat(pooled, axis)
    return maps.flatten()
