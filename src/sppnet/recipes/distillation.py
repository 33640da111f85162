"""Distillation of the feature maps of a pretrained SqueezeNet into the builtin network.

Shapes: `B` batch, `H` and `W` height and width of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sppnet.errors import UserError

Teacher = Callable[[Tensor], tuple[Tensor, Tensor]]


def load_teacher(weights: Path, device: torch.device) -> Teacher:
    """Load SqueezeNet 1.0 as a teacher on the grid of the student.

    The cells of SqueezeNet are centred at 9.5 + 8 i and 17.5 + 16 i, those of the student at 0.5 + 8 i and
    0.5 + 16 i. The image is padded by reflection of 17 pixels so that the grids agree; this also moves the
    zero padding of the teacher outside. Only the 3x3 half of the channels of both fire modules is used: a
    linear classifier on it is as accurate as on all channels.

    Args:
        weights: a safetensors file with the tensor names of torchvision.
        device: device of the teacher.

    Returns:
        A function of normalised images ``[B, 3, H, W]``, whose sides are multiples of 16 and at least 32,
        that returns ``[B, 256, H / 8, W / 8]`` and ``[B, 256, H / 16, W / 16]``.

    Raises:
        UserError: the file does not exist or has other tensors.
    """
    from torchvision.models import squeezenet1_0

    if not weights.is_file():
        raise UserError(weights, "a safetensors file of the teacher", "no such file")
    net = squeezenet1_0(weights=None)
    try:
        net.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
    except (SafetensorError, RuntimeError) as error:
        expected = "tensors of SqueezeNet 1.0 with the names of torchvision"
        raise UserError(weights, expected, error) from error
    features = net.features.eval().to(device).to(memory_format=torch.channels_last)

    def teach(images: Tensor) -> tuple[Tensor, Tensor]:
        height, width = images.shape[-2] // 16, images.shape[-1] // 16
        with torch.no_grad():
            fine = features[:11](F.pad(images, (17, 10, 17, 10), mode="reflect"))
            coarse = features[11:](fine)
        return (
            fine[:, 256:, 1 : 1 + 2 * height, 1 : 1 + 2 * width],
            coarse[:, 256:, :height, :width],
        )

    return teach


def measure_scales(teacher: Teacher, batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Measure the root mean square of each channel, with a quarter of the median as the minimum.

    Dividing by it gives channels comparable weights in the loss, without amplifying rarely active ones.

    Args:
        teacher: the teacher.
        batches: normalised images ``[B, 3, H, W]``.

    Returns:
        ``[1, 256, 1, 1]`` for each layer.
    """
    maps = [teacher(batch) for batch in batches]
    scales: list[Tensor] = []
    for layer in (0, 1):
        values = torch.cat([m[layer].transpose(0, 1).flatten(1) for m in maps], 1)
        size = values.square().mean(1).sqrt()
        scales.append(size.clamp(min=0.25 * float(size.median()) + 1e-6).view(1, -1, 1, 1))
    return scales[0], scales[1]


def distillation_loss(before_relu: Tensor, target: Tensor) -> Tensor:
    """Compute the mean squared error before the ReLU, without cells where both values are at most 0.

    The error of cells that are negative and should be positive has a gradient, unlike an error after the
    ReLU.
    """
    inactive = (target <= 0) & (before_relu <= 0)
    return (before_relu - target).masked_fill(inactive, 0).square().mean()


def explained(before_relu: Tensor, target: Tensor) -> Tensor:
    """Compute the fraction of the variance of the target, per channel, that the map after ReLU explains."""
    error = (before_relu.clamp(min=0) - target).square().mean()
    return 1 - error / (target - target.mean((0, 2, 3), keepdim=True)).square().mean()
