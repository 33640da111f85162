from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sppnet.data.sources import DownloadLimits, local_sources
from sppnet.errors import UserError
from sppnet.inputs.sources import is_url

CONTENT = bytes(range(256)) * 20
ANSWERS = {
    "/a.jpg": (200, {"Content-Length": len(CONTENT)}, CONTENT),
    "/plain": (200, {"Content-Type": "image/png"}, CONTENT),
    "/../%2e%2e/b c$.jpg": (200, {}, CONTENT),
    "/short.jpg": (200, {"Content-Length": len(CONTENT) + 9}, CONTENT),
    "/liar.jpg": (200, {}, CONTENT * 100),
    "/large.jpg": (200, {"Content-Length": 10**9}, b""),
    "/moved.jpg": (302, {"Location": "/a.jpg"}, b""),
    "/away.jpg": (302, {"Location": "file:///etc/passwd"}, b""),
    "/elsewhere.jpg": (302, {"Location": "ftp://127.0.0.1/a.jpg"}, b""),
    "/loop.jpg": (302, {"Location": "/loop.jpg"}, b""),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        status, headers, body = ANSWERS.get(self.path, (404, {}, b"no"))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=served.serve_forever, args=(0.01,))
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.fixture
def site(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    "source", ["http://a/b.jpg", "HTTPS://a", "ftp://a/b", "file:///etc/passwd", "s3://b/c"]
)
def test_urls_are_refused_unless_downloads_are_allowed(source: str, tmp_path: Path) -> None:
    assert is_url(source)
    with pytest.raises(UserError, match="--allow-download"):
        local_sources(["a.jpg", source], tmp_path)


@pytest.mark.parametrize(
    "source", ["a.jpg", "C:\\a.jpg", "C:/a.jpg", "a:b.jpg", "//host/a.jpg", "camera:0", "://"]
)
def test_paths_are_not_urls(source: str, tmp_path: Path) -> None:
    assert local_sources([source], tmp_path) == [source]


@pytest.mark.parametrize("source", ["ftp://127.0.0.1/a.jpg", "file:///etc/passwd", "data://x"])
def test_other_schemes_are_never_fetched(source: str, server, site: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="http or https"):
        local_sources([f"{site}/a.jpg", source], tmp_path, allow_download=True)
    assert server.asked == []


def test_downloads_replace_urls(server, site: str, tmp_path: Path) -> None:
    folder = tmp_path / "downloads"
    sources = [f"{site}/a.jpg", "b.jpg", f"{site}/plain", f"{site}/../%2e%2e/b c$.jpg", f"{site}/moved.jpg"]
    sources[3] = sources[3].replace(" ", "%20")
    ANSWERS["/../%2e%2e/b%20c$.jpg"] = ANSWERS["/../%2e%2e/b c$.jpg"]
    local = local_sources(sources, folder, allow_download=True)
    assert local[1] == "b.jpg"
    fetched = [Path(local[n]) for n in (0, 2, 3, 4)]
    assert [path.parent for path in fetched] == [folder] * 4
    assert [path.suffix for path in fetched] == [".jpg", ".png", ".jpg", ".jpg"]
    assert len(set(fetched)) == 4
    assert {path.read_bytes() for path in fetched} == {CONTENT}
    asked = len(server.asked)
    assert local_sources(sources, folder, allow_download=True) == local
    assert len(server.asked) == asked


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/none.jpg", "Not Found"),
        ("/short.jpg", "before the connection ended"),
        ("/liar.jpg", "at most 0.1 MB, got a larger file"),
        ("/large.jpg", "at most 0.1 MB, got 1000.0 MB"),
        ("/away.jpg", "not allowed"),
        ("/elsewhere.jpg", "http or https"),
        ("/loop.jpg", "redirect"),
    ],
)
def test_bad_responses_leave_no_file(site: str, path: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        local_sources([site + path], tmp_path, allow_download=True, limits=DownloadLimits(megabytes=0.1))
    assert list(tmp_path.iterdir()) == []


def test_a_slow_download_ends(site: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at most 0 seconds"):
        local_sources([f"{site}/a.jpg"], tmp_path, allow_download=True, limits=DownloadLimits(seconds=0))


def test_an_unreachable_server_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(UserError, match="can be downloaded"):
        local_sources(["http://127.0.0.1:1/a.jpg"], tmp_path, allow_download=True)
    with pytest.raises(UserError, match="can be downloaded"):
        local_sources(["http://127.0.0.1:port/a.jpg"], tmp_path, allow_download=True)


@given(st.text(max_size=40))
@example("[::1/x.jpg")
@example("[v1.a]/x")
@example("a:99999/x.jpg")
@example("\x00")
@settings(deadline=None, max_examples=200)
def test_any_text_after_the_scheme_is_downloaded_or_refused(rest: str) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        patch("socket.create_connection", side_effect=OSError("no network")),
        suppress(UserError),
    ):
        local_sources([f"http://{rest}"], Path(folder), allow_download=True)
