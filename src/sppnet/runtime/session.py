"""An exported model that answers for images."""

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
_ERRORS = 3  # onnxruntime's severity from which it logs


class Runtime:
    """Run a model that ``sppnet export`` wrote, without torch.

    Args:
        path: the ``.onnx`` file.
        providers: onnxruntime's execution providers, in order; the CPU's when None.
        threads: of an operator; as many as the machine has cores when None.

    Attributes:
        kind: ``detector``, ``classifier``, ``features`` or ``box-features``.
        names: the classes.
        metadata: everything that the file says about itself.

    Raises:
        UserError: no such file, or one that sppnet did not write.
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
        file = Path(path)
        expected = "a model that sppnet exported"
        if not file.is_file():
            raise UserError(file, expected, "a folder" if file.is_dir() else "no such file")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                str(file), options, providers=list(providers or ("CPUExecutionProvider",))
            )
        except Exception as error:  # onnxruntime's errors have no common type
            raise UserError(file, expected, f"a file that onnxruntime refuses ({error})") from error
        found = cast("dict[str, str]", self._session.get_modelmeta().custom_metadata_map)
        if found.get("sppnet.format") != _FORMAT:
            got = found.get("sppnet.format", "none")
            raise UserError(file, f"{expected}, of format {_FORMAT}", f"format {got}", "Export again.")
        self.metadata = found
        self.kind = found["kind"]
        self.names: tuple[str, ...] = tuple(json.loads(found["names"]))
        self._takes_boxes = any(entry.name == "boxes" for entry in self._session.get_inputs())

    def predict(
        self,
        source: ImageSource | Sequence[ImageSource],
        *,
        threshold: float | None = None,
        boxes: ArrayLike | None = None,
    ) -> DetectionResult | ClassificationResult | list[DetectionResult | ClassificationResult]:
        """Detect objects in an image or classify it, or each of a list.

        Args:
            source: a path, the bytes of a file, a PIL image, a uint8 array (RGB), or a list of them.
            threshold: leave out what is less probable. When None, a detector takes its own and a classifier
                gives five classes.
            boxes: ``[N, 4]``, the proposals of the image, for a detector that was fitted on a file of them.

        Returns:
            A result, with the fields of the estimator's, or a list of them.

        Raises:
            UserError: a model of features, an image that cannot be read, or boxes that do not fit.
        """
        if isinstance(source, (list, tuple)):
            if boxes is not None:
                raise UserError("boxes", "one image", f"a list of {len(source)}")
            return [self._predict(one, threshold, None) for one in cast("Sequence[ImageSource]", source)]
        return self._predict(cast("ImageSource", source), threshold, boxes)

    def predict_iter(
        self, sources: Iterable[ImageSource], *, threshold: float | None = None
    ) -> Iterator[DetectionResult | ClassificationResult]:
        """`predict` for anything iterable, one image at a time."""
        return (self._predict(source, threshold, None) for source in sources)

    def features(self, source: ImageSource, boxes: ArrayLike | None = None) -> NDArray[np.float32]:
        """Feature vectors of an image.

        Args:
            source: as `predict` takes it.
            boxes: ``[N, 4]``, ``(x0, y0, x1, y1)`` in pixels, for a model of the kind ``box-features``.

        Returns:
            float32 ``[S, D]``, one for each scale, of the kind ``features``; ``[N, D]`` of ``box-features``;
            ``[D]`` of norm 1 of a classifier.

        Raises:
            UserError: a detector, an image that cannot be read, or boxes that do not fit.
        """
        if self.kind == "detector":
            raise UserError("features", "a model of features or a classifier", "a detector")
        return self._run(["features"], read_pixels(source), boxes)[0]

    def _predict(
        self, source: ImageSource, threshold: float | None, boxes: ArrayLike | None
    ) -> DetectionResult | ClassificationResult:
        pixels = read_pixels(source)
        if self.kind == "classifier":
            (scores,) = self._run(["scores"], pixels, boxes)
            return ClassificationResult.top(scores, self.names, threshold)
        if self.kind != "detector":
            raise UserError("predict", "a detector or a classifier", f"one of {self.kind}", "Use features.")
        placed, scores, labels = self._run(["boxes", "scores", "labels"], pixels, boxes)
        likely = scores >= (float(self.metadata["threshold"]) if threshold is None else threshold)
        height, width = pixels.shape[:2]
        return DetectionResult(placed[likely], scores[likely], labels[likely], self.names, height, width)

    def _run(self, outputs: list[str], pixels: Pixels, boxes: ArrayLike | None) -> list[NDArray[Any]]:
        given: dict[str, NDArray[Any]] = {"image": pixels}
        if self._takes_boxes != (boxes is not None):
            expected = "boxes [N, 4] beside the image" if self._takes_boxes else "no boxes for this model"
            raise UserError("boxes", expected, "none" if boxes is None else "some")
        if boxes is not None:
            given["boxes"] = _checked_boxes(boxes)
        return cast("list[NDArray[Any]]", self._session.run(outputs, given))


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
