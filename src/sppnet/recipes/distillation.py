"""A pretrained SqueezeNet as the teacher of the builtin network: its maps, cell by cell."""

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
    """SqueezeNet 1.0 as a teacher on the student's grid.

    Its cells lie at 9.5 + 8 i and 17.5 + 16 i, the student's at 0.5 + 8 i and 0.5 + 16 i; the image is
    flipped outwards by 17 pixels so that cells meet, which also spares the border the teacher's padding.
    Of both fires only the 3x3 half is taught: alone it serves a linear classifier as well as the whole.

    Args:
        weights: a safetensors file with torchvision's names.
        device: where it runs.

    Returns:
        normalised ``[B, 3, H, W]``, sides multiples of 16 from 32 on, to ``[B, 256, H / 8, W / 8]`` and
        ``[B, 256, H / 16, W / 16]``.

    Raises:
        UserError: no such file, or it holds something else.
    """
    from torchvision.models import squeezenet1_0

    if not weights.is_file():
        raise UserError(weights, "the teacher's safetensors file", "no such file")
    net = squeezenet1_0(weights=None)
    try:
        net.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
    except (SafetensorError, RuntimeError) as problem:
        raise UserError(weights, "SqueezeNet 1.0's tensors under torchvision's names", problem) from problem
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
    """Each channel's root mean square, so that every channel counts; rare ones are not blown up.

    Returns:
        ``[1, 256, 1, 1]`` for either layer; targets are the teacher's maps over these.
    """
    maps = [teacher(batch) for batch in batches]
    both: list[Tensor] = []
    for layer in (0, 1):
        values = torch.cat([m[layer].transpose(0, 1).flatten(1) for m in maps], 1)
        size = values.square().mean(1).sqrt()
        both.append(size.clamp(min=0.25 * float(size.median()) + 1e-6).view(1, -1, 1, 1))
    return both[0], both[1]


def distillation_loss(before_relu: Tensor, target: Tensor) -> Tensor:
    """Mean squared error behind the ReLU that still teaches cells which are wrongly off.

    Where the target is 0, only positive values are wrong; elsewhere the difference counts on both sides.
    """
    right = (target <= 0) & (before_relu <= 0)
    return (before_relu - target).masked_fill(right, 0).square().mean()


def explained(before_relu: Tensor, target: Tensor) -> Tensor:
    """The share of the target's variance, channel by channel, that the rectified map explains."""
    error = (before_relu.clamp(min=0) - target).square().mean()
    return 1 - error / (target - target.mean((0, 2, 3), keepdim=True)).square().mean()
