"""The Muon optimiser: orthogonalised momentum for the kernels of a convolutional network."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalise(kernel: Tensor) -> Tensor:
    """Move the singular values of a kernel, as a matrix with one row per output channel, close to 1.

    Four Newton-Schulz steps with a quintic polynomial give singular values between about 0.7 and 1.2,
    with matrix products only.

    Args:
        kernel: ``[O, ...]`` with O output channels and at least two dimensions.

    Returns:
        The orthogonalised kernel, of the same shape.
    """
    matrix = kernel.flatten(1)
    tall = matrix.shape[0] > matrix.shape[1]
    matrix = matrix.T if tall else matrix
    matrix = matrix / (matrix.norm() + 1e-7)
    for _ in range(4):
        gram = matrix @ matrix.T
        matrix = 3.4445 * matrix + (-4.7750 * gram + 2.0315 * gram @ gram) @ matrix
    return (matrix.T if tall else matrix).reshape(kernel.shape)


class Muon:
    """Optimise kernels by Nesterov momentum whose steps are orthogonalised.

    All directions of a kernel change at the same rate, including those of rare features. It needs fewer
    steps than AdamW.

    Args:
        kernels: parameters of at least two dimensions.
        momentum: the decay factor of the momentum.
        decay: weight decay, multiplied by the learning rate.
    """

    def __init__(self, kernels: Iterable[nn.Parameter], momentum: float = 0.9, decay: float = 0.01) -> None:
        self.kernels = list(kernels)
        self.directions = [torch.zeros_like(kernel) for kernel in self.kernels]
        self.momentum = momentum
        self.decay = decay

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update every kernel that has a gradient, by about ``rate`` in each of its directions."""
        for kernel, direction in zip(self.kernels, self.directions, strict=True):
            if kernel.grad is None:
                continue
            direction.mul_(self.momentum).add_(kernel.grad)
            nesterov = kernel.grad + self.momentum * direction
            aspect = max(1.0, kernel.shape[0] / kernel[0].numel()) ** 0.5
            kernel.mul_(1 - rate * self.decay).add_(orthogonalise(nesterov), alpha=-rate * aspect)
