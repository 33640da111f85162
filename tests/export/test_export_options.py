"""Precisions, formats, the shell, and mistakes."""

import json

import numpy as np
import pytest
import torch
from export_scenes import scene

from sppnet.classify import Classifier
from sppnet.cli import main
from sppnet.detect import Detector
from sppnet.errors import UserError
from sppnet.export import evaluate_export, export_features, export_program
from sppnet.export.targets import MARK, check_target
from sppnet.runtime import Runtime


@pytest.fixture(scope="module")
def run(detector, tmp_path_factory):
    return detector.save(tmp_path_factory.mktemp("runs") / "run")


def test_float16_halves_the_file_and_keeps_the_classes(classifier, models, colours, tmp_path):
    path = classifier.export(tmp_path / "half.onnx", precision="float16")
    half = Runtime(path)
    assert half.metadata["precision"] == "float16"
    whole = classifier.export(tmp_path / "whole.onnx")
    assert path.stat().st_size < 0.7 * whole.stat().st_size
    image = scene(3)[0]
    a, b = half.features(image), models["classifier"].features(image)
    assert 0 < np.linalg.norm(a - b) < 0.01


def test_int8_is_smaller_and_its_cost_is_recorded(run, detector, scenes, tmp_path, capsys):
    out = tmp_path / "int8.onnx"
    words = ["export", str(run), "--out", str(out), "--precision", "int8", "--json"]
    assert main([*words, "--calibration", str(scenes / "JPEGImages"), "--data", str(scenes)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["accuracy"] == {
        name: [values["run"], values["export"]]
        for name, values in json.loads(Runtime(out).metadata["accuracy"]).items()
    }
    assert said["accuracy"]["AP50"][0] == pytest.approx(detector.evaluate(scenes, quiet=True)["AP50"])
    assert said["accuracy"]["AP50"][1] > 0.5
    plain = detector.export(tmp_path / "plain.onnx")
    assert out.stat().st_size < plain.stat().st_size


def test_an_export_is_measured_as_good_as_the_classifier(classifier, colours, tmp_path):
    path = classifier.export(tmp_path / "model.onnx")
    measured = evaluate_export(classifier, path, colours, "val")
    assert {"accuracy"} <= measured.keys()
    assert all(ours == theirs for ours, theirs in measured.values())


@pytest.mark.exhaustive  # torch.export takes a minute
@pytest.mark.parametrize("size", [(40, 60), (300, 200), (64, 900)], ids=str)
def test_a_torch_program_gives_the_classifier_s_answers(program, classifier, size):
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    scores, _ = program(torch.from_numpy(pixels))
    ours = classifier.predict(pixels)
    torch.testing.assert_close(scores[ours.labels], ours.scores, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def program(classifier, tmp_path_factory):
    path = export_program(classifier, tmp_path_factory.mktemp("program") / "model.pt2")
    return torch.export.load(path).module(check_guards=False)


def test_a_backbone_alone_is_exported(detector, tmp_path):
    path = export_features(detector.backbone_, tmp_path / "f.onnx", (2, 1), mode="mean", scales=(64, 96))
    channels = sum(layer.channels for layer in detector.backbone_.layers)
    assert Runtime(path).features(scene(1)[0]).shape == (2, 5 * channels)


def test_mistakes_leave_no_file(detector, classifier, tmp_path):
    target = tmp_path / "model.onnx"
    for estimator in (Detector(), Classifier()):
        with pytest.raises(UserError, match="a fitted estimator"):
            estimator.export(target)
    with pytest.raises(UserError, match=r"ends in \.onnx"):
        detector.export(tmp_path / "model.pt")
    with pytest.raises(UserError, match="precision: expected float32"):
        detector.export(target, precision="float8")
    with pytest.raises(UserError, match="calibration"):
        detector.export(target, precision="int8")
    with pytest.raises(UserError, match="a whole detector"):
        export_program(detector, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_the_shell_refuses_int8_without_images(run, tmp_path, capsys):
    assert main(["export", str(run), "--out", str(tmp_path / "m.onnx"), "--precision", "int8"]) == 2
    assert "--calibration" in capsys.readouterr().err


def test_an_export_replaces_no_file_of_other_origin(classifier, tmp_path):
    mine = tmp_path / "mine.onnx"
    for content in (b"mine", b"", b"\x08\x0a\x12\x07pytorch"):
        mine.write_bytes(content)
        with pytest.raises(UserError, match="one that sppnet exported"):
            classifier.export(mine)
        assert mine.read_bytes() == content
    link = tmp_path / "link.onnx"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="one that sppnet exported"):
        classifier.export(link)
    program = tmp_path / "mine.pt2"
    program.write_bytes(b"mine")
    with pytest.raises(UserError, match="one that sppnet exported"):
        export_program(classifier, program)
    ours = classifier.export(tmp_path / "ours.onnx", precision="float16")
    check_target(ours, ".onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "link.onnx", "mine.onnx", "mine.pt2", "ours.onnx"
    ]  # fmt: skip


def test_programs_of_sppnet_are_recognised(tmp_path):
    path = tmp_path / "a.pt2"
    program = torch.export.export(torch.nn.Identity(), (torch.zeros(1),))
    torch.export.save(program, path)
    with pytest.raises(UserError, match="one that sppnet exported"):
        check_target(path, ".pt2")
    torch.export.save(program, path, extra_files={MARK: ""})
    check_target(path, ".pt2")
