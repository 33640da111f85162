"""The paper's detection on tiny images: stages kept and never wrongly used, rules, both pipelines."""

import functools
import json

import numpy as np
import pytest
import torch
from elsewhere import DEVICE, Pretended
from shape_images import image

from sppnet.backbones import load_backbone, prepare
from sppnet.data import read_detection, write_voc
from sppnet.detect import (
    Detector,
    DetectorOptions,
    FinetuneOptions,
    PoolOptions,
    TargetOptions,
    combine,
    fitting,
)
from sppnet.detect import detector as detector_module
from sppnet.detect.cells import pool_windows, score_windows, window_cells
from sppnet.detect.finetune import draw_batch, window_labels
from sppnet.detect.pooled_boxes import whitening
from sppnet.detect.svm_images import fit_by_images
from sppnet.errors import UserError
from sppnet.features import extract
from sppnet.features.store import StageStore
from sppnet.learn import LinearModel
from sppnet.ops import region_pyramid_pool
from sppnet.structures import Boxes, Detections, FeatureMaps, GroundTruth, ImageSize

NETWORK = "random:torchvision:squeezenet1_0"
POOL = DetectorOptions.paper(
    layers=("stride8",),
    scales=(64, 80),
    levels=(2, 1),
    features="pool",
    source="dense",
    windows=120,
    width=16,
    finetune=FinetuneOptions(rates=(1e-3,), lengths=(3,), images=3),
    crop_side=48,
    crop_padding=4,
    crop_batch=64,
)
CELLS = PoolOptions(cells="paper")


@functools.cache
def load_once(name, weights, layers, seed=0):
    return load_backbone(name, weights, layers, seed=seed)


@pytest.fixture(autouse=True)
def _one_network(monkeypatch):
    """Measuring a network takes longer than everything else here."""
    monkeypatch.setattr(detector_module, "load_backbone", load_once)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("paper")
    write_voc(root, [(f"a{i}", *image(i)) for i in range(4)], "train")
    write_voc(root, [(f"b{i}", *image(90 + i)) for i in range(2)], "val")
    return root


def trained(data, cache, options=POOL, **changed):
    return Detector(NETWORK, device="cpu", options=options, cache=cache, **changed).fit(
        data, "train", quiet=True
    )


def weights(detector):
    return detector.heads_.tensors()


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_run_is_loaded_as_it_was(data, tmp_path):
    detector = trained(data, tmp_path / "cache", POOL.replace(features="fc7"))
    detector.save(tmp_path / "run")
    again = Detector.load(tmp_path / "run", device="cpu")
    assert again.cache is None
    assert same(weights(again), weights(detector))
    path = read_detection(data, "val").items[0].path
    ours, theirs = detector.detect(path), again.detect(path)
    assert torch.equal(ours.scores, theirs.scores)
    assert torch.allclose(ours.boxes.xyxy, theirs.boxes.xyxy)
    found = again.evaluate(data, "val", quiet=True)
    assert found["images"] == 2


@pytest.mark.parametrize("stage", ["finetune", "fit_by_images", "fit_pooled"])
def test_an_interrupted_training_goes_on(data, tmp_path, monkeypatch, stage):
    options = POOL.replace(features="fc6", scales=(64,))

    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fitting, stage, fail)
        with pytest.raises(KeyboardInterrupt):
            trained(data, tmp_path, options)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert kept
    resumed = trained(data, tmp_path, options)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert same(weights(resumed), weights(trained(data, None, options)))


def test_the_same_command_makes_nothing_anew(data, tmp_path):
    first = trained(data, tmp_path)
    again = trained(data, tmp_path)
    assert first.summary_["stages_made"] > 0
    assert again.summary_["stages_made"] == 0
    assert same(weights(first), weights(again))


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"options": POOL.replace(scales=(64,))},
        {"options": POOL.replace(cells="release")},
        {"options": POOL.replace(levels=(3,))},
        {"options": POOL.replace(C=1e-2)},
        {"options": POOL.replace(windows=60)},
    ],
)
def test_what_other_settings_or_networks_made_is_not_used(data, tmp_path, changed):
    trained(data, tmp_path)
    assert same(weights(trained(data, tmp_path, **changed)), weights(trained(data, None, **changed)))


def test_a_changed_image_or_object_is_seen(data, tmp_path):
    root = tmp_path / "set"
    write_voc(root, [(f"a{i}", *image(i)) for i in range(3)], "train")
    before = trained(root, tmp_path / "cache")
    pixels, truth = image(2)
    write_voc(root, [("a2", 255 - pixels, truth)], "other")
    after = trained(root, tmp_path / "cache")
    assert after.summary_["stages_made"] > 0
    assert not torch.equal(weights(before)["svm.weight"], weights(after)["svm.weight"])


