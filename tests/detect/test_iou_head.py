"""What the iou_head learns from."""

from __future__ import annotations

import torch

from sppnet.backbones import load_backbone, prepare
from sppnet.detect import DetectorOptions, IouHeadOptions, PostOptions
from sppnet.detect.boxes import fit_projected
from sppnet.detect.images import image_of
from sppnet.detect.iou_head import IouHeadTask, _jittered_boxes, _placed, fit_iou_head
from sppnet.detect.sources import MapSource
from sppnet.detect.suppression import candidates
from sppnet.detect.windows import ImageWindows
from sppnet.learn import LinearModel
from sppnet.ops.boxes import decode_deltas, iou
from sppnet.proposals import ProposalSource
from sppnet.structures import Boxes, GroundTruth, ImageSize

SIZE = ImageSize(100, 140)
BOXES = Boxes(torch.tensor([[10.0, 10, 50, 40], [60, 20, 130, 90], [0, 50, 30, 99]]), SIZE)
TRUTH = GroundTruth.make(BOXES, torch.tensor([0, 1, 0]), ("a", "b"))


def test_jittered_boxes_boxes_lie_near_and_far() -> None:
    draw = torch.Generator().manual_seed(0)
    boxes, labels = _jittered_boxes(TRUTH, torch.arange(len(TRUTH)), 300, IouHeadOptions(), draw)
    assert len(boxes) == len(labels) > 800
    assert torch.equal(boxes.clip().xyxy, boxes.xyxy)
    for number in (0, 1):
        best = iou(boxes.xyxy[labels == number], BOXES.xyxy[TRUTH.labels == number]).amax(1)
        # Half of the overlaps or so below 0.5; some at every tenth from 0.1 on.
        assert 0.25 < float((best < 0.5).float().mean()) < 0.75
        assert float(torch.histc(best, 10, 0, 1)[1:].min()) >= 0.02 * len(best)


def test_placed_is_the_best_object_of_the_class() -> None:
    rows = [[12.0, 10, 50, 44], [62, 20, 128, 95], [5, 30, 40, 80], [100, 5, 120, 9]]
    boxes = Boxes(torch.tensor(rows), SIZE)
    labels = torch.tensor([0, 1, 0, 0])
    overlaps, deltas = _placed(boxes, labels, TRUTH)
    moved = decode_deltas(boxes.xyxy, deltas)
    for i, label in enumerate(labels.tolist()):
        objects = BOXES.xyxy[TRUTH.labels == label]
        every = iou(boxes.xyxy[i : i + 1], objects)[0]
        assert float(overlaps[i]) == float(every.max())
        if float(every.max()) > 0:
            torch.testing.assert_close(moved[i], objects[int(every.argmax())], rtol=1e-4, atol=1e-3)


def test_a_class_without_objects_has_no_overlap() -> None:
    only = GroundTruth.make(BOXES[:1], torch.tensor([0]), ("a", "b"))
    overlaps, deltas = _placed(BOXES, torch.tensor([1, 1, 1]), only)
    assert not bool(overlaps.any())
    assert not bool(deltas.any())


def test_candidates_are_the_best_and_apart() -> None:
    rows = [[0.0, 0, 40, 40], [1, 0, 41, 40], [60, 60, 90, 90], [20, 60, 40, 90]]
    windows = Boxes(torch.tensor(rows), SIZE)
    scores = torch.tensor([[0.5, -2.0], [0.7, -2.0], [-1.0, 0.1], [-1.4, 0.2]])
    index, labels = candidates(windows, scores, PostOptions())
    assert index.tolist() == [1, 2, 3, 2]
    assert labels.tolist() == [0, 0, 1, 1]
    index, labels = candidates(windows, scores, PostOptions(), (1, 0))
    assert index.tolist() == [1, 3]


def test_the_limit_per_image_keeps_the_best_of_all_classes_in_order() -> None:
    rows = [[0.0, 0, 40, 40], [60, 60, 90, 90], [20, 60, 40, 90]]
    windows = Boxes(torch.tensor(rows), SIZE)
    scores = torch.tensor([[0.5, 0.3], [-1.0, 0.3], [0.7, 0.2]])
    index, labels = candidates(windows, scores, PostOptions(candidates_per_image=3))
    # Of the two scores of 0.3 the first stays, and candidates remain grouped by class.
    assert index.tolist() == [2, 0, 0]
    assert labels.tolist() == [0, 0, 1]
    every, _ = candidates(windows, scores, PostOptions(candidates_per_image=0))
    assert len(every) == 6


def test_an_iou_head_needs_boxes_near_objects() -> None:
    draw = torch.Generator().manual_seed(0)
    network = prepare(load_backbone("zf5/32"))
    pixels = torch.rand(3, SIZE.height, SIZE.width, generator=draw).numpy().transpose(1, 2, 0)
    images = [image_of((255 * pixels).astype("uint8"))]
    options = DetectorOptions(short_side=0, iou_head=8)
    learned = []
    for truth in (TRUTH[:0], TRUTH):
        source = ProposalSource(shapes=torch.tensor([[0.5, 0.5]]), most=20)
        windows = ImageWindows(images, source, options.window, None, [truth])
        maps = MapSource(network, "", images, windows, options.map, options.pool, None)
        svm = LinearModel(torch.zeros(2, maps.length), torch.zeros(2))
        plain = fit_projected(maps, windows, [truth], options.box, 20.0, draw)
        task = IouHeadTask(maps, maps, windows, [truth], svm, options.iou, options.post)
        learned.append((fit_iou_head(task, plain, draw), maps.maps(0)))
    assert learned[0][0].iou_head is None
    judged, found = learned[1]
    assert judged.iou_head is not None
    logits = judged.iou_logits(judged.projection(found), BOXES, TRUTH.labels)
    assert bool(torch.isfinite(logits).all())
