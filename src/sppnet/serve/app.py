"""The HTTP interface."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException

from sppnet.estimators import Estimator
from sppnet.serve.bodies import read_boxes
from sppnet.serve.metrics import Measured
from sppnet.serve.model import Served, encoded
from sppnet.serve.options import ServeOptions
from sppnet.serve.page import page, page_headers
from sppnet.serve.problems import Problem, SafeJSON, documented
from sppnet.serve.work import Workshop

_log = logging.getLogger("sppnet.serve")

_FILES: dict[str, Any] = {
    "type": "object",
    "required": ["files"],
    "properties": {
        "files": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}},
    },
}
_BOXES = {"type": "string", "description": "JSON: a list of [x0, y0, x1, y1] for every image."}
_RAW = {"schema": {"type": "string", "format": "binary"}}

_ANSWER: dict[str, Any] = {
    "description": "One result per image, in the order of the request.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["results", "failed", "milliseconds"],
                "properties": {
                    "results": {"type": "array", "items": {"type": "object"}},
                    "failed": {"type": "integer"},
                    "milliseconds": {"type": "number"},
                },
            }
        }
    },
}
_REFUSALS = {200: _ANSWER, **documented(408, 413, 415, 422, 429, 503)}


def _body(*, boxes: bool = False) -> dict[str, Any]:
    form = _FILES if not boxes else {**_FILES, "properties": {**_FILES["properties"], "boxes": _BOXES}}
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    content |= dict.fromkeys(("image/jpeg", "image/png", "application/octet-stream"), _RAW)
    return {"requestBody": {"required": True, "content": content}}


router = APIRouter()


def _workshop(request: Request) -> Workshop:
    return request.app.state.workshop


@router.post("/predict", responses=_REFUSALS, openapi_extra=_body(), summary="Predict on images")
async def predict(
    request: Request,
    threshold: Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)] = None,
) -> Response:
    """Predict detections or classes of every image; ``threshold`` is the minimum probability."""
    workshop = _workshop(request)
    async with workshop.admitted(request) as form:
        _no_boxes(form.boxes)
        work = functools.partial(workshop.served.predict, threshold=threshold)
        return await workshop.answer(form.files, [work] * len(form.files))


@router.post("/features", responses=_REFUSALS, openapi_extra=_body(boxes=True), summary="Pool features")
async def features(request: Request, encoding: Literal["json", "base64"] = "json") -> Response:
    """Compute one feature vector per image, or one per box if the form has the field ``boxes``."""
    workshop = _workshop(request)
    async with workshop.admitted(request) as form:
        boxes: list[Any] = [None] * len(form.files)
        if form.boxes is not None:
            boxes = list(read_boxes(form.boxes, len(form.files), workshop.options))

        def work(pixels: Any, of_image: Any) -> dict[str, Any]:
            rows = workshop.served.features(pixels, of_image)
            values = rows.tolist() if encoding == "json" else encoded(rows)
            return {"shape": list(rows.shape), "features": values}

        works = [functools.partial(work, of_image=of_image) for of_image in boxes]
        return await workshop.answer(form.files, works)


@router.post("/maps", responses=_REFUSALS, openapi_extra=_body(), summary="Show feature maps")
async def maps(request: Request, count: Annotated[int, Query(ge=1, le=32)] = 6) -> Response:
    """Return the ``count`` channels of the last layer with the highest variance, as PNG data URLs."""
    workshop = _workshop(request)
    async with workshop.admitted(request) as form:
        _no_boxes(form.boxes)

        def work(pixels: Any) -> dict[str, Any]:
            return {"maps": workshop.served.strongest_maps(pixels, count)}

        return await workshop.answer(form.files, [work] * len(form.files))


@router.get("/model", summary="Describe the run and the limits")
async def model(request: Request) -> Response:
    """Return kind, class names and feature length of the run, and the limits of the server."""
    workshop = _workshop(request)
    options = workshop.options
    limits = {
        name: getattr(options, name)
        for name in ("max_bytes", "max_megapixels", "max_aspect", "max_files", "max_boxes", "queue")
    }
    return SafeJSON({**workshop.served.describe(), "limits": limits})


@router.get("/health", summary="Whether the process answers")
async def health() -> Response:
    """Return 200 while the process answers requests."""
    return SafeJSON({"status": "ok"})


@router.get("/ready", responses=documented(503), summary="Whether images can be computed")
async def ready(request: Request) -> Response:
    """Return 200 if the run is loaded and its worker accepts images, otherwise 503."""
    if not _workshop(request).batcher.alive:
        return Problem(503, "not_ready", "expected a running worker, got one that stopped").response()
    return SafeJSON({"status": "ready"})


@router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Return counters in the text format of Prometheus."""
    return Response(_workshop(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/", include_in_schema=False)
async def index() -> Response:
    """Return the page."""
    return Response(page(), media_type="text/html; charset=utf-8", headers=page_headers())


def create_app(estimator: Estimator[Any], options: ServeOptions | None = None) -> FastAPI:
    """Create the ASGI application of a fitted estimator.

    Args:
        estimator: a fitted estimator, such as from `sppnet.load`.
        options: limits and batching; ``ServeOptions()`` by default.

    Returns:
        An application for any ASGI server; its worker thread starts and ends with its lifespan.

    Raises:
        UserError: an option is invalid, or the run cannot predict on images in memory.

    Examples:
        >>> import sppnet
        >>> from sppnet.serve import ServeOptions, create_app
        >>> app = create_app(sppnet.load("run"), ServeOptions(max_files=4))  # doctest: +SKIP
    """
    chosen = options or ServeOptions()
    chosen.check()
    served = Served(estimator)
    served.warm_up()
    workshop = Workshop(served, chosen)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        workshop.start()
        try:
            yield
        finally:
            workshop.close()

    # The interactive documentation of FastAPI is off, because it loads scripts from a CDN.
    app = FastAPI(
        title="sppnet",
        version=version("sppnet"),
        summary="Predictions, features and feature maps of images.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.workshop = workshop
    app.include_router(router)
    _handle_errors(app)
    paths = frozenset(str(getattr(route, "path", "")) for route in router.routes)
    security = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
    app.add_middleware(Measured, metrics=workshop.metrics, paths=paths, headers=security)
    return app


def _handle_errors(app: FastAPI) -> None:
    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        # The values are not included, because they may be NaN or invalid text.
        said = "; ".join(f"{'.'.join(map(str, e['loc'][:2]))}: {e['msg']}" for e in error.errors())
        return Problem(422, "parameter", said).response()

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = Problem(error.status_code, "http", str(error.detail)).response()
        response.headers.update(error.headers or {})
        return response

    async def failed(request: Request, error: Exception) -> Response:
        _log.error("A request failed", exc_info=error)
        return Problem(500, "internal", "The server failed; its log has the reason.").response()

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(Exception, failed)


def _no_boxes(boxes: bytes | None) -> None:
    if boxes is not None:
        raise Problem(422, "field", "expected no field boxes, which is for /features")
