import json

import numpy as np
import pytest
import torch
from PIL import Image

from sppnet.classify import Classifier, ClassifierOptions
from sppnet.errors import UserError

NAMES = ("checks", "dots", "stripes")
OPTIONS = ClassifierOptions(levels=(3, 1))


def texture(number, seed):
    """An image of any shape, black on white: checks, dots or stripes of a random period."""
    draw = np.random.default_rng(seed)
    height, width = (int(v) for v in draw.integers(40, 110, 2))
    rows, columns = np.mgrid[:height, :width]
    period = int(draw.integers(8, 14))
    across, down = columns % period < period // 2, rows % period < period // 2
    dark = (across ^ down, across & down, across)[number]
    noise = draw.integers(0, 60, (height, width, 1))
    return (np.where(dark[..., None], 20, 190) + noise).astype(np.uint8).repeat(3, 2)


@pytest.fixture(scope="module")
def textures(tmp_path_factory):
    root = tmp_path_factory.mktemp("textures")
    for split, first, count in (("train", 0, 12), ("test", 500, 6)):
        for number, name in enumerate(NAMES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(texture(number, first + 50 * number + i)).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def classifier(textures):
    return Classifier("builtin", device="cpu", options=OPTIONS).fit(textures, quiet=True)


def test_it_classifies_images_of_all_shapes(classifier, textures):
    metrics = classifier.evaluate(textures, quiet=True)
    assert metrics["images"] == 18
    assert metrics["mean_class_accuracy"] >= 0.8
    assert metrics["top5"] == 1.0
    assert set(metrics["per_class"]) == set(NAMES)


def test_a_loaded_run_gives_the_same_results(classifier, textures, tmp_path):
    again = Classifier.load(classifier.save(tmp_path / "run"), device="cpu")
    path = textures / "test" / "dots" / "0.png"
    first, second = classifier.predict(path), again.predict(path)
    assert torch.equal(first.labels, second.labels)
    torch.testing.assert_close(first.scores, second.scores)
    assert again.options == OPTIONS


def test_probabilities_add_up_and_descend(classifier, textures):
    result = classifier.predict(textures / "test" / "stripes" / "1.png")
    assert float(result.scores.sum()) == pytest.approx(1.0, abs=1e-5)
    assert result.scores.tolist() == sorted(result.scores.tolist(), reverse=True)
    assert result.name == NAMES[int(result.labels[0])]
    assert len(classifier.predict(textures / "test" / "stripes" / "1.png", threshold=0.99999).labels) <= 1


def test_every_kind_of_source_and_the_written_result(classifier, textures, tmp_path):
    path = textures / "test" / "checks" / "2.png"
    image = Image.open(path)
    results = classifier.predict([path, image, np.asarray(image)])
    assert isinstance(results, list)
    for result in results:
        torch.testing.assert_close(result.scores, results[0].scores)
    written = json.loads(results[0].save(tmp_path / "r.json").read_text())
    assert [c["name"] for c in written["classes"]] == [NAMES[i] for i in results[0].labels.tolist()]
    assert Image.open(results[0].save(tmp_path / "r.png")).size == results[0].plot().size


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (31, 33)])
def test_any_image_size(classifier, size):
    assert len(classifier.predict(np.full((*size, 3), 90, np.uint8)).labels) == 3


def test_features_have_norm_one_and_do_not_depend_on_a_flip(textures):
    options = ClassifierOptions(levels=(2,), flip=True, scales=(64, 96))
    fitted = Classifier("builtin", device="cpu", options=options).fit(textures, quiet=True)
    pixels = texture(2, 7)
    features, flipped = (
        fitted._feature_vector(pixels),
        fitted._feature_vector(np.ascontiguousarray(pixels[:, ::-1])),
    )
    assert float(features.norm()) == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(features, flipped, rtol=1e-3, atol=1e-4)


def test_the_own_size_of_an_image_is_combined_with_other_scales(textures):
    def features(scales):
        options = ClassifierOptions(levels=(2,), scales=scales)
        fitted = Classifier("builtin", device="cpu", options=options).fit(textures, quiet=True)
        return fitted._feature_vector(texture(2, 7))

    own, larger, both = features(None), features((96,)), features((96, 0))
    assert torch.equal(features((0,)), own)
    torch.testing.assert_close(both, torch.cat([own, larger]) / 2**0.5)


def test_mistakes_are_named(classifier, textures, tmp_path):
    with pytest.raises(UserError, match="fit or load"):
        Classifier().predict("x.jpg")
    with pytest.raises(UserError, match=r"options\.C"):
        Classifier(options=ClassifierOptions(C=0)).fit(textures)
    with pytest.raises(UserError, match=r"options\.levels"):
        Classifier(options=ClassifierOptions(levels=())).fit(textures)
    with pytest.raises(UserError, match=r"options\.scales"):
        Classifier(options=ClassifierOptions(scales=(4,))).fit(textures)
    for name in ("checks", "zebra"):
        (tmp_path / name).mkdir()
        Image.fromarray(texture(0, 0)).save(tmp_path / name / "a.png")
    with pytest.raises(UserError, match="zebra"):
        classifier.evaluate(tmp_path, "", quiet=True)
    with pytest.raises(UserError, match="no such file"):
        Classifier(weights=tmp_path / "none.safetensors").fit(textures)