def test_damaged_and_foreign_files_are_made_anew(tmp_path):
    cache = StageStore(0, tmp_path)
    cache.get("stage", "one", lambda: {"x": torch.ones(2)})
    path = tmp_path / "stage" / "one.safetensors"
    assert torch.equal(cache.get("stage", "one", dict)["x"], torch.ones(2))
    path.rename(path.with_name("two.safetensors"))
    assert torch.equal(cache.get("stage", "two", lambda: {"x": torch.zeros(2)})["x"], torch.zeros(2))
    path.write_bytes(b"half a file")
    assert torch.equal(cache.get("stage", "one", lambda: {"x": torch.zeros(3)})["x"], torch.zeros(3))


def test_both_pipelines_share_everything_but_the_rows(data, tmp_path):
    spp = trained(data, tmp_path)
    rcnn = trained(data, tmp_path, POOL.replace(pipeline="rcnn", windows=20))
    assert weights(spp)["svm.weight"].shape == weights(rcnn)["svm.weight"].shape
    assert rcnn.detect(read_detection(data, "val").items[0].path).names == ("disc", "square")


@pytest.mark.parametrize("pipeline", ["spp", "rcnn"])
def test_a_image_passes_through_the_network_once(data, tmp_path, pipeline):
    detector = trained(data, tmp_path, POOL.replace(pipeline=pipeline, scales=(64,), score_above=-99.0))
    detector.cache = None
    assert len(detector.names_) > 1
    seen = []
    hook = detector.network_.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    path = read_detection(data, "val").items[0].path
    found = detector.detect(path)
    hook.remove()
    assert set(found.labels.tolist()) == set(range(len(detector.names_)))
    assert seen
    assert sum(seen) <= (1 if pipeline == "spp" else POOL.window.windows)


@pytest.mark.parametrize("features", ["pool", "fc7"])
def test_on_another_device_all_is_as_on_the_cpu(data, tmp_path, monkeypatch, features):
    path = read_detection(data, "val").items[0].path
    options = POOL.replace(features=features)
    expected = trained(data, tmp_path / "here", options)
    expected.cache = None
    monkeypatch.setattr(detector_module, "pick_device", lambda name: DEVICE)
    with Pretended():
        ours = trained(data, tmp_path / "there", options)
        ours.cache = None
        found = ours.detect(path)
    assert ours.network_.device == DEVICE
    wanted = expected.detect(path)
    assert len(found) == len(wanted) > 0
    torch.testing.assert_close(found.boxes.xyxy, wanted.boxes.xyxy, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(found.scores, wanted.scores, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def maps():
    network = prepare(load_backbone(NETWORK, layers=("stride8",)))
    return extract(network, torch.rand(3, 96, 120, generator=torch.Generator().manual_seed(0)), (64, 96, 128))


def some_boxes(count=300):
    draw = torch.Generator().manual_seed(1)
    low = torch.rand(count, 2, generator=draw) * 60
    return Boxes(torch.cat([low, low + torch.rand(count, 2, generator=draw) * 36], 1), ImageSize(96, 120))


def test_features_are_pooled_regions_and_scores_those_of_the_features(maps):
    boxes = some_boxes()
    lines = window_cells(maps, boxes, CELLS)
    rows = pool_windows(maps, lines, (3, 1))
    one = FeatureMaps((maps.maps[0],))
    regions = window_cells(one, boxes, CELLS)[:, 1:]
    expected = region_pyramid_pool(one.maps[0].values[None], [regions], (3, 1)).float()
    assert torch.equal(pool_windows(one, window_cells(one, boxes, CELLS), (3, 1)), expected)
    model = LinearModel(torch.randn(4, rows.shape[1]), torch.randn(4))
    assert torch.allclose(score_windows(maps, lines, model, (3, 1)), model.scores(rows), atol=1e-3, rtol=1e-4)


def test_a_scale_may_be_given(maps):
    boxes = some_boxes(20)
    lines = window_cells(maps, boxes, CELLS, torch.full((20,), 1))
    one = FeatureMaps((maps.maps[1],))
    expected = pool_windows(one, window_cells(one, boxes, CELLS), (2,))
    assert torch.equal(pool_windows(maps, lines, (2,)), expected)


def truth(boxes, labels):
    return GroundTruth.make(
        Boxes(torch.tensor(boxes, dtype=torch.float32), ImageSize(100, 100)), torch.tensor(labels), ("a", "b")
    )


def test_labels_of_windows():
    things = truth([[0, 0, 40, 40], [50, 50, 90, 90]], [1, 0])
    rows = [
        [0, 0, 40, 40],
        [0, 0, 40, 20],
        [0, 0, 40, 19],
        [50, 50, 60, 60],
        [0, 60, 10, 70],
        [50, 50, 90, 80],
    ]
    windows = Boxes(torch.tensor(rows, dtype=torch.float32), ImageSize(100, 100))
    assert window_labels(windows, things, FinetuneOptions()).tolist() == [1, 1, 2, -1, -1, 0]


def test_a_batch_has_its_shares():
    draw = torch.Generator().manual_seed(0)
    labels = [torch.tensor([0] * 30 + [2] * 100 + [-1] * 50) for _ in range(4)]
    batch = draw_batch(labels, [0, 2, 3], 2, FinetuneOptions(), draw)
    taken = torch.cat([labels[i][which] for i, which in batch])
    assert {i for i, _ in batch} == {0, 2, 3}
    assert (int((taken == 0).sum()), int((taken == 2).sum()), int((taken < 0).sum())) == (32, 96, 0)
    assert all(len(torch.unique(which)) == len(which) for _, which in batch)


def test_whitened_targets_have_unit_covariance():
    draw = torch.Generator().manual_seed(0)
    targets = torch.randn(5000, 4, generator=draw).double() @ torch.randn(4, 4, generator=draw).double()
    mean, root, back = whitening(targets)
    white = (targets - mean) @ root
    assert torch.allclose(white.T @ white / 5000, torch.eye(4).double(), atol=0.05)
    assert torch.allclose(root @ back, torch.eye(4).double(), atol=1e-8)


def test_combining_takes_the_better_of_two_and_keeps_what_one_alone_found():
    def found(boxes, scores):
        place = Boxes(torch.tensor(boxes, dtype=torch.float32), ImageSize(100, 100))
        return Detections(place, torch.tensor(scores), torch.zeros(len(scores), dtype=torch.int64), ("a",))

    ours, theirs = found([[0, 0, 20, 20]], [0.6]), found([[1, 1, 21, 21], [50, 50, 70, 70]], [0.7, 0.2])
    joined = combine([ours, theirs], DetectorOptions.paper())
    assert joined.boxes.xyxy.tolist() == [[1, 1, 21, 21], [50, 50, 70, 70]]
    assert torch.allclose(joined.scores, torch.tensor([0.7, 0.2]), atol=1e-5)


def test_a_image_too_large_is_refused_not_shrunk(data):
    with pytest.raises(UserError, match="largest"):
        trained(data, None, POOL.replace(largest=1000))


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("scales", (8,), "scales"),
        ("nms", 2.0, "nms"),
        ("finetune", FinetuneOptions(lengths=(1,)), "lengths"),
        ("ridge", 0.0, "ridge"),
        ("source", "edge-boxes", "edge_model"),
        ("mining_rounds", 0, "mining_rounds"),
    ],
)
def test_mistakes(field, value, where):
    with pytest.raises(UserError, match=where):
        DetectorOptions.paper(**{field: value}).check()


