import pytest
import torch

from sppnet.backbones import load_backbone, prepare
from sppnet.benchmark.detection import picture_and_windows, time_cropping, time_pooling
from sppnet.detect.rcnn import CropOptions


def test_windows_lie_in_the_picture_and_are_the_same_every_time():
    image, windows = picture_and_windows(500)
    again, same = picture_and_windows(500)
    assert torch.equal(image, again)
    assert torch.equal(windows.xyxy, same.xyxy)
    sides = windows.xyxy[:, 2:] - windows.xyxy[:, :2]
    assert bool((sides >= 19.9).all())
    assert bool((windows.xyxy >= 0).all())


def test_parts_add_up():
    network = prepare(load_backbone("random:torchvision:squeezenet1_0", layers=("stride8",)))
    image, windows = picture_and_windows(5)
    ours = time_pooling(network, image, windows, (64,), 1)
    peer = time_cropping(network, image, windows, CropOptions(48, 4, 2))
    assert ours.conv > 0
    assert ours.pool > 0
    assert ours.features == pytest.approx(ours.conv + ours.pool)
    assert peer.features == pytest.approx(peer.crop + peer.conv + peer.pool + peer.fc)
    assert min(peer.crop, peer.conv, peer.pool, peer.fc) > 0
