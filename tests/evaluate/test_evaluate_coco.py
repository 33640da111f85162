"""COCO metrics against plain loops, and against pycocotools if it is installed."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet.evaluate import coco_scores
from sppnet.structures import Boxes, Detections, GroundTruth, ImageSize

SIZE = ImageSize(400, 400)
NAMES = ("ant", "bee", "cat")
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
RANGES = {
    "ap": (0, 1e10),
    "ap_small": (0, 32**2),
    "ap_medium": (32**2, 96**2),
    "ap_large": (96**2, 1e10),
}


def extent(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def shared(a, b):
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def coco_matches(objects, rows, threshold, span, limit):
    """Compute (score, correct) of the detections of one class in one image, and its number of objects."""
    outside = [o["hard"] or o["crowd"] or not span[0] <= extent(o["box"]) <= span[1] for o in objects]
    free = [True] * len(objects)
    matches = []
    for row in sorted(rows, key=lambda r: -r["score"])[:limit]:
        choice = {}
        for ignored in (False, True):  # ignored objects match only if no other object does
            for number, target in enumerate(objects):
                if outside[number] != ignored or not (free[number] or target["crowd"]):
                    continue
                inside = shared(row["box"], target["box"])
                union = extent(row["box"]) + (0 if target["crowd"] else extent(target["box"]) - inside)
                iou = inside / union if union > 0 else 0.0
                if iou >= max(threshold, choice.get("iou", 0.0)):
                    choice = {"iou": iou, "number": number}
            if choice:
                break
        if choice:
            free[choice["number"]] = False
            if not outside[choice["number"]]:
                matches.append((row["score"], True))
        elif span[0] <= extent(row["box"]) <= span[1]:
            matches.append((row["score"], False))
    return matches, outside.count(False)


def coco_curve(images, label, threshold, span, limit=100):
    """Compute the precision at 101 recalls and the last recall; None without objects."""
    matches, count = [], 0
    for objects, rows in images:
        one, number = coco_matches(
            [o for o in objects if o["label"] == label],
            [r for r in rows if r["label"] == label],
            threshold,
            span,
            limit,
        )
        matches += one
        count += number
    if not count:
        return None
    matches.sort(key=lambda v: -v[0])
    hits, points = 0, []
    for rank, (_, correct) in enumerate(matches, 1):
        hits += correct
        points.append((hits / count, hits / rank))
    best = []
    for recall in RECALLS:
        best.append(max((p for r, p in points if r >= recall), default=0.0))
    return best, hits / count


def plain_coco(images):
    """Compute the attributes of CocoScores and, separately, those per class."""

    def mean(values):
        known = [v for v in values if v is not None]
        return sum(known) / len(known) if known else None

    def of(label, thresholds, span):
        curves = [coco_curve(images, label, t, span) for t in thresholds]
        return None if curves[0] is None else float(np.mean([best for best, _ in curves]))

    def recall(label, limit):
        ends = [coco_curve(images, label, t, RANGES["ap"], limit) for t in THRESHOLDS]
        return None if ends[0] is None else float(np.mean([end for _, end in ends]))

    labels = range(len(NAMES))
    numbers = {name: mean([of(k, THRESHOLDS, span) for k in labels]) for name, span in RANGES.items()}
    classes = [
        [of(k, some, RANGES["ap"]) for some in (THRESHOLDS, THRESHOLDS[:1], THRESHOLDS[5:6])] for k in labels
    ]
    numbers["ap50"], numbers["ap75"] = mean([c[1] for c in classes]), mean([c[2] for c in classes])
    for limit in (1, 10, 100):
        numbers[f"ar{limit}"] = mean([recall(k, limit) for k in labels])
    return numbers, classes


def as_values(images):
    def boxes(rows):
        return Boxes(torch.tensor([r["box"] for r in rows], dtype=torch.float32).reshape(-1, 4), SIZE)

    def column(rows, name, dtype):
        return torch.tensor([row[name] for row in rows], dtype=dtype)

    truths = [
        GroundTruth(
            boxes(objects),
            column(objects, "label", torch.int64),
            NAMES,
            column(objects, "hard", torch.bool),
            column(objects, "crowd", torch.bool),
        )
        for objects, _ in images
    ]
    found = [
        Detections(
            boxes(rows), column(rows, "score", torch.float32), column(rows, "label", torch.int64), NAMES
        )
        for _, rows in images
    ]
    return found, truths


def check(images):
    result = coco_scores(*as_values(images))
    numbers, classes = plain_coco(images)
    for name, value in numbers.items():
        assert getattr(result, name) == (None if value is None else pytest.approx(value, abs=1e-9)), name
    for label, (ap, ap50, ap75) in enumerate(classes):
        own = result.per_class[label]
        for value, expected in ((own.ap, ap), (own.ap50, ap50), (own.ap75, ap75)):
            assert value == (None if expected is None else pytest.approx(expected, abs=1e-9))


def thing(box, label=0, hard=False, crowd=False):
    return {"box": tuple(map(float, box)), "label": label, "hard": hard, "crowd": crowd}


def finding(box, score, label=0):
    return {"box": tuple(map(float, box)), "label": label, "score": float(np.float32(score))}


def random_images(seed, images=12):
    """Create objects of all sizes, crowds and difficult objects, and detections with tied scores."""
    rng = np.random.default_rng(seed)

    def anywhere():
        low = rng.integers(0, 200, 2)
        return np.concatenate([low, low + rng.integers(4, 180, 2)])

    made = []
    for _ in range(images):
        objects = [
            thing(anywhere(), int(rng.integers(2)), rng.random() < 0.1, rng.random() < 0.15)
            for _ in range(rng.integers(0, 8))
        ]
        rows = []
        for one in objects:
            for _ in range(rng.integers(0, 4)):
                moved = np.array(one["box"]) + np.round(rng.normal(0, 4, 4) * 4) / 4
                if (moved[2:] > moved[:2]).all():
                    rows.append(finding(moved, np.round(rng.random(), 1), one["label"]))
        rows += [
            finding(anywhere(), np.round(rng.random(), 1), int(rng.integers(2)))
            for _ in range(rng.integers(0, 5))
        ]
        made.append((objects, rows))
    return made


@pytest.mark.parametrize("seed", range(6))
def test_equals_plain_loops(seed):
    check(random_images(seed))


corner = st.integers(0, 6)
small_box = st.tuples(corner, corner, st.integers(1, 5), st.integers(1, 5)).map(
    lambda b: (b[0] * 20, b[1] * 20, (b[0] + b[2]) * 20, (b[1] + b[3]) * 20)
)
an_object = st.builds(
    thing, small_box, st.integers(0, 1), st.booleans(), st.sampled_from([False, False, True])
)
a_detection = st.builds(finding, small_box, st.sampled_from([-1.0, 0.0, 0.5, 0.75]), st.integers(0, 1))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.lists(an_object, max_size=4), st.lists(a_detection, max_size=6)), min_size=1, max_size=3
    )
)
def test_equals_plain_loops_on_a_coarse_grid(images):
    check(images)


def test_at_most_a_hundred_detections_per_image_count():
    """The correct detection ranks 101st."""
    box = (10, 10, 60, 60)
    rows = [finding((100, 100, 120, 120), 1 - i / 1000) for i in range(100)] + [finding(box, 0.1)]
    assert coco_scores(*as_values([([thing(box)], rows)])).ap == 0.0
    assert coco_scores(*as_values([([thing(box)], rows[1:])])).ar100 == 1.0
    check([([thing(box)], rows)])


def test_a_crowd_matches_any_number_of_detections():
    rows = [finding((10 * i, 10, 10 * i + 9, 60), 0.9) for i in range(8)] + [
        finding((200, 200, 260, 260), 0.5)
    ]
    objects = [thing((0, 0, 150, 150), crowd=True), thing((200, 200, 260, 260))]
    scores = coco_scores(*as_values([(objects, rows)]))
    assert scores.ap == pytest.approx(1.0)
    without = coco_scores(*as_values([(objects[1:], rows)]))
    assert without.ap == pytest.approx(1 / 9)


def test_the_detection_of_a_difficult_object_is_ignored():
    box, other = (10, 10, 60, 60), (200, 200, 260, 260)
    rows = [finding(box, 0.9), finding(other, 0.5)]
    easy, hard = thing(other), thing(box, hard=True)
    assert coco_scores(*as_values([([hard, easy], rows)])).ap == pytest.approx(1.0)
    assert coco_scores(*as_values([([easy], rows)])).ap == pytest.approx(0.5)
    assert coco_scores(*as_values([([hard], rows)])).ap is None


def test_area_ranges():
    """The small and the large object are detected, the medium one is not."""
    small, medium, large = (0, 0, 31, 31), (0, 0, 64, 64), (0, 0, 120, 120)
    images = [
        ([thing(small)], [finding(small, 0.9)]),
        ([thing(medium)], []),
        ([thing(large)], [finding(large, 0.9)]),
    ]
    scores = coco_scores(*as_values(images))
    assert (scores.ap_small, scores.ap_medium, scores.ap_large) == (pytest.approx(1), 0.0, pytest.approx(1))
    assert scores.ar1 == pytest.approx(2 / 3)


@pytest.mark.parametrize("images", [[([], [])], [([], [finding((0, 0, 9, 9), 0.5)])]])
def test_images_without_objects(images):
    scores = coco_scores(*as_values(images))
    assert scores.ap is None
    assert scores.ar100 is None
    assert [c.ap50 for c in scores.per_class] == [None] * 3


def test_images_without_detections():
    scores = coco_scores(*as_values([([thing((0, 0, 9, 9))], [])]))
    assert scores.ap == scores.ap50 == scores.ap_small == scores.ar100 == 0.0
    assert scores.ap_large is None


def test_evaluation_prints_nothing(capfd):
    coco_scores(*as_values(random_images(1, 2)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("seed", range(3))
def test_equals_pycocotools(seed):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # pycocotools does not support difficult objects.
    images = [([{**o, "hard": False} for o in objects], rows) for objects, rows in random_images(seed, 25)]

    def annotations(column):
        rows = []
        for number, image in enumerate(images, 1):
            for row in image[column]:
                x0, y0, x1, y1 = row["box"]
                rows.append(
                    {
                        "id": len(rows) + 1,
                        "image_id": number,
                        "category_id": row["label"] + 1,
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "area": extent(row["box"]),
                        "iscrowd": int(row.get("crowd", False)),
                        "score": row.get("score"),
                    }
                )
        return rows

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": number} for number in range(1, len(images) + 1)],
            "categories": [{"id": number} for number in range(1, 4)],
            "annotations": annotations(0),
        }
        truth.createIndex()
        found = COCO()
        found.dataset = {**truth.dataset, "annotations": annotations(1)}
        found.createIndex()
        peer = COCOeval(truth, found, "bbox")
        peer.evaluate()
        peer.accumulate()
        peer.summarize()
    result = coco_scores(*as_values(images))
    values = [result.ap, result.ap50, result.ap75, result.ap_small, result.ap_medium, result.ap_large]
    values += [result.ar1, result.ar10, result.ar100]
    assert values == pytest.approx(peer.stats[:9].tolist(), abs=1e-6)