class Table:
    """Rows of windows without a network: the first window of each image is its object."""

    length = 1500

    def __init__(self, counts):
        draw = torch.Generator().manual_seed(0)
        size = ImageSize(100, 100)
        object_ = torch.tensor([[80.0, 80, 100, 100]])
        self.table, self.windows = [], []
        for number, count in enumerate(counts):
            rows = 0.05 * torch.randn(1 + count, self.length, generator=draw)
            rows[0, 0] += 1
            rows[1:, 1 + number] += 1
            # Negatives of later images share more with objects: the first SVM takes them for such.
            rows[1:, 0] += 0.7 * number
            corner = torch.rand(count, 2, generator=draw) * 60
            self.table.append(rows)
            self.windows.append(Boxes(torch.cat([object_, torch.cat([corner, corner + 3], 1)]), size))

    def rows(self, i, which, *, flipped=False, draw=None):
        return self.table[i][which]

    def scores(self, i, model):
        return model.scores(self.table[i])

    def lines(self, i):
        return torch.arange(len(self.table[i]))[:, None]


def test_negatives_without_room_are_counted_and_hard_ones_still_find_some():
    source = Table([400, 90])
    truths = [GroundTruth.make(boxes[:1], torch.tensor([0]), ("a", "none")) for boxes in source.windows]
    options, target = DetectorOptions.paper(alike=1.0, mining_rounds=2), TargetOptions(difficult=True)
    few, plenty = (
        fit_by_images(source, truths, options.replace(negatives_mb=mb).svm, target, 0, quiet=True)
        for mb in (1, 1000)
    )
    # 1 MB is 174 rows of 1500 numbers, all of them for the only class with objects.
    assert few[1]["negatives_left_out"] >= 400 - 174
    assert plenty[1]["negatives_left_out"] == 0
    for model, _ in (few, plenty):
        scores = [model.scores(rows)[:, 0] for rows in source.table]
        assert min(float(some[0]) for some in scores) > max(float(some[1:].max()) for some in scores)
        assert bool((model.weight[1] == 0).all())


def test_a_run_whose_file_of_proposals_is_gone_says_so_when_it_predicts(data, tmp_path):
    path = read_detection(data, "val").items[0].path
    table = {}
    for split in ("train", "val"):
        for item in read_detection(data, split).items:
            table[item.path.name] = [[x, y, x + 34, y + 34] for x in (0, 20, 60) for y in (0, 30, 50)]
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps(table))
    fitted = trained(data, None, POOL.replace(proposals=file))
    fitted.save(tmp_path / "run")
    with pytest.raises(UserError, match="image in memory"):
        fitted.predict(np.zeros((40, 50, 3), np.uint8))
    there = Detector.load(tmp_path / "run", device="cpu").detect(path)
    assert torch.equal(there.scores, fitted.detect(path).scores)
    file.unlink()
    with pytest.raises(UserError, match=r"boxes\.json: .*proposals"):
        Detector.load(tmp_path / "run", device="cpu").detect(path)
