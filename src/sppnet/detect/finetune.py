"""Fine-tuning of the fully connected layers on proposals (He et al. 2015, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from sppnet.backbones.weights import read_fc_weights
from sppnet.detect.fc_head import FullyConnected
from sppnet.detect.head_options import FcOptions, FinetuneOptions
from sppnet.detect.sources import RowSource
from sppnet.errors import UserError
from sppnet.ops.boxes import iou
from sppnet.progress import track
from sppnet.structures import Boxes, GroundTruth

_UNUSED = -1


def window_labels(windows: Boxes, truth: GroundTruth, options: FinetuneOptions) -> Tensor:
    """Assign classes to proposals for fine-tuning.

    A proposal has the class of the object with the highest IoU if that is at least ``foreground_iou``; crowds
    are ignored.

    Returns:
        int64 ``[N]``: the class, K for the background, -1 for proposals that are not used.
    """
    labels = torch.full((len(windows),), _UNUSED)
    able = (~truth.crowd).nonzero()[:, 0]
    low, high = options.background_iou
    if not len(able):
        if low == 0:
            labels[:] = len(truth.names)
        return labels
    best, owner = iou(windows.xyxy, truth.boxes.xyxy[able]).max(1)
    background = (best >= low) & (best < high)
    labels[background] = len(truth.names)
    return torch.where(best >= options.foreground_iou, truth.labels[able][owner], labels)


def draw_batch(
    labels: Sequence[Tensor],
    chosen: Sequence[int],
    classes: int,
    options: FinetuneOptions,
    draw: torch.Generator,
) -> list[tuple[int, Tensor]]:
    """Draw the proposals of a batch: at most ``foreground`` and ``background`` from the images ``chosen``.

    Returns:
        Indices of images and of their proposals.
    """
    picked: list[tuple[Tensor, Tensor]] = []
    for want_background, count in ((False, options.foreground), (True, options.background)):
        pairs: list[Tensor] = []
        for i in chosen:
            is_background = labels[i] == classes
            able = is_background if want_background else (labels[i] != _UNUSED) & ~is_background
            window = able.nonzero()[:, 0]
            pairs.append(torch.stack([torch.full_like(window, i), window], 1))
        table = torch.cat(pairs)
        taken = table[torch.randperm(len(table), generator=draw)[:count]]
        picked.append((taken[:, 0], taken[:, 1]))
    owner, window = (torch.cat(columns) for columns in zip(*picked, strict=True))
    return [(int(i), window[owner == i]) for i in torch.unique(owner)]


def finetune(
    source: RowSource,
    truths: Sequence[GroundTruth],
    options: FinetuneOptions,
    head: FullyConnected,
    seed: int,
    *,
    quiet: bool,
) -> FullyConnected:
    """Train fc6, fc7 and a classifier of K classes and background by gradient descent.

    Args:
        source: features of the proposals of each image, which include the boxes of objects.
        truths: the objects of the same images.
        options: the options.
        head: the layers of `start_head`, which are trained in place.
        seed: seed of the order and the dropout.
        quiet: hide the progress bar.

    Returns:
        The trained layers.

    Raises:
        UserError: there is no foreground proposal.
    """
    classes = len(truths[0].names)
    device = head.fc6.weight.device
    head.dropout = options.dropout
    labels = [window_labels(w, t, options) for w, t in zip(source.windows, truths, strict=True)]
    if not any(bool(((own != _UNUSED) & (own != classes)).any()) for own in labels):
        raise UserError("data", "proposals on objects for fine-tuning", "none")
    draw = torch.Generator().manual_seed(seed)
    weights = [layer.weight for layer in (head.fc6, head.fc7, head.fc8)]
    biases = [layer.bias for layer in (head.fc6, head.fc7, head.fc8)]
    groups = [{"params": weights, "weight_decay": options.decay}, {"params": biases}]
    descent = torch.optim.SGD(groups, lr=options.rates[0], momentum=options.momentum)
    rates = [rate for rate, length in zip(options.rates, options.lengths, strict=True) for _ in range(length)]
    deck: list[int] = []
    head.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for rate in track(rates, "Fine-tuning", quiet=quiet):
            descent.param_groups[0]["lr"] = rate
            descent.param_groups[1]["lr"] = 2 * rate
            if len(deck) < min(options.images, len(labels)):
                deck = torch.randperm(len(labels), generator=draw).tolist()
            chosen, deck = deck[: options.images], deck[options.images :]
            batch = draw_batch(labels, chosen, classes, options, draw)
            if not batch:
                continue
            rows, goal = _batch_rows(source, batch, labels, options, draw)
            loss = functional.cross_entropy(head(rows.to(device)), goal.to(device))
            descent.zero_grad()
            loss.backward()
            descent.step()
    return head.eval().requires_grad_(False)


def _batch_rows(
    source: RowSource,
    batch: Sequence[tuple[int, Tensor]],
    labels: Sequence[Tensor],
    options: FinetuneOptions,
    draw: torch.Generator,
) -> tuple[Tensor, Tensor]:
    rows: list[Tensor] = []
    for i, which in batch:
        flipped = options.flipped and bool(torch.rand((), generator=draw) < 0.5)
        rows.append(source.rows(i, which, flipped=flipped, draw=draw if options.random_scale else None))
    return torch.cat(rows), torch.cat([labels[i][which] for i, which in batch])


def start_head(source: RowSource, options: FcOptions, classes: int, seed: int) -> FullyConnected:
    """Create the layers before training, with random weights or those of ``options.fc_weights``."""
    draw = torch.Generator().manual_seed(seed)
    given = None if options.fc_weights is None else read_fc_weights(options.fc_weights)
    widths = (options.width, options.width) if given is None else given.widths
    head = FullyConnected(source.length, widths, classes)
    if given is None:
        head.scale.fill_(_unit_scale(source, draw))
    head.start(draw, given)
    return head.eval()


def _unit_scale(source: RowSource, draw: torch.Generator) -> float:
    """Compute the factor for which the mean square of the features of some proposals is one."""
    total, count = 0.0, 0
    for i in torch.randperm(len(source.windows), generator=draw)[:20].tolist():
        if len(source.windows[i]):
            which = torch.randperm(len(source.windows[i]), generator=draw)[:50]
            rows = source.rows(i, which)
            total += float(rows.square().sum())
            count += rows.numel()
    return (count / total) ** 0.5 if total > 0 else 1.0
