"""Time of the network in the package beside SqueezeNet's, on one image, as JSON.

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
"""The peer's last maps at strides 8 and 16, as ours are; and that at stride 8 alone, the default."""


@contextmanager
def _threads(count: int) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def multiply_adds(backbone: Backbone, size: ImageSize) -> int:
    """Products in the convolutions for one image."""
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
    """Time both our maps beside the peer's two, and beside its first alone; channels last, all folded.

    The peer's weights are random: they do not change its time, and nothing is downloaded.

    Args:
        size: of the image; 480 x 640 when None.
        threads: numbers of threads to measure with.
        runs: of either network, in turn.

    Returns:
        ``{"machine", "multiply_adds", "rows": [{"work", "ours_s", "peer", "peer_s", "ratio"}]}``: medians
        in seconds; ratio is the peer's over ours.

    Raises:
        MissingExtraError: without torchvision.
    """
    size = size or ImageSize(480, 640)
    ours = load_backbone("builtin")
    peers = [load_backbone(f"random:{PEER}", layers=layers) for layers in PEER_LAYERS]
    image = torch.rand(1, 3, size.height, size.width, generator=torch.Generator().manual_seed(0))
    image = image.contiguous(memory_format=torch.channels_last)
    rows: list[dict[str, object]] = []
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for count, precision, peer in product(threads, precisions, peers):
        mine, theirs = (prepare(network, "cpu", precision) for network in (ours, peer))
        with _threads(count), torch.inference_mode():
            ours_s, peer_s = medians(lambda n=mine: n(image), lambda n=theirs: n(image), runs)
        work = f"builtin, {size.width}x{size.height}, {precision}, {count} threads"
        name = f"{PEER}, {' and '.join(layer.name for layer in peer.layers)}"
        rows.append(
            {"work": work, "ours_s": ours_s, "peer": name, "peer_s": peer_s, "ratio": peer_s / ours_s}
        )
    products = {"builtin": multiply_adds(ours, size), PEER: multiply_adds(peers[0], size)}
    return {"machine": machine(), "multiply_adds": products, "rows": rows}


def main() -> None:
    """Measure and print."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    flags.add_argument("--runs", type=int, default=15, help="of either network, in turn")
    print(json.dumps(run(runs=flags.parse_args().runs), indent=1))


if __name__ == "__main__":
    main()
