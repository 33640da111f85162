"""Distillation of the feature maps of EfficientNet-Lite2 into the builtin network.

Shapes: `B` batch, `C` channels, `H` and `W` height and width of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sppnet.backbones import load_backbone, prepare
from sppnet.backbones.builtin import BuiltinNet
from sppnet.errors import UserError

Teacher = Callable[[Tensor], tuple[Tensor, ...]]

_STEP = max(BuiltinNet.STRIDES)


def load_teacher(weights: Path, device: torch.device) -> Teacher:
    """Load EfficientNet-Lite2 as a teacher on the grid of the student.

    The cells of the teacher are centred at s - 0.5 + s i at stride s, those of the student at 0.5 + s i. The
    image is padded by reflection of 31 pixels on the left and at the top, so that the grids agree, and of 33
    pixels on the other sides; this also moves the zero padding of the teacher outside.

    Args:
        weights: a safetensors file with the tensor names of timm.
        device: device of the teacher.

    Returns:
        A function of images ``[B, 3, H, W]``, normalised for the student, whose sides are multiples of 32 and
        at least 64, that returns ``[B, C, H / s, W / s]`` for strides s of 8, 16 and 32.

    Raises:
        UserError: the file does not exist or has other tensors.
    """
    if not weights.is_file():
        raise UserError(weights, "a safetensors file of the teacher", "no such file")
    network = prepare(load_backbone("lite2", weights), device, precision="float32")
    shift = round(network.layers[-1].grid.first - 0.5)
    skipped = [round((0.5 + shift - layer.grid.first) / layer.grid.stride) for layer in network.layers]
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (BuiltinNet.MEAN, BuiltinNet.STD))

    def teach(images: Tensor) -> tuple[Tensor, ...]:
        after = 2 * _STEP - shift
        padded = F.pad(images * std + mean, (shift, after, shift, after), mode="reflect")
        with torch.no_grad():
            maps = network(padded.contiguous(memory_format=torch.channels_last))
        height, width = images.shape[-2:]
        return tuple(
            m[..., k : k + height // stride, k : k + width // stride]
            for m, k, stride in zip(maps, skipped, BuiltinNet.STRIDES, strict=True)
        )

    return teach


def measure_scales(teacher: Teacher, batches: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Measure mean and standard deviation of each channel, the latter at least a quarter of the median.

    Standardised channels have comparable weights in the loss; rarely active ones are not amplified.

    Args:
        teacher: the teacher.
        batches: normalised images ``[B, 3, H, W]``.

    Returns:
        ``[2, C]`` for each layer.
    """
    maps = [teacher(batch) for batch in batches]
    scales: list[Tensor] = []
    for layer in range(len(maps[0])):
        values = torch.cat([m[layer].transpose(0, 1).flatten(1) for m in maps], 1)
        spread = values.std(1, correction=0)
        spread = spread.clamp(min=0.25 * float(spread.median()) + 1e-6)
        scales.append(torch.stack([values.mean(1), spread]))
    return tuple(scales)


def standardised(maps: Tensor, scale: Tensor) -> Tensor:
    """Standardise maps ``[B, C, H, W]`` by ``scale [2, C]`` of `measure_scales`."""
    mean, spread = scale[:, :, None, None]
    return (maps - mean) / spread


def explained(maps: Tensor, target: Tensor) -> Tensor:
    """Compute the fraction of the variance of the target, per channel, that a map explains."""
    error = (maps - target).square().mean()
    return 1 - error / (target - target.mean((0, 2, 3), keepdim=True)).square().mean()
