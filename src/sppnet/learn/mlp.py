"""An MLP with one hidden layer, trained by backpropagation on features in memory.

Shapes: `N` samples, `D` length of a feature vector, `H` hidden neurons, `O` outputs, `B` batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sppnet.errors import UserError
from sppnet.learn.linear import LinearModel, check_rows


@dataclass(frozen=True)
class MLP:
    """An MLP with one hidden layer of rectified linear units.

    Attributes:
        first: weight ``[H, D]``, bias ``[H]``.
        second: weight ``[O, H]``, bias ``[O]``.

    Examples:
        >>> import torch
        >>> first = LinearModel(torch.tensor([[1.0], [-1.0]]), torch.zeros(2))
        >>> second = LinearModel(torch.ones(1, 2), torch.zeros(1))
        >>> MLP(first, second).outputs(torch.tensor([[-3.0], [2.0]])).tolist()
        [[3.0], [2.0]]
    """

    first: LinearModel
    second: LinearModel

    def outputs(self, rows: Tensor) -> Tensor:
        """Compute the outputs ``[N, O]`` for features ``rows [N, D]``."""
        return self.second.scores(self.first.scores(rows).relu_())


@dataclass(frozen=True)
class MLPOptions:
    """Options of `fit_mlp`.

    Attributes:
        neurons: number of hidden neurons.
        epochs: passes over the samples, within the limits of ``steps``.
        steps: minimum and maximum number of batches.
        batch: samples per batch.
        rate: maximum learning rate, reached after 30 percent of the steps.
        decay: weight decay, multiplied by the learning rate in each step.
        dropout: probability with which a hidden neuron is dropped in a step.

    Raises:
        UserError: a value is out of range.

    Examples:
        >>> MLPOptions(neurons=64).neurons
        64
    """

    neurons: int = 256
    epochs: int = 5
    steps: tuple[int, int] = (250, 400)
    batch: int = 256
    rate: float = 1e-3
    decay: float = 1.0
    dropout: float = 0.5

    def __post_init__(self) -> None:
        ranges = (
            ("neurons", self.neurons >= 1, "at least 1"),
            ("epochs", self.epochs >= 1, "at least 1"),
            ("steps", 1 <= self.steps[0] <= self.steps[1], "a minimum of at least 1 and a maximum"),
            ("batch", self.batch >= 1, "at least 1"),
            ("rate", self.rate > 0, "a number above 0"),
            ("decay", self.decay >= 0, "at least 0"),
            ("dropout", 0 <= self.dropout < 1, "a probability of at least 0 and below 1"),
        )
        for name, valid, expected in ranges:
            if not valid:
                raise UserError(f"MLPOptions.{name}", expected, getattr(self, name))


def fit_mlp(
    rows: Tensor,
    outputs: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    options: MLPOptions,
    draw: torch.Generator,
) -> MLP:
    """Train an MLP by AdamW with dropout and a one-cycle learning rate.

    Args:
        rows: float32 features ``[N, D]`` on the CPU. They are overwritten: centred and scaled to a mean
            variance of 1.
        outputs: number of outputs O.
        loss: function to minimise, of outputs ``[B, O]`` and the indices ``[B]`` of their samples.
        options: network and training.
        draw: random generator of the initial weights, the batches and the dropout.

    Returns:
        The MLP; it takes features as they were before centring and scaling.

    Raises:
        UserError: ``rows`` is not a matrix or not finite.

    Examples:
        >>> import torch
        >>> features, target = torch.randn(200, 3), torch.randn(200, 1)
        >>> def loss(out, index):
        ...     return (out - target[index]).square().mean()
        >>> mlp = fit_mlp(features, 1, loss, MLPOptions(neurons=8), torch.Generator())
        >>> mlp.outputs(torch.randn(5, 3)).shape
        torch.Size([5, 1])
    """
    rows = check_rows(rows)
    mean = rows.mean(0)
    rows -= mean
    scale = float(rows.square().mean().sqrt().clamp(min=1e-12))
    rows /= scale
    count, length = rows.shape
    batch = min(options.batch, count)
    low, high = options.steps
    steps = max(low, min(high, options.epochs * count // batch))
    shapes = ((options.neurons, length), (options.neurons,), (outputs, options.neurons), (outputs,))
    bounds = (length**-0.5, length**-0.5, options.neurons**-0.5, options.neurons**-0.5)
    weights = [
        nn.Parameter((torch.rand(shape, generator=draw) * 2 - 1) * bound)
        for shape, bound in zip(shapes, bounds, strict=True)
    ]
    optimiser = torch.optim.AdamW(weights, lr=options.rate, weight_decay=options.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.rate, total_steps=steps)
    keep = 1 - options.dropout
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.randperm(count, generator=draw)
        index, order = order[:batch], order[batch:]
        hidden = linear(rows[index], weights[0], weights[1]).relu()
        mask = (torch.rand(hidden.shape, generator=draw) < keep).float() / keep
        value = loss(linear(hidden * mask, weights[2], weights[3]), index)
        optimiser.zero_grad()
        torch.autograd.backward(value)
        optimiser.step()
        schedule.step()
    w1, b1, w2, b2 = (w.detach() for w in weights)
    w1 /= scale
    return MLP(LinearModel(w1, b1 - w1 @ mean), LinearModel(w2, b2))
