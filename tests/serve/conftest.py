from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from running_server import running
from serve_images import OPTIONS, detection_set, png

from sppnet.classify import Classifier
from sppnet.detect import Detector
from sppnet.serve import ServeOptions, create_app


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    root = detection_set(tmp_path_factory.mktemp("serve"), 6)
    return Detector("builtin", device="cpu", options=OPTIONS).fit(root, quiet=True)


@pytest.fixture(scope="session")
def detector_run(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detector.save(tmp_path_factory.mktemp("serve") / "run")


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    root = tmp_path_factory.mktemp("classes")
    for name in ("bright", "dark"):
        (root / name).mkdir()
        for i in range(3):
            (root / name / f"{i}.png").write_bytes(png(i, 200 if name == "bright" else 20))
    return Classifier("builtin", device="cpu", levels=(2, 1), scales=(64,)).fit(root, quiet=True)


@pytest.fixture(scope="session")
def client(detector: Detector) -> Iterator[TestClient]:
    """A client of a server with the default limits; a failure of the server is answered with 500."""
    with TestClient(create_app(detector), raise_server_exceptions=False) as found:
        yield found


@pytest.fixture
def limited(detector: Detector) -> Iterator[Callable[..., TestClient]]:
    """Start a server with some limits."""
    started: list[TestClient] = []

    def start(**limits: float) -> TestClient:
        options = ServeOptions(**limits)  # type: ignore[arg-type]
        started.append(TestClient(create_app(detector, options), raise_server_exceptions=False))
        return started[-1].__enter__()

    yield start
    for each in started:
        each.__exit__(None, None, None)


@pytest.fixture(scope="session")
def url(detector: Detector) -> Iterator[str]:
    """The address of a real server on a thread."""
    with running(create_app(detector)) as found:
        yield found
