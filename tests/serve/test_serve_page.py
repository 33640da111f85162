"""The page in a real headless Chromium."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_server import running
from serve_images import pixels, png

from sppnet.classify import Classifier
from sppnet.serve import create_app

sync_api = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="the page's tests need chromium (apt install chromium)"
)

DROP = """([stage, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
  for (const kind of ["dragover", "drop"])
    document.querySelector(stage).dispatchEvent(
      new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
}"""
COLOURED = """() => {
  const canvas = document.querySelector("#canvas");
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return [...data].reduce((sum, value, i) => (sum * 31 + value + i) % 1000003, 7);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def page(browser, url: str) -> Iterator:
    """The page of the detector; requests to other hosts and script errors fail the test."""
    with Opened(browser, url) as found:
        yield found


class Opened:
    """A page at phone width whose complaints fail the test."""

    def __init__(self, browser, url: str) -> None:
        self.context = browser.new_context(viewport={"width": 375, "height": 800}, accept_downloads=True)
        self.context.grant_permissions(["camera"], origin=url)
        self.page, self.url = self.context.new_page(), url
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._check)
        self.page.on("console", self._listen)

    def _check(self, request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.complaints.append(request.url)

    def _listen(self, message) -> None:
        if "Content Security Policy" in message.text:
            self.complaints.append(message.text)

    def __enter__(self):
        self.page.goto(self.url)
        sync_api.expect(self.page.locator("#model")).to_contain_text("class")
        return self.page

    def __exit__(self, kind, *_: object) -> None:
        self.context.close()
        if kind is None:
            assert self.complaints == []


def drop(page, data: bytes) -> None:
    page.evaluate(DROP, ["#stage", base64.b64encode(data).decode()])


def settled(page) -> None:
    sync_api.expect(page.locator("#status")).to_contain_text("ms in all", timeout=60_000)


def slide(page, value: float) -> None:
    page.locator("#threshold").fill(str(value))


def boxes(page) -> int:
    return page.locator("#list li").count()


def test_an_image_is_dropped_filtered_and_downloaded(page, client, tmp_path: Path) -> None:
    # An image with boxes of different scores, as the server itself tells.
    scores: list[float] = []
    for seed in range(200, 260):
        answer = client.post(
            "/predict?threshold=0.01", content=png(seed, 60), headers={"content-type": "image/png"}
        )
        scores = [item["score"] for item in answer.json()["results"][0]["detections"]]
        if len(scores) > 1 and scores[0] - scores[-1] > 0.05:
            break
    assert len(scores) > 1, "no image with several boxes"
    drop(page, png(seed, 60))
    settled(page)
    slide(page, 0.01)
    sync_api.expect(page.locator("#list li")).to_have_count(len(scores))
    drawn = page.evaluate(COLOURED)
    threshold = round(scores[-1] + 0.02, 2)
    kept = sum(score >= threshold for score in scores)
    assert kept < len(scores)
    slide(page, threshold)
    sync_api.expect(page.locator("#list li")).to_have_count(kept)
    assert page.evaluate(COLOURED) != drawn
    assert f"{kept} object" in page.locator("#count").inner_text()
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(tmp_path / "down.json")
    found = json.loads((tmp_path / "down.json").read_text())
    assert [item["score"] for item in found["detections"]] == scores[:kept]
    height, width = pixels(seed, 60)[0].shape[:2]
    assert (found["height"], found["width"]) == (height, width)
    sync_api.expect(page.locator("#maps img")).to_have_count(6)
    sizes = page.evaluate("[...document.querySelectorAll('#maps img')].map((image) => image.naturalWidth)")
    assert min(sizes) > 0


def test_a_bad_file_is_reported_and_the_next_image_works(page) -> None:
    drop(page, b"no image")
    sync_api.expect(page.locator("#status")).to_contain_text("expected an image", timeout=60_000)
    assert page.locator("#download").is_disabled()
    page.locator("#file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": png(1)})
    settled(page)


def test_the_camera_is_used_and_released(page) -> None:
    page.locator("#camera").click()
    sync_api.expect(page.locator("#shoot")).to_be_visible(timeout=60_000)
    page.locator("#shoot").click()
    settled(page)
    sync_api.expect(page.locator("#video")).to_be_hidden()
    assert page.evaluate("document.querySelector('#video').srcObject.active") is False


def test_the_page_fits_a_phone_and_is_used_by_keyboard(page) -> None:
    drop(page, png(1))
    settled(page)
    for width in (320, 375, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#file").focus()
    focused = []
    for _ in range(5):
        focused.append(page.evaluate("document.activeElement.id"))
        page.keyboard.press("Tab")
    assert focused == ["file", "camera", "download", "threshold", "list"]
    controls = "[...document.querySelectorAll('button, input')]"
    assert page.evaluate(f"{controls}.filter((e) => !(e.textContent || e.labels?.length)).length") == 0


def test_classes_are_shown_as_bars(browser, classifier: Classifier) -> None:
    with running(create_app(classifier)) as url, Opened(browser, url) as page:
        drop(page, png(1, 200))
        settled(page)
        sync_api.expect(page.locator("#list progress")).to_have_count(2)
        assert page.locator("#list .name").first.inner_text() == "bright"
        assert page.locator("#filter").is_hidden()
        assert re.search("Most probable: bright", page.locator("#count").inner_text())
