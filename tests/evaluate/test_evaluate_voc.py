"""VOC metrics against plain loops over VOC's inclusive pixel coordinates."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet.errors import UserError
from sppnet.evaluate import precision_recall, voc_curves
from sppnet.structures import Boxes, Detections, GroundTruth, ImageSize

SIZE = ImageSize(12, 12)
NAMES = ("ant", "bee", "cat")


def voc_overlap(a, b):
    """Compute the IoU as VOCevaldet.m does, with inclusive coordinates."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return Fraction(0)

    def pixels(box):
        return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)

    return Fraction(width * height, pixels(a) + pixels(b) - width * height)


def voc_matches(images, label, overlap=Fraction(1, 2)):
    """Compute (score, correct) by descending score and the number of objects of one class."""
    rows = [
        (score, image, box)
        for image, (_, found) in enumerate(images)
        for box, kind, score in found
        if kind == label
    ]
    rows.sort(key=lambda row: row[0], reverse=True)  # stable
    matched = set()
    matches = []
    for score, image, box in rows:
        largest, winner = Fraction(-1), None
        for number, (other, kind, *_) in enumerate(images[image][0]):
            if kind == label and voc_overlap(box, other) > largest:
                largest, winner = voc_overlap(box, other), number
        if winner is None or largest < overlap:
            matches.append((score, False))
        elif images[image][0][winner][2] or images[image][0][winner][3]:
            continue
        else:
            matches.append((score, (image, winner) not in matched))
            matched.add((image, winner))
    count = sum(
        1
        for objects, _ in images
        for _, kind, hard, crowd in objects
        if kind == label and not (hard or crowd)
    )
    return matches, count


def exact_aps(matches, count):
    """Compute the 11-point and the area AP as fractions."""
    if count == 0:
        return None, None
    points, hits = [], 0
    for rank, (_, correct) in enumerate(matches, 1):
        hits += correct
        points.append((Fraction(hits, count), Fraction(hits, rank)))
    best_from = [max((p for r, p in points if r >= Fraction(t, 10)), default=Fraction(0)) for t in range(11)]
    area, before = Fraction(0), Fraction(0)
    for number, (recall, _) in enumerate(points):
        area += (recall - before) * max(p for _, p in points[number:])
        before = recall
    return sum(best_from) / 11, area


def as_values(images):
    """Convert the images to sppnet's types; the first edges of VOC's inclusive coordinates are one lower."""
    found, truths = [], []

    def boxes(rows):
        corners = [[r[0][0] - 1, r[0][1] - 1, r[0][2], r[0][3]] for r in rows]
        return Boxes(torch.tensor(corners, dtype=torch.float32).reshape(-1, 4), SIZE)

    def column(rows, index, dtype):
        return torch.tensor([row[index] for row in rows], dtype=dtype)

    for objects, rows in images:
        truths.append(
            GroundTruth(
                boxes(objects),
                column(objects, 1, torch.int64),
                NAMES,
                column(objects, 2, torch.bool),
                column(objects, 3, torch.bool),
            )
        )
        found.append(
            Detections(boxes(rows), column(rows, 2, torch.float32), column(rows, 1, torch.int64), NAMES)
        )
    return found, truths


def check(images):
    curves = voc_curves(*as_values(images))
    assert len(curves) == len(NAMES)
    for label, curve in enumerate(curves):
        matches, count = voc_matches(images, label)
        eleven, area = exact_aps(matches, count)
        assert curve.objects == count
        assert curve.scores.tolist() == [score for score, _ in matches]
        hits = np.cumsum([correct for _, correct in matches])
        np.testing.assert_allclose(curve.precision * np.arange(1, len(hits) + 1), hits, rtol=1e-12)
        if eleven is None:
            assert curve.eleven_point is None
            assert curve.area is None
            assert np.isnan(curve.recall).all()
        else:
            assert curve.eleven_point == pytest.approx(float(eleven), abs=1e-12)
            assert curve.area == pytest.approx(float(area), abs=1e-12)


