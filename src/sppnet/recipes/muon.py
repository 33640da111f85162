"""Momentum whose steps are orthogonalised, for the kernels of a convolutional network."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalise(kernel: Tensor) -> Tensor:
    """A kernel whose singular values, as a matrix of one row an output channel, are all near 1.

    Four Newton-Schulz steps with a quintic that lifts small singular values fast and leaves them between
    about 0.7 and 1.2; matrix products only, no decomposition.

    Args:
        kernel: ``[O, ...]``, at least two dimensions.
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
    """Nesterov momentum, orthogonalised per kernel.

    Of few steps it makes more than AdamW does: every direction of a kernel moves at the same speed,
    however rare the features behind it are.

    Args:
        kernels: parameters of at least two dimensions.
        momentum: the share of the last direction that is kept.
        decay: weight decay, times the rate.
    """

    def __init__(self, kernels: Iterable[nn.Parameter], momentum: float = 0.9, decay: float = 0.01) -> None:
        self.kernels = list(kernels)
        self.directions = [torch.zeros_like(kernel) for kernel in self.kernels]
        self.momentum = momentum
        self.decay = decay

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every kernel that has a gradient by about ``rate`` in each of its directions."""
        for kernel, direction in zip(self.kernels, self.directions, strict=True):
            if kernel.grad is None:
                continue
            direction.mul_(self.momentum).add_(kernel.grad)
            ahead = kernel.grad + self.momentum * direction
            wider = max(1.0, kernel.shape[0] / kernel[0].numel()) ** 0.5
            kernel.mul_(1 - rate * self.decay).add_(orthogonalise(ahead), alpha=-rate * wider)
