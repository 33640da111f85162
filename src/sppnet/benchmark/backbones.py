"""Compare the time of the builtin network on one image with that of SqueezeNet.

python -m sppnet.benchmark.backbones
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import product

import torch
from torch import Tensor, nn

from sppnet.backbones import Backbone, load_backbone, prepare
from sppnet.backbones.prepare import Precision
from sppnet.benchmark.measure import machine, medians
from sppnet.structures import ImageSize

PEER = "torchvision:squeezenet1_0"
PEER_LAYERS = (("features.10", "features.12"), ("features.10",))
"""The last maps of SqueezeNet at strides 8 and 16, and the default, the map at stride 8 only."""


@contextmanager
def _threads(count: int) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def multiply_adds(backbone: Backbone, size: ImageSize) -> int:
    """Count the multiply-adds of the convolutions for one image."""
    total = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += out[0].numel() * module.weight[0].numel()

    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    hooks = [module.register_forward_hook(count) for module in convolutions]
    with torch.inference_mode():
        backbone(torch.zeros(1, 3, size.height, size.width))
    for hook in hooks:
        hook.remove()
    return total


def run(size: ImageSize | None = None, threads: Sequence[int] = (1, 2), runs: int = 15) -> dict[str, object]:
    """Time the builtin network with all maps and SqueezeNet with two or one; channels last, folded.

    SqueezeNet has random weights, which do not affect the time, so that nothing is downloaded.

    Args:
        size: size of the image; 480 x 640 by default.
        threads: numbers of threads.
        runs: interleaved runs of each network.

    Returns:
        ``{"machine", "multiply_adds", "rows": [{"work", "ours_s", "peer", "peer_s", "ratio"}]}``, with
        medians in seconds and ratio = peer_s / ours_s.

    Raises:
        MissingExtraError: torchvision is not installed.
    """
    size = size or ImageSize(480, 640)
    builtin = load_backbone("builtin")
    peers = [load_backbone(f"random:{PEER}", layers=layers) for layers in PEER_LAYERS]
    image = torch.rand(1, 3, size.height, size.width, generator=torch.Generator().manual_seed(0))
    image = image.contiguous(memory_format=torch.channels_last)
    rows: list[dict[str, object]] = []
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for count, precision, peer in product(threads, precisions, peers):
        first, second = (prepare(network, "cpu", precision) for network in (builtin, peer))
        with _threads(count), torch.inference_mode():
            ours_s, peer_s = medians(lambda n=first: n(image), lambda n=second: n(image), runs)
        work = f"builtin, {size.width}x{size.height}, {precision}, {count} threads"
        name = f"{PEER}, {' and '.join(layer.name for layer in peer.layers)}"
        rows.append(
            {"work": work, "ours_s": ours_s, "peer": name, "peer_s": peer_s, "ratio": peer_s / ours_s}
        )
    products = {"builtin": multiply_adds(builtin, size), PEER: multiply_adds(peers[0], size)}
    return {"machine": machine(), "multiply_adds": products, "rows": rows}


def main() -> None:
    """Measure and print JSON."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    flags.add_argument("--runs", type=int, default=15, help="interleaved runs of each network")
    print(json.dumps(run(runs=flags.parse_args().runs), indent=1))


if __name__ == "__main__":
    main()
