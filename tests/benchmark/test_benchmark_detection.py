import pytest
import torch

from sppnet.backbones import load_backbone, prepare
from sppnet.benchmark import detection
from sppnet.benchmark.detection import (
    DetectionBenchmark,
    _Times,
    image_and_windows,
    time_cropping,
    time_pooling,
)
from sppnet.detect.crops import CropOptions


def test_windows_are_inside_the_image_and_deterministic():
    image, windows = image_and_windows(500)
    again, same = image_and_windows(500)
    assert torch.equal(image, again)
    assert torch.equal(windows.xyxy, same.xyxy)
    sides = windows.xyxy[:, 2:] - windows.xyxy[:, :2]
    assert bool((sides >= 19.9).all())
    assert bool((windows.xyxy >= 0).all())


def test_stages_add_up():
    network = prepare(load_backbone("random:torchvision:squeezenet1_0", layers=("stride8",)))
    image, windows = image_and_windows(5)
    ours = time_pooling(network, image, windows, (64,), 1)
    peer = time_cropping(network, image, windows, CropOptions(48, 4, 2))
    assert ours.conv > 0
    assert ours.pool > 0
    assert ours.features == pytest.approx(ours.conv + ours.pool)
    assert peer.features == pytest.approx(peer.crop + peer.conv + peer.pool + peer.fc)
    assert min(peer.crop, peer.conv, peer.pool, peer.fc) > 0


def test_rcnn_is_timed_with_published_and_fastest_batch(monkeypatch):
    seen = []

    def cropped(network, image, windows, options):
        seen.append(options.batch)
        return _Times(2.0 if options.batch == 256 else 1.0, 0.5, 0.1, 0.4)

    monkeypatch.setattr(detection, "time_cropping", cropped)
    monkeypatch.setattr(detection, "time_pooling", lambda *_: _Times(0.05, 0.05, 0.0))
    monkeypatch.setattr(detection, "_proposals_seconds", lambda _: None)
    monkeypatch.setattr(detection, "best_batch", lambda *_: (CropOptions(227, 16, 16), {"16": 0.01}))
    found = detection.run(DetectionBenchmark(device="cpu", quick=True, layer="stride8"))
    assert seen[:2] == [16, 256]
    assert found["rcnn"]["best_batch"]["batch"] == 16
    assert found["rcnn"]["as_published"]["batch"] == 256
    assert found["rcnn"]["best_batch"]["speedup_1_scale"] == pytest.approx(20)
    assert found["rcnn"]["as_published"]["speedup_5_scale"] == pytest.approx(30)
    # The contract's two keys stand at the top level: R-CNN in its fastest batches over ours.
    assert found["speedup_1_scale"] == found["rcnn"]["best_batch"]["speedup_1_scale"]
    assert found["speedup_5_scale"] == found["rcnn"]["best_batch"]["speedup_5_scale"]
    assert {"work", "ours_s", "peer", "peer_s", "ratio"} <= found["rows"][0].keys()
    peers = [row["peer"] for row in found["rows"]]
    assert len(peers) == 12
    assert sum("as published" in peer for peer in peers) == sum("fastest" in peer for peer in peers) == 6
