from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.utils import estimator_checks

from sppnet import FeatureExtractor
from sppnet.backbones import load_backbone, prepare
from sppnet.detect import DetectorOptions
from sppnet.errors import UserError
from sppnet.features import extract, image_rows, pool_rows
from sppnet.features.network import pick_device
from sppnet.structures import Boxes, ImageSize

BOXES = [[3.0, 4.0, 40.5, 50.0], [0, 0, 97, 61], [90.2, 55.1, 90.3, 55.2], [-10, -10, 8, 8]]


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((61, 97), (80, 50), (33, 33))]


@pytest.fixture(scope="module")
def network():
    return prepare(load_backbone("builtin"), "cpu")


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor("builtin", levels=(3, 1), device="cpu").fit()


def as_tensor(photo: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(photo / np.float32(255)).permute(2, 0, 1)


@pytest.mark.parametrize("mode", ["max", "mean"])
@pytest.mark.parametrize("layers", [None, ("stride16",)])
@pytest.mark.parametrize("scales", [None, (64,), (64, 0)])
def test_values_are_those_that_the_estimators_pool(photos, mode, layers, scales) -> None:
    net = prepare(load_backbone("builtin", layers=layers), "cpu")
    ours = FeatureExtractor("builtin", layers=layers, mode=mode, scales=scales, normalise=True, device="cpu")
    rows = ours.images(photos)
    assert rows.dtype == np.float32
    assert rows.shape == (3, ours.n_features_out_)
    for row, photo in zip(rows, photos, strict=True):
        parts = [
            image_rows(extract(net, as_tensor(photo), (s,) if s else None), mode=mode, normalise=True)
            for s in sorted(scales or (0,))
        ]
        np.testing.assert_allclose(row, torch.cat(parts).flatten().numpy(), rtol=1e-4, atol=1e-5)


def test_boxes_are_pooled_as_the_detector_pools_them(photos, network) -> None:
    options = DetectorOptions(short_side=96)
    levels, long_side = options.pool.levels, options.map.long_side
    ours = FeatureExtractor("builtin", levels=levels, scales=(96,), long_side=long_side, device="cpu")
    maps = extract(network, as_tensor(photos[0]), options.map.sides, long_side=long_side)
    boxes = Boxes(torch.tensor(BOXES), ImageSize(61, 97)).clip()
    expected = pool_rows(maps, boxes, levels).numpy()
    for given in (BOXES, np.array(BOXES), torch.tensor(BOXES, dtype=torch.float64)):
        np.testing.assert_array_equal(ours.boxes(photos[0], given), expected)
    assert expected.shape[1] == ours.n_features_box_


def test_a_box_of_several_scales_has_the_length_of_one(photos) -> None:
    ours = FeatureExtractor("builtin", levels=(1,), scales=(0, 64, 256), device="cpu")
    assert ours.boxes(photos[0], BOXES).shape == (4, ours.n_features_box_)
    assert ours.n_features_out_ == 3 * ours.n_features_box_
    assert len(set(ours.get_feature_names_out())) == ours.n_features_out_


def test_the_whole_image_is_one_of_its_boxes(photos, extractor) -> None:
    whole = extractor.boxes(photos[0], torch.tensor([[0, 0, 97, 61]]))
    np.testing.assert_allclose(whole, extractor.images(photos[:1]), rtol=1e-4, atol=1e-5)


def test_features_do_not_depend_on_the_images_beside(photos, extractor) -> None:
    together = extractor.images(photos)
    np.testing.assert_array_equal(together[[2, 0]], extractor.images([photos[2], photos[0]]))
    for number in range(3):
        np.testing.assert_array_equal(together[number], extractor.images(iter(photos[number:]))[0])


def test_a_stream_takes_few_images_ahead(photos, extractor) -> None:
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield photos[2]

    stream = extractor.iter_images(endless())
    for _ in range(5):
        assert next(stream).shape == (extractor.n_features_out_,)
    assert taken <= 5 + 2 * torch.get_num_threads()


def test_names_say_where_a_feature_comes_from(photos, network) -> None:
    ours = FeatureExtractor("builtin", levels=(2, 1), device="cpu").fit()
    names = list(ours.get_feature_names_out())
    assert len(set(names)) == len(names) == ours.n_features_out_
    row = dict(zip(names, ours.images(photos[:1])[0], strict=True))
    for fmap in extract(network, as_tensor(photos[0])).maps:
        pooled = torch.nn.functional.adaptive_max_pool2d(fmap.values.float(), 2)
        for channel, y, x in ((0, 0, 0), (5, 0, 1), (17, 1, 0)):
            assert row[f"{fmap.layer}:2x2:c{channel}:{y},{x}"] == pytest.approx(
                float(pooled[channel, y, x]), rel=1e-4, abs=1e-5
            )


def test_float16_is_the_rounded_float32(photos) -> None:
    half = FeatureExtractor("builtin", levels=(1,), dtype="float16", device="cpu")
    full = FeatureExtractor("builtin", levels=(1,), device="cpu")
    assert half.images(photos).dtype == np.float16
    np.testing.assert_array_equal(half.images(photos), full.images(photos).astype(np.float16))
    assert half.images([]).dtype == np.float16
    assert half.boxes(photos[0], np.zeros((0, 4))).shape == (0, half.n_features_box_)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"levels": ()}, "levels"),
        ({"levels": (2, 0)}, "levels"),
        ({"mode": "median"}, "mode"),
        ({"scales": ()}, "scales"),
        ({"scales": (8,)}, "scales"),
        ({"long_side": 3}, "long_side"),
        ({"dtype": "float64"}, "dtype"),
        ({"device": "abacus"}, "device"),
        ({"backbone": "resnet"}, "backbone"),
    ],
)
def test_options_are_checked_when_they_are_used(options, where) -> None:
    ours = FeatureExtractor(**options)
    for use in (ours.fit, lambda: ours.images([]), lambda: ours.iter_images([])):
        with pytest.raises(UserError) as error:
            use()
        assert error.value.where == where


