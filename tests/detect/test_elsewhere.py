"""Networks on one device, windows and boxes on another: what a machine with a GPU does."""

import pytest
import torch
from elsewhere import DEVICE, Pretended

from sppnet.data import read_detection
from sppnet.detect import Detector
from sppnet.detect import detector as detector_module


def test_the_pretended_device_refuses_what_a_gpu_refuses() -> None:
    with Pretended():
        there, here = torch.arange(3.0).to(DEVICE), torch.arange(3.0)
        assert there.device == DEVICE
        assert (there + there).cpu().tolist() == [0, 2, 4]
        assert there[torch.tensor([1])].tolist() == [1]
        assert torch.zeros(2, device=DEVICE).device == DEVICE
        with pytest.raises(RuntimeError, match="two devices"):
            there + here
        with pytest.raises(RuntimeError, match="two devices"):
            here[there.long()]


def test_a_detector_predicts_as_on_the_cpu(detector, shapes_set, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(detector_module, "pick_device", lambda name: DEVICE)
    paths = [item.path for item in read_detection(shapes_set, "val").items[:3]]
    expected = [detector.predict(path, threshold=0.0) for path in paths]
    with Pretended():
        loaded = Detector.load(detector.save(tmp_path / "run"), device="cpu")
        assert loaded.network_.device == DEVICE
        found = [loaded.predict(path, threshold=0.0) for path in paths]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.boxes, other.boxes)
        torch.testing.assert_close(one.scores, other.scores)
        assert one.boxes.device.type == "cpu"