side = st.integers(1, 6)
box = st.tuples(side, side, st.integers(0, 5), st.integers(0, 5)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
label = st.integers(0, 1)  # the third class has no objects
an_object = st.tuples(box, label, st.booleans(), st.sampled_from([False, False, False, True]))
score = st.sampled_from([-1.5, -0.5, 0.0, 0.25, 0.5, 1.0])  # few values give many ties
a_detection = st.tuples(box, label, score)
an_image = st.tuples(st.lists(an_object, max_size=5), st.lists(a_detection, max_size=8))


@settings(deadline=None, max_examples=150)
@given(st.lists(an_image, min_size=1, max_size=4))
def test_equals_plain_loops(images):
    check(images)


@settings(deadline=None, max_examples=100)
@given(st.lists(an_image, min_size=1, max_size=3), st.data())
def test_equals_plain_loops_for_duplicate_detections(images, data):
    """The detections are copies of the objects, so that several match the same object."""
    copied = []
    for objects, rows in images:
        again = [(o[0], o[1], data.draw(score)) for o in objects for _ in range(data.draw(st.integers(0, 3)))]
        copied.append((objects, data.draw(st.permutations(rows + again))))
    check(copied)


def test_equals_plain_loops_on_random_images():
    rng = np.random.default_rng(0)

    def boxes(count):
        low = rng.integers(1, 7, (count, 2))
        return np.concatenate([low, low + rng.integers(0, 6, (count, 2))], 1).tolist()

    images = []
    for _ in range(60):
        objects = [
            (tuple(b), int(rng.integers(3)), bool(rng.random() < 0.2), False) for b in boxes(rng.integers(7))
        ]
        rows = [
            (tuple(b), int(rng.integers(3)), float(np.float32(rng.normal()))) for b in boxes(rng.integers(30))
        ]
        images.append((objects, rows))
    check(images)


def test_an_iou_of_exactly_one_half_matches():
    """A box of 10 x 10 pixels and its upper half have an IoU of 50 / 100."""
    whole, half, less = (1, 1, 10, 10), (1, 1, 10, 5), (1, 1, 10, 4)
    for found, expected in ((half, 1.0), (less, 0.0)):
        curve = voc_curves(*as_values([([(whole, 0, False, False)], [(found, 0, 0.5)])]))[0]
        assert curve.eleven_point == expected
        assert curve.area == expected


def test_only_the_object_of_highest_iou_counts():
    """The second detection overlaps a free object by more than half and a matched object by more."""
    near, free = (1, 1, 10, 10), (1, 3, 10, 12)
    objects = [(near, 0, False, False), (free, 0, False, False)]
    rows = [((1, 1, 10, 10), 0, 0.9), ((1, 1, 10, 11), 0, 0.8)]
    assert voc_overlap(rows[1][0], free) > Fraction(1, 2)
    curve = voc_curves(*as_values([(objects, rows)]))[0]
    assert curve.precision.tolist() == [1.0, 0.5]
    assert curve.recall.tolist() == [0.5, 0.5]


def test_all_detections_of_difficult_objects_are_ignored():
    objects = [((1, 1, 6, 6), 0, True, False), ((8, 8, 10, 10), 0, False, False)]
    rows = [((1, 1, 6, 6), 0, 0.9), ((1, 1, 6, 5), 0, 0.8), ((8, 8, 10, 10), 0, 0.7)]
    curve = voc_curves(*as_values([(objects, rows)]))[0]
    assert curve.objects == 1
    assert curve.eleven_point == 1.0
    assert curve.scores.tolist() == [pytest.approx(0.7)]


def test_equal_scores_stay_in_the_given_order():
    """The correct detection is given first, then last."""
    objects = [((1, 1, 4, 4), 0, False, False)]
    right, wrong = ((1, 1, 4, 4), 0, 0.5), ((8, 8, 9, 9), 0, 0.5)
    for rows, expected in (([right] + [wrong] * 20, 1.0), ([wrong] * 20 + [right], 1 / 21)):
        assert voc_curves(*as_values([(objects, rows)]))[0].area == pytest.approx(expected)


def test_closed_forms_of_both_averages():
    """The first and the third detection match two of four objects."""
    curve = precision_recall(np.array([4.0, 3.0, 2.0, 1.0]), np.array([True, False, True, False]), 4)
    assert curve.precision.tolist() == [1.0, 0.5, pytest.approx(2 / 3), 0.5]
    assert curve.recall.tolist() == [0.25, 0.25, 0.5, 0.5]
    # Recalls 0, 0.1, 0.2 at precision 1; 0.3, 0.4, 0.5 at 2/3; the other five are not reached.
    assert curve.eleven_point == pytest.approx((3 + 3 * 2 / 3) / 11)
    assert curve.area == pytest.approx(0.25 + 0.25 * 2 / 3)


@pytest.mark.parametrize("found", range(11))
def test_recalls_of_whole_tenths_are_reached(found):
    """With ten objects the recalls equal the eleven points, which floating point must not miss."""
    curve = precision_recall(-np.arange(found, dtype=np.float64), np.ones(found, dtype=bool), 10)
    expected = (found + 1) / 11 if found else 0.0
    assert curve.eleven_point == pytest.approx(expected)


def test_detections_match_objects_of_their_own_image():
    thing = ((1, 1, 5, 5), 0, False, False)
    hit = ((1, 1, 5, 5), 0, 0.5)
    curve = voc_curves(*as_values([([thing], [hit, hit]), ([thing], [])]))[0]
    assert curve.recall.tolist() == [0.5, 0.5]


def test_other_overlap_thresholds():
    images = [([((1, 1, 10, 10), 0, False, False)], [((1, 1, 10, 7), 0, 0.5)])]
    found, truths = as_values(images)
    assert voc_curves(found, truths, 0.7)[0].area == 1.0
    assert voc_curves(found, truths, 0.75)[0].area == 0.0
    with pytest.raises(UserError, match="overlap"):
        voc_curves(found, truths, 0.0)


def test_an_iou_just_below_one_half_does_not_match():
    """The IoU is 25,007,500 / 50,015,001, which float32 would round to one half."""
    size = ImageSize(6000, 11000)
    truth = GroundTruth.make(
        Boxes(torch.tensor([[0.0, 0.0, 10001.0, 5001.0]]), size), torch.tensor([0]), NAMES
    )
    for width, expected in ((7145.0, 0.0), (7146.0, 1.0)):
        box = Boxes(torch.tensor([[0.0, 0.0, width, 3500.0]]), size)
        found = Detections(box, torch.tensor([0.5]), torch.tensor([0]), NAMES)
        assert voc_curves([found], [truth])[0].area == expected