@pytest.mark.parametrize(
    ("boxes", "where"),
    [
        ([1, 2, 3, 4], "boxes"),
        ([[1, 2, 3]], "boxes"),
        ([["a", 2, 3, 4]], "boxes"),
        ([[0, 0, 5, 5], [0, 0, float("nan"), 5]], "boxes[1]"),
        ([[0, 0, float("inf"), 5]], "boxes[0]"),
        ([[5, 0, 5, 5]], "boxes[0]"),
        ([[0, 0, 5, 5], [97, 0, 99, 5]], "boxes[1]"),
    ],
)
def test_wrong_boxes_are_named(photos, extractor, boxes, where) -> None:
    with pytest.raises(UserError) as error:
        extractor.boxes(photos[0], boxes)
    assert error.value.where == where


def test_a_single_image_is_no_list_of_images(photos, extractor, tmp_path: Path) -> None:
    for one in ("photo.jpg", tmp_path, photos[0], as_tensor(photos[0]), Image.fromarray(photos[0]), b"x", 3):
        with pytest.raises(UserError, match=r"Put a single image into a list"):
            extractor.images(one)


def test_errors_are_raised_or_returned(photos, extractor) -> None:
    sources = [photos[0], "none.jpg", photos[1]]
    with pytest.raises(UserError, match=r"none\.jpg"):
        extractor.images(sources)
    first, second, third = extractor.iter_images(sources, errors="return")
    assert isinstance(second, UserError)
    np.testing.assert_array_equal(np.stack([first, third]), extractor.images([photos[0], photos[1]]))
    with pytest.raises(UserError, match="errors"):
        extractor.iter_images(sources, errors="ignore")


