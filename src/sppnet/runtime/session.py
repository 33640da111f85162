"""Run an exported model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sppnet.errors import MissingExtraError, UserError
from sppnet.runtime.images import ImageSource, Pixels, read_pixels
from sppnet.runtime.results import ClassificationResult, DetectionResult

_FORMAT = "1"
_THREADS = 1024
_ERRORS = 3  # lowest severity that onnxruntime logs


class Runtime:
    """Run a model that ``sppnet export`` wrote, without torch.

    Args:
        path: the ``.onnx`` file.
        providers: execution providers of onnxruntime, in order; the CPU provider when None.
        threads: threads per operator; the number of cores when None.

    Attributes:
        kind: ``detector``, ``classifier``, ``features`` or ``box-features``.
        names: the classes.
        metadata: the metadata of the file.

    Raises:
        UserError: the file is missing or not an exported model.
        MissingExtraError: onnxruntime is not installed.

    Examples:
        >>> Runtime("nothing.onnx")
        Traceback (most recent call last):
        sppnet.errors.UserError: nothing.onnx: expected a model that sppnet exported, got no such file
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "export", "sppnet.runtime") from error
        _check_threads(threads)
        file = Path(path)
        expected = "a model that sppnet exported"
        if not file.is_file():
            raise UserError(file, expected, "a folder" if file.is_dir() else "no such file")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS
        # Thousands of small operators follow each other. Threads that spin between them, and fixed shares of
        # work, double the time where other programs use the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.dynamic_block_base", "4")
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                str(file), options, providers=list(providers or ("CPUExecutionProvider",))
            )
        except Exception as error:  # onnxruntime's errors have no common type
            raise UserError(file, expected, f"a file that onnxruntime cannot load ({error})") from error
        found = cast("dict[str, str]", self._session.get_modelmeta().custom_metadata_map)
        if found.get("sppnet.format") != _FORMAT:
            got = found.get("sppnet.format", "none")
            raise UserError(file, f"{expected}, of format {_FORMAT}", f"format {got}", "Export again.")
        self.metadata = found
        self.kind = found["kind"]
        self.names: tuple[str, ...] = tuple(json.loads(found["names"]))
        inputs = {entry.name for entry in self._session.get_inputs()}
        self._boxes = next((name for name in ("boxes", "proposals") if name in inputs), None)

    def predict(
        self,
        source: ImageSource | Sequence[ImageSource],
        *,
        threshold: float | None = None,
        boxes: ArrayLike | None = None,
    ) -> DetectionResult | ClassificationResult | list[DetectionResult | ClassificationResult]:
        """Detect objects in an image or classify it; or do so for a list of images.

        Args:
            source: a path, the bytes of a file, a PIL image, a uint8 array (RGB), or a list of them.
            threshold: smallest probability of a prediction. When None, a detector uses its default and a
                classifier returns five classes.
            boxes: proposals ``[N, 4]`` of the image, for a detector that was fitted with a proposal file.

        Returns:
            A result, or a list of results.

        Raises:
            UserError: the model returns features, an image cannot be read, or the boxes are invalid.
        """
        if isinstance(source, (list, tuple)):
            if boxes is not None:
                raise UserError("boxes", "one image", f"a list of {len(source)}")
            return [self._predict(one, threshold, None) for one in cast("Sequence[ImageSource]", source)]
        return self._predict(cast("ImageSource", source), threshold, boxes)

    def predict_iter(
        self, sources: Iterable[ImageSource], *, threshold: float | None = None
    ) -> Iterator[DetectionResult | ClassificationResult]:
        """Predict on the images of an iterable lazily, one by one."""
        return (self._predict(source, threshold, None) for source in sources)

    def features(self, source: ImageSource, boxes: ArrayLike | None = None) -> NDArray[np.float32]:
        """Return the features of an image.

        Args:
            source: see `predict`.
            boxes: ``[N, 4]``, ``(x0, y0, x1, y1)`` in pixels, for a model of the kind ``box-features``.

        Returns:
            float32 ``[S, D]``, one vector per scale, for the kind ``features``; ``[N, D]`` for
            ``box-features``; ``[D]`` of norm 1 for a classifier.

        Raises:
            UserError: the model is a detector, the image cannot be read, or the boxes are invalid.
        """
        if self.kind == "detector":
            raise UserError("features", "a model of features or a classifier", "a detector")
        return self._run(["features"], read_pixels(source), boxes)[0]

    def _predict(
        self, source: ImageSource, threshold: float | None, boxes: ArrayLike | None
    ) -> DetectionResult | ClassificationResult:
        _check_threshold(threshold)
        pixels = read_pixels(source)
        if self.kind == "classifier":
            (scores,) = self._run(["scores"], pixels, boxes)
            return ClassificationResult.top(scores, self.names, threshold, source)
        if self.kind != "detector":
            raise UserError(
                "predict", "a detector or a classifier", f"a model of {self.kind}", "Call features instead."
            )
        limit = float(self.metadata["threshold"]) if threshold is None else threshold
        # As in `Detector.predict`, a threshold of 0 gives the ranked list that metrics are computed of.
        prefix = "all_" if limit <= 0 else ""
        found, scores, labels = self._run(
            [f"{prefix}{name}" for name in ("boxes", "scores", "labels")], pixels, boxes
        )
        shown = scores >= limit
        height, width = pixels.shape[:2]
        return DetectionResult(found[shown], scores[shown], labels[shown], self.names, height, width, source)

    def _run(self, outputs: list[str], pixels: Pixels, boxes: ArrayLike | None) -> list[NDArray[Any]]:
        given: dict[str, NDArray[Any]] = {"image": pixels}
        if (self._boxes is None) != (boxes is None):
            expected = "boxes [N, 4] with the image" if self._boxes else "no boxes for this model"
            origin = self.metadata.get("proposals")
            hint = f"The detector was fitted on proposals from {origin}; pass such." if origin else ""
            raise UserError("boxes", expected, "none" if boxes is None else "boxes", hint)
        if boxes is not None and self._boxes is not None:
            given[self._boxes] = _checked_boxes(boxes)
        return cast("list[NDArray[Any]]", self._session.run(outputs, given))


def _check_threads(threads: object) -> None:
    if threads is not None and not (isinstance(threads, int) and 1 <= threads <= _THREADS):
        raise UserError("threads", f"a whole number, 1 to {_THREADS}", repr(threads))


def _check_threshold(threshold: object) -> None:
    number = isinstance(threshold, (int, float, np.integer, np.floating))
    if threshold is not None and not (number and np.isfinite(cast("float", threshold))):
        raise UserError("threshold", "a finite number", repr(threshold))


def _checked_boxes(boxes: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(boxes, np.float32)
    array = array if array.size else array.reshape(0, 4)
    expected = "finite numbers [N, 4] with x0 <= x1 and y0 <= y1"
    if array.ndim != 2 or array.shape[1] != 4:
        raise UserError("boxes", expected, f"shape {list(array.shape)}")
    bad = ~np.isfinite(array).all(1) | (array[:, 2:] < array[:, :2]).any(1)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise UserError(f"boxes[{first}]", expected, array[first].tolist())
    return array
