"""Time of 96 views on feature maps and of 96 crops, and of multi-size and single-size training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from sppnet.benchmark.measure import machine, medians
from sppnet.classify import NetworkOptions
from sppnet.classify.network import PyramidNetwork, make_network
from sppnet.classify.views import paper_96, view_probabilities
from sppnet.ops.pyramid import LEVELS

_HEIGHT, _WIDTH = 375, 500
_BATCH = 16


class AdaptivePyramid(nn.Module):
    """Pyramid pooling by adaptive max pooling of torch."""

    def forward(self, maps: Tensor) -> Tensor:
        """Pool ``[B, C, H, W]`` to ``[B, C * 50]``."""
        return torch.cat([functional.adaptive_max_pool2d(maps, n).flatten(1) for n in LEVELS], 1)


def run(backbone: str = "zf5", *, runs: int = 3, quick: bool = False) -> dict[str, object]:
    """Time views and training steps of a network with random weights, which do not affect the time.

    Args:
        backbone: a network of the paper.
        runs: interleaved runs of each implementation.
        quick: use a narrow network and small images, for tests.

    Returns:
        ``{"machine", "rows": [{"work", "ours_s", "peer", "peer_s", "ratio"}]}``, with medians in seconds and
        ratio = peer_s / ours_s.
    """
    name = "zf5/16" if quick else backbone
    options = NetworkOptions(hidden=(64,) if quick else (4096, 4096))
    network = make_network(name, 1000, options, 224).eval()
    network.backbone.to(memory_format=torch.channels_last)
    rows = [_views(network, name, runs, quick=quick), *_epochs(name, runs, quick=quick)]
    return {"machine": machine(), "rows": rows}


def _views(network: PyramidNetwork, name: str, runs: int, *, quick: bool) -> dict[str, object]:
    """Time 96 views of one image, on maps and by crops."""
    side = 64 if quick else 224
    image = torch.rand(3, _HEIGHT, _WIDTH, generator=torch.Generator().manual_seed(0))
    maps, crops = paper_96(side, full=False), paper_96(side, "crops", full=False)
    ours, peer = medians(
        lambda: view_probabilities(network, image, maps),
        lambda: view_probabilities(network, image, crops),
        runs,
    )
    return _row(f"{name}: 96 views of an image of {_WIDTH}x{_HEIGHT}", ours, "96 crops", peer)


def _epochs(name: str, runs: int, *, quick: bool) -> list[dict[str, object]]:
    """Time steps at two sizes with both kinds of pooling, and at one size per megapixel."""
    sizes = (64, 51) if quick else (224, 180)
    network = make_network(name, 1000, NetworkOptions(hidden=(64,)), sizes[0]).train()
    peer = make_network(name, 1000, NetworkOptions(hidden=(64,)), sizes[0]).train()
    peer.pool = AdaptivePyramid()
    both = medians(_steps(network, sizes), _steps(peer, sizes), runs)
    alternating = f"{sizes[0]} and {sizes[1]} in turn"
    rows = [_row(f"{name}: training steps at {alternating}", both[0], "torch's adaptive pooling", both[1])]
    several, one = medians(_steps(network, sizes), _steps(network, sizes[:1] * 2), runs)
    pixels = sum(size * size for size in sizes)
    row = _row(
        f"{name}: a megapixel of training at {alternating}",
        several / (pixels * _BATCH / 1e6),
        f"at {sizes[0]} alone",
        one / (2 * sizes[0] ** 2 * _BATCH / 1e6),
    )
    return [*rows, row]


def _steps(network: PyramidNetwork, sizes: tuple[int, ...]) -> Callable[[], None]:
    """Create a function of one training step per size: forward, backward and update."""
    optimiser = torch.optim.SGD(network.parameters(), 1e-6, momentum=0.9)
    batches = [torch.rand(_BATCH, 3, size, size) for size in sizes]
    labels = torch.arange(_BATCH)

    def work() -> None:
        for images in batches:
            loss = functional.cross_entropy(network(images), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    return work


def _row(work: str, ours_s: float, peer: str, peer_s: float) -> dict[str, object]:
    return {"work": work, "ours_s": ours_s, "peer": peer, "peer_s": peer_s, "ratio": peer_s / ours_s}
