"""What bad requests are answered: a 4xx with a reason, never a 5xx."""

from __future__ import annotations

import json
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import torch
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from running_server import running
from serve_images import encoded, png

from sppnet.detect import Detector
from sppnet.errors import UserError
from sppnet.serve import ServeOptions, create_app

PNG = {"content-type": "image/png"}
FORM = {"content-type": "multipart/form-data; boundary=x"}
fast = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refused(answer, status: int, reason: str) -> dict:
    error = answer.json()["error"]
    assert (answer.status_code, error["status"], error["reason"]) == (status, status, reason), answer.text
    assert error["message"]
    return error


def bomb(width: int, height: int) -> bytes:
    """The header of a PNG of any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def part(disposition: bytes, content: bytes = b"x") -> bytes:
    return b"--x\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + content + b"\r\n--x--\r\n"


BAD_BODIES = {
    "empty": (b"", PNG, 422, "empty"),
    "text": (b"hello", PNG, 422, "undecodable"),
    "truncated": (png(1)[:200], PNG, 422, "undecodable"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", PNG, 422, "undecodable"),
    "many pixels": (bomb(9000, 9000), PNG, 413, "too_many_pixels"),
    "Pillow's limit": (bomb(60000, 60000), PNG, 413, "too_many_pixels"),
    "one line": (bomb(60000, 2), PNG, 422, "aspect_ratio"),
    "no type": (png(1), {}, 415, "content_type"),
    "form urlencoded": (b"a=b", {"content-type": "application/x-www-form-urlencoded"}, 415, "content_type"),
    "json": (b'{"url": "file:///etc/passwd"}', {"content-type": "application/json"}, 415, "content_type"),
    "no boundary": (b"--x", {"content-type": "multipart/form-data"}, 422, "broken_form"),
    "long boundary": (
        b"--x",
        {"content-type": f"multipart/form-data; boundary={'y' * 999}"},
        422,
        "broken_form",
    ),
    "other boundary": (b"--y\r\n", FORM, 422, "broken_form"),
    "nothing in a form": (b"", FORM, 422, "broken_form"),
    "cut off": (b'--x\r\nContent-Disposition: form-data; name="files"', FORM, 422, "broken_form"),
    "no end": (part(b'form-data; name="files"; filename="a"')[:-6], FORM, 422, "broken_form"),
    "no name": (part(b'form-data; filename="a"'), FORM, 422, "broken_form"),
    "no files": (b"--x--\r\n", FORM, 422, "no_files"),
    "a path": (part(b'form-data; name="files"', b"/etc/passwd"), FORM, 422, "no_files"),
    "an empty file": (part(b'form-data; name="files"; filename="a"', b""), FORM, 422, "empty"),
}


@pytest.mark.parametrize("path", ["/predict", "/features", "/maps"])
@pytest.mark.parametrize("case", BAD_BODIES)
def test_bad_bodies(client: TestClient, path: str, case: str) -> None:
    body, headers, status, reason = BAD_BODIES[case]
    refused(client.post(path, content=body, headers=headers), status, reason)


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-inf", "-0.1", "1.1", "", "x", "9" * 400, "%ED%A0%80", "%00"]
)
def test_bad_thresholds(client: TestClient, value: str) -> None:
    refused(client.post(f"/predict?threshold={value}", content=png(1), headers=PNG), 422, "parameter")


BAD_BOXES = [
    "", "x", "{}", "null", "1", "[[0, 0, 1]]", "[[0, 0, NaN, 1]]", "[[0, 0, Infinity, 1]]", "[[5, 0, 1, 1]]",
    "[[0, 0, 1, true]]", '[["\\ud800", 0, 1, 1]]', f"[[0, 0, {'9' * 400}, 1]]", f"[[0, 0, {'9' * 5000}, 1]]",
    "[[0, 0, 1e9, 1]]", "[" * 100_000, "[[[0, 0, 1, 1]], [[0, 0, 1, 1]]]", '[{"x0": 1}]', '["file:///etc/passwd"]',
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_BOXES, ids=lambda text: text[:24])
def test_bad_boxes(client: TestClient, text: str) -> None:
    refused(client.post("/features", files={"files": ("a", png(1))}, data={"boxes": text}), 422, "boxes")


def test_boxes_that_are_not_utf8(client: TestClient) -> None:
    body = part(b'form-data; name="files"; filename="a"', png(1))[:-7]
    body += b'\r\n--x\r\nContent-Disposition: form-data; name="boxes"\r\n\r\n\xff\xfe\r\n--x--\r\n'
    refused(client.post("/features", content=body, headers=FORM), 422, "boxes")


@pytest.mark.parametrize("field", ["url", "path", "file", "source"])
def test_no_field_names_a_file(client: TestClient, field: str) -> None:
    answer = client.post("/predict", files={"files": ("a", png(1))}, data={field: "file:///etc/passwd"})
    refused(answer, 422, "field")


def test_boxes_are_for_features_only(client: TestClient) -> None:
    answer = client.post("/predict", files={"files": ("a", png(1))}, data={"boxes": "[[0, 0, 1, 1]]"})
    refused(answer, 422, "field")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "<img src=x>", "a\u202egnp.exe", "\ud800.png", "\x1b[2J"]
)
def test_file_names_are_labels(client: TestClient, name: str) -> None:
    label = name.encode("utf-8", "surrogatepass").replace(b'"', b"%22")
    body = part(b'form-data; name="files"; filename="' + label + b'"', png(1))
    answer = client.post("/predict", content=body, headers=FORM)
    assert answer.status_code == 200
    assert answer.content.isascii()
    assert answer.json()["results"][0]["file"].isprintable()


def test_bad_images_of_a_request_do_not_stop_the_others(client: TestClient) -> None:
    files = [("files", ("good", png(1))), ("files", ("bad", b"x")), ("files", ("large", bomb(9000, 9000)))]
    answer = client.post("/predict", files=files)
    assert answer.status_code == 200
    good, bad, large = answer.json()["results"]
    assert answer.json()["failed"] == 2
    assert "detections" in good
    assert bad["error"]["status"] == 422
    assert large["error"]["status"] == 413
    refused(client.post("/predict", files=files[1:]), 422, "undecodable")


def test_limits_of_a_request(limited: Callable[..., TestClient]) -> None:
    client = limited(max_bytes=20_000, max_megapixels=0.01, max_files=2, max_boxes=2)
    small = encoded(Image.new("RGB", (80, 80)))
    assert client.post("/predict", content=small, headers=PNG).status_code == 200
    refused(client.post("/predict", content=bytes(20_001), headers=PNG), 413, "too_large")
    refused(client.post("/predict", content=iter([bytes(15_000)] * 2), headers=PNG), 413, "too_large")
    refused(client.post("/predict", content=bomb(101, 101), headers=PNG), 413, "too_many_pixels")
    three = [("files", (str(i), small)) for i in range(3)]
    refused(client.post("/predict", files=three), 413, "too_many_files")
    boxes = json.dumps([[0, 0, 1, 1]] * 3)
    answer = client.post("/features", files={"files": ("a", small)}, data={"boxes": boxes})
    refused(answer, 413, "too_many_boxes")


def test_a_full_queue_is_refused(detector: Detector) -> None:
    two = [("files", (str(i), png(i))) for i in range(2)]
    with running(create_app(detector, ServeOptions(queue=2, max_files=2))) as url:

        def upload() -> Iterator[bytes]:
            yield png(1)[:50]
            # While this body is on its way, its request holds one of the two places.
            while "sppnet_images_in_work 1.0" not in httpx.get(f"{url}/metrics").text:
                pass
            answer = httpx.post(f"{url}/predict", files=two, timeout=60)
            refused(answer, 429, "queue_full")
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            yield png(1)[50:]

        assert httpx.post(f"{url}/predict", content=upload(), headers=PNG, timeout=60).status_code == 200
        assert httpx.post(f"{url}/predict", files=two, timeout=60).status_code == 200


def test_a_body_that_stops_is_refused(detector: Detector) -> None:
    with running(create_app(detector, ServeOptions(read_seconds=0.2))) as url:
        answered = threading.Event()

        def upload() -> Iterator[bytes]:
            yield png(1)[:50]
            answered.wait(60)

        with ThreadPoolExecutor(1) as pool:
            request = pool.submit(httpx.post, f"{url}/predict", content=upload(), headers=PNG, timeout=60)
            while 'path="/predict",status="408"' not in httpx.get(f"{url}/metrics").text:
                pass
            answered.set()
            refused(request.result(), 408, "slow_body")


@pytest.mark.parametrize("headers", [{}, {"expect": "100-continue"}])
def test_a_large_body_is_refused_and_the_client_gets_the_answer(url: str, headers: dict[str, str]) -> None:
    answer = httpx.post(f"{url}/predict", content=bytes(21 * 2**20), headers={**PNG, **headers}, timeout=60)
    refused(answer, 413, "too_large")


def test_options_out_of_range() -> None:
    for wrong in ({"queue": 0}, {"max_bytes": float("nan")}, {"max_files": 9, "queue": 8}, {"batch_ms": -1}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            ServeOptions(**wrong).check()  # type: ignore[arg-type]


@fast
@given(st.binary(max_size=300), st.sampled_from(["image/png", "multipart/form-data; boundary=x", "a/b", "é"]))
def test_any_body_is_answered(client: TestClient, body: bytes, kind: str) -> None:
    answer = client.post("/features", content=body, headers={"content-type": kind.encode("latin-1")})
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["message"]


@fast
@given(st.integers(0, 5000), st.binary(min_size=1, max_size=8))
def test_any_damage_to_an_image_is_answered(client: TestClient, place: int, damage: bytes) -> None:
    whole = encoded(Image.new("RGB", (48, 40), "red"), "JPEG")
    start = place % len(whole)
    body = whole[:start] + damage + whole[start + len(damage) :]
    assert client.post("/maps?count=1", content=body, headers=PNG).status_code in (200, 413, 422)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5),
)


@fast
@given(json_values)
def test_any_boxes_are_answered(client: TestClient, value: object) -> None:
    answer = client.post("/features", files={"files": ("a", png(1))}, data={"boxes": json.dumps(value)})
    assert answer.status_code in (200, 413, 422)


@fast
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_any_part_header_is_answered(client: TestClient, name: bytes, filename: bytes) -> None:
    body = part(b'form-data; name="' + name + b'"; filename="' + filename + b'"', png(1))
    assert client.post("/maps?count=1", content=body, headers=FORM).status_code in (200, 413, 422)


@pytest.mark.parametrize("path", ["/predict", "/features"])
@pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError, RuntimeError])
def test_lack_of_memory_is_answered_with_503(
    client: TestClient, path: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(*arguments: object, **options: object) -> None:
        raise kind("out of memory: DefaultCPUAllocator")

    monkeypatch.setattr("sppnet.features.pool.region_pyramid_pool", allocate)
    answer = client.post(path, content=png(0), headers=PNG)
    assert answer.status_code == 503
    assert answer.json()["error"]["reason"] == "memory"
    assert answer.headers["Retry-After"] == "5"
