"""What good requests are answered."""

from __future__ import annotations

import base64
import json
from io import BytesIO

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from serve_images import encoded, pixels, png

from sppnet.classify import Classifier
from sppnet.detect import Detector
from sppnet.features import extract, image_rows, pool_rows
from sppnet.serve import create_app
from sppnet.structures import Boxes

PNG = {"content-type": "image/png"}


def test_predictions_equal_those_of_the_estimator(client: TestClient, detector: Detector) -> None:
    images = [pixels(i)[0] for i in (20, 21, 22)]
    wanted = [detector.predict(image, threshold=0.1).to_dict() for image in images]
    files = [("files", (f"{i}.png", encoded(Image.fromarray(image)))) for i, image in enumerate(images)]
    answer = client.post("/predict?threshold=0.1", files=files)
    assert answer.status_code == 200
    found = answer.json()
    assert found["failed"] == 0
    assert [item["file"] for item in found["results"]] == ["0.png", "1.png", "2.png"]
    for item, expected in zip(found["results"], wanted, strict=True):
        assert (item["height"], item["width"]) == (expected["height"], expected["width"])
        assert len(item["detections"]) == len(expected["detections"])
        for one, other in zip(item["detections"], expected["detections"], strict=True):
            assert one["label"] == other["label"]
            np.testing.assert_allclose(one["box"], other["box"], atol=0.05)
            assert one["score"] == pytest.approx(other["score"], abs=2e-3)


def test_a_raw_body_and_a_form_are_answered_alike(client: TestClient) -> None:
    image = png(30)
    raw = client.post("/predict", content=image, headers=PNG).json()["results"][0]
    form = client.post("/predict", files={"anything": ("x", image)}).json()["results"][0]
    assert raw.pop("file") == ""
    assert form.pop("file") == "x"
    assert raw == form


def test_upright_pixels_are_predicted_on(client: TestClient) -> None:
    turned = Image.fromarray(pixels(3)[0]).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    found = client.post(
        "/predict", content=encoded(turned, "JPEG", exif=exif), headers={"content-type": "image/jpeg"}
    ).json()["results"][0]
    assert (found["width"], found["height"]) == (turned.height, turned.width)


def test_features_equal_those_pooled_directly(client: TestClient, detector: Detector) -> None:
    image = pixels(40)[0]
    boxes = [[0, 0, 30, 30], [10.5, 4, 60, 50.25]]
    tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    maps = extract(detector.network_, tensor, (96,), long_side=detector.options.map.long_side)
    files = {"files": ("a.png", encoded(Image.fromarray(image)))}
    whole = client.post("/features", files=files).json()["results"][0]
    assert whole["shape"] == [1, client.get("/model").json()["features"]["length"]]
    np.testing.assert_allclose(whole["features"], image_rows(maps, (2, 1)).numpy(), atol=1e-4)
    answer = client.post("/features?encoding=base64", files=files, data={"boxes": json.dumps(boxes)})
    found = answer.json()["results"][0]
    rows = np.frombuffer(base64.b64decode(found["features"]), "<f4").reshape(found["shape"])
    wanted = pool_rows(maps, Boxes(torch.tensor(boxes), maps.image), (2, 1))
    np.testing.assert_allclose(rows, wanted.numpy(), atol=1e-4)


def test_boxes_of_several_images_and_of_none(client: TestClient) -> None:
    files = [("files", (f"{i}.png", png(i))) for i in range(2)]
    boxes = [[[0, 0, 9, 9]], []]
    found = client.post("/features", files=files, data={"boxes": json.dumps(boxes)}).json()["results"]
    assert [item["shape"][0] for item in found] == [1, 0]
    assert found[1]["features"] == []


def test_strongest_maps_are_images(client: TestClient) -> None:
    found = client.post("/maps?count=3", content=png(1), headers=PNG).json()["results"][0]["maps"]
    assert len({item["channel"] for item in found}) == 3
    for item in found:
        kind, _, text = item["png"].partition(",")
        assert kind == "data:image/png;base64"
        with Image.open(BytesIO(base64.b64decode(text))) as image:
            assert image.size == (item["width"], item["height"])
            assert image.getextrema() == (0, 255)


def test_a_classifier_is_served(classifier: Classifier) -> None:
    with TestClient(create_app(classifier)) as client:
        assert client.get("/model").json()["names"] == ["bright", "dark"]
        for ground, name in ((200, "bright"), (20, "dark")):
            answer = client.post("/predict", content=png(50, ground), headers=PNG)
            assert answer.json()["results"][0]["classes"][0]["name"] == name
        assert client.post("/features", content=png(1), headers=PNG).status_code == 200


def test_health_metrics_and_the_page(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}
    client.post("/predict", content=png(1), headers=PNG)
    client.get("/no-such-path")
    text = client.get("/metrics").text
    assert 'sppnet_requests_total{path="/predict",status="200"}' in text
    assert 'sppnet_requests_total{path="other",status="404"}' in text
    assert "no-such-path" not in text
    assert "sppnet_images_in_work 0.0" in text
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "http://" not in page.text
    assert "https://" not in page.text


def test_not_ready_after_the_worker_stopped(detector: Detector) -> None:
    client = TestClient(create_app(detector))
    with client:
        pass
    assert client.get("/ready").status_code == 503
