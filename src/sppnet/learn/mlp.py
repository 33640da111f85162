"""A network of one hidden layer, learned by backpropagation from rows that lie in memory."""

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
    """O functions of a row of D features: linear, the positive part, linear.

    Attributes:
        first: weight ``[H, D]``, bias ``[H]``.
        second: weight ``[O, H]``, bias ``[O]``.
    """

    first: LinearModel
    second: LinearModel

    def outputs(self, rows: Tensor) -> Tensor:
        """``rows [N, D]`` to ``[N, O]``."""
        return self.second.scores(self.first.scores(rows).relu_())


@dataclass(frozen=True)
class MLPOptions:
    """How a hidden layer is learned.

    Attributes:
        neurons: of the hidden layer.
        epochs: times that every row is seen, unless `steps` say otherwise.
        steps: batches at least and at most.
        batch: rows a batch.
        rate: the highest learning rate, reached after a third of the steps.
        decay: of the weights, a step and unit of the learning rate.
        dropout: share of the neurons that are left out of a step.

    Raises:
        UserError: a value outside its range.
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
            ("steps", 1 <= self.steps[0] <= self.steps[1], "two whole numbers, the smaller one first"),
            ("batch", self.batch >= 1, "at least 1"),
            ("rate", self.rate > 0, "a number above 0"),
            ("decay", self.decay >= 0, "at least 0"),
            ("dropout", 0 <= self.dropout < 1, "a share below 1"),
        )
        for name, right, wanted in ranges:
            if not right:
                raise UserError(f"MLPOptions.{name}", wanted, getattr(self, name))


def fit_mlp(
    rows: Tensor,
    outputs: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    options: MLPOptions,
    draw: torch.Generator,
) -> MLP:
    """Learn by AdamW, with dropout, at a rate that rises and falls.

    Args:
        rows: ``[N, D]``, float32 on the CPU; overwritten: centred and scaled to a mean variance of 1.
        outputs: O.
        loss: of outputs ``[B, O]`` and the numbers ``[B]`` of their rows, to be minimised.
        options: how.
        draw: of the first weights, the batches and the dropout.

    Returns:
        The network, for rows as they were.

    Raises:
        UserError: rows that are no matrix or not finite.
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
    ways = torch.optim.AdamW(weights, lr=options.rate, weight_decay=options.decay)
    pace = torch.optim.lr_scheduler.OneCycleLR(ways, options.rate, total_steps=steps)
    kept = 1 - options.dropout
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.randperm(count, generator=draw)
        index, order = order[:batch], order[batch:]
        hidden = linear(rows[index], weights[0], weights[1]).relu()
        mask = (torch.rand(hidden.shape, generator=draw) < kept).float() / kept
        found = loss(linear(hidden * mask, weights[2], weights[3]), index)
        ways.zero_grad()
        torch.autograd.backward(found)
        ways.step()
        pace.step()
    w1, b1, w2, b2 = (w.detach() for w in weights)
    w1 /= scale
    return MLP(LinearModel(w1, b1 - w1 @ mean), LinearModel(w2, b2))