def test_features_beyond_float16_are_refused() -> None:
    from sppnet.features.inputs import converted

    kept = converted(np.array([1.5, np.inf, 65504], np.float32), "float16")
    assert kept.tolist() == [1.5, np.inf, 65504]
    with pytest.raises(UserError, match="70000"):
        converted(np.array([1.0, -7e4], np.float32), "float16")


# scikit-learn's `check_estimator` generates numeric matrices; the checks below need none. What the others
# look at (fit returns self, nothing overwritten, the same result for a subset or another order, pickling,
# counts of samples and features) is tested on images in this file; checks of numeric validation, sparse
# input and NaN have no counterpart for image sources.
CHECKS = [
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_tags_renamed,
    estimator_checks.check_valid_tag_types,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
    estimator_checks.check_mixin_order,
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_set_params,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_scikit_learn_checks(check) -> None:
    check("FeatureExtractor", FeatureExtractor("builtin", device="cpu"))


def test_fit_changes_no_parameter_and_pickles_without_weights(photos) -> None:
    ours = FeatureExtractor("builtin", levels=[2, 1], device="cpu")
    before = ours.get_params()
    assert ours.fit(photos) is ours
    assert ours.get_params() == before
    expected = ours.transform(photos)
    dumped = pickle.dumps(ours)
    assert len(dumped) < 5000
    np.testing.assert_array_equal(pickle.loads(dumped).transform(photos), expected)  # noqa: S301
    np.testing.assert_array_equal(clone(ours).fit_transform(photos), expected)
    ours.set_params(layers=["stride16"])
    assert ours.transform(photos).shape[1] < expected.shape[1]


@pytest.fixture
def paths(photos, tmp_path: Path) -> list[str]:
    names = [str(tmp_path / f"{n}.png") for n in range(3)]
    for path, photo in zip(names, photos, strict=True):
        Image.fromarray(photo).save(path)
    return names


def test_columns_of_paths(photos, paths) -> None:
    ours = FeatureExtractor("builtin", levels=(1,), device="cpu")
    expected = ours.transform(photos)
    for given in (np.array(paths), np.array(paths)[:, None], [[p] for p in paths], map(Path, paths)):
        np.testing.assert_array_equal(ours.transform(given), expected)
    with pytest.raises(UserError, match="one column"):
        ours.transform(np.array([paths, paths]))


def test_data_frames_in_and_out(photos, paths) -> None:
    pandas = pytest.importorskip("pandas")
    ours = FeatureExtractor("builtin", levels=(1,), device="cpu")
    column = pandas.DataFrame({"path": paths}, index=["a", "b", "c"])
    np.testing.assert_array_equal(ours.transform(column["path"]), ours.transform(photos))
    frame = ours.set_output(transform="pandas").transform(column)
    assert list(frame.index) == ["a", "b", "c"]
    assert list(frame.columns) == list(ours.get_feature_names_out())
    np.testing.assert_array_equal(frame.to_numpy(), ours.images(photos))


def test_pipelines_and_grid_search() -> None:
    draw = np.random.default_rng(1)
    stripes = [np.zeros((40 + n, 48, 3), np.uint8) for n in range(12)]
    for number, image in enumerate(stripes):
        image[:: 4 if number % 2 else 1, :: 1 if number % 2 else 4] = draw.integers(150, 255)
    labels = [number % 2 for number in range(12)]
    pipeline = make_pipeline(FeatureExtractor("builtin", device="cpu"), LinearSVC())
    search = GridSearchCV(pipeline, {"featureextractor__levels": [(1,), (2, 1)]}, cv=2)
    search.fit(stripes, labels)
    assert search.best_score_ == 1
    assert search.predict(stripes).tolist() == labels


def test_the_default_device_is_one_that_there_is() -> None:
    assert FeatureExtractor().fit().device == "auto"
    assert pick_device("auto").type in {"cpu", "cuda"}
