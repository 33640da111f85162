"""The one protocol of everything that fits."""

from __future__ import annotations

import dataclasses
import functools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Self,
    TypeVar,
    cast,
)

import torch
from torch import Tensor

from sppnet.config import as_config, from_config
from sppnet.data import FittedOn, ImageSource, stable_source
from sppnet.errors import UserError
from sppnet.estimators.params import changed_params, nested_params
from sppnet.estimators.results import FailedPrediction, PredictionResult, PredictionsError
from sppnet.estimators.state import SavedState, damaged
from sppnet.runs import load_run, save_run

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


Result = TypeVar("Result", bound=PredictionResult)
Fitted = TypeVar("Fitted", bound="Estimator[Any]")
Arguments = ParamSpec("Arguments")


class Estimator(ABC, Generic[Result]):
    """Something that is fitted to labelled images and then predicts.

    As in scikit-learn, the constructor stores its arguments and nothing else, `fit` learns what ends in ``_``
    and returns self, and `get_params`, `set_params` and `clone` work. A subclass is a dataclass whose fields
    are its parameters (``@dataclass(init=False)`` with a constructor that calls `_store`), decorates its
    `fit` with `fresh_fit`, and gives `_predict_one`, `evaluate`, `_state` and `_restore`.

    Attributes:
        kind: what ``model.json`` calls a run of the class.
        supports_boxes: whether results have boxes; then ``category_ids_`` has the data set's class ids.
        device: where to compute.
        names_: class names.
        summary_: what fitting says about itself: seconds, counts, memory.
        fitted_on_: digests of the images that were fitted on and held out; None where this is not known.

    Examples:
        >>> from sppnet import Classifier
        >>> Classifier(C=1.0).get_params()["options__C"]
        1.0
        >>> Classifier().set_params(C=2.0, seed=3).clone().options.C
        2.0
    """

    kind: ClassVar[str]
    supports_boxes: ClassVar[bool] = False
    device: str
    names_: tuple[str, ...]
    summary_: dict[str, Any]
    fitted_on_: FittedOn | None = None

    def _store(self, values: Mapping[str, object], options: Mapping[str, object]) -> None:
        """The constructor's work: keep the parameters; single options replace those of the dataclasses."""
        for name, value in changed_params(values, options, type(self).__name__).items():
            setattr(self, name, value)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name.

        Args:
            deep: also every option in them, as ``options__NAME``.
        """
        names = [f.name for f in dataclasses.fields(cast("DataclassInstance", self)) if f.init]
        plain = {name: getattr(self, name) for name in names}
        return nested_params(plain) if deep else plain

    def set_params(self, **params: Any) -> Self:
        """Change arguments, or options in them, by name: ``seed``, ``options__C`` or ``C``.

        Raises:
            UserError: an unknown name; nothing is changed then.
        """
        plain = self.get_params(deep=False)
        for name, value in changed_params(plain, params, type(self).__name__).items():
            setattr(self, name, value)
        return self

    def clone(self) -> Self:
        """An unfitted estimator with the same parameters."""
        return type(self)(**self.get_params(deep=False))

    def check_params(self) -> None:
        """Check types and ranges of all parameters.

        Raises:
            UserError: the first one at fault.
        """
        mine = cast("DataclassInstance", self)
        from_config(cast("Any", type(self)), as_config(mine), type(self).__name__)
        for value in self.get_params(deep=False).values():
            check = getattr(value, "check", None)
            if callable(check):
                check()

    def predict(
        self,
        source: ImageSource | Sequence[ImageSource] | Iterator[ImageSource],
        *,
        threshold: float | None = None,
    ) -> Result | list[Result]:
        """Predict on an image, or on each of a list.

        Args:
            source: a path, bytes, a binary file, a PIL image, an array or a tensor (see
                `sppnet.data.read_pixels`), or a list, tuple or iterator of them.
            threshold: leave out what is less probable; the class's own choice when None.

        Returns:
            A result, or for a list a list of results in its order.

        Raises:
            UserError: not fitted, or an image that cannot be read. In a list the other images are predicted
                all the same: the error is a `PredictionsError`, whose ``results`` has them.
        """
        self._check_fitted()
        if not _is_several(source):
            return self._checked(cast("ImageSource", source), threshold)
        several = cast("Iterable[ImageSource]", source)
        results = list(self.predict_iter(several, threshold=threshold))
        if any(isinstance(result, FailedPrediction) for result in results):
            raise PredictionsError(results)
        return cast("list[Result]", results)

    def predict_one(self, source: ImageSource, *, threshold: float | None = None) -> Result:
        """Predict on one image.

        Args:
            source: the image, as for `predict`.
            threshold: as for `predict`.

        Raises:
            UserError: not fitted, or an image that cannot be read.
        """
        self._check_fitted()
        return self._checked(source, threshold)

    def predict_iter(
        self, sources: Iterable[ImageSource], *, threshold: float | None = None
    ) -> Iterator[Result | FailedPrediction]:
        """Predict on images one by one, each when it is asked for, so that memory stays bounded.

        Args:
            sources: any iterable, a generator for example.
            threshold: as for `predict`.

        Yields:
            One result per source, in their order; `FailedPrediction` for a source that cannot be read. Its
            ``error`` says why; ``error`` is None in a result.

        Raises:
            UserError: not fitted, or no iterable.
        """
        self._check_fitted()
        if not hasattr(sources, "__iter__") or isinstance(sources, (str, bytes, os.PathLike)):
            hint = "Use predict for one image"
            raise UserError("sources", "an iterable of images", type(sources).__name__, hint)
        return self._predictions(sources, threshold)

    def _predictions(
        self, sources: Iterable[ImageSource], threshold: float | None
    ) -> Iterator[Result | FailedPrediction]:
        for source in sources:
            try:
                yield self._checked(source, threshold)
            except UserError as error:
                yield FailedPrediction(source, error)
            except MemoryError as error:
                where = source if isinstance(source, (str, os.PathLike)) else "image"
                wanted = "an image that fits in memory"
                yield FailedPrediction(source, UserError(where, wanted, str(error) or "a larger one"))

    def _checked(self, source: ImageSource, threshold: float | None) -> Result:
        result = self._predict_one(stable_source(source), threshold)
        if not bool(torch.isfinite(result.scores).all()):
            hint = "The run or the image holds extreme numbers."
            raise UserError(type(self).__name__, "finite scores", "a NaN or an infinity", hint)
        return result

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write a run folder that `load` and ``sppnet predict`` need nothing beside.

        A run that is there stays whole until the new one is, also when the process is killed.

        Args:
            folder: where to; a new or empty folder.
            overwrite: replace the run that is there.

        Returns:
            ``folder`` as a path.

        Raises:
            UserError: not fitted, or a folder that may not or cannot be written.
        """
        self._check_fitted()
        return self._save(folder, overwrite=overwrite)

    def _save(
        self, folder: str | os.PathLike[str], *, overwrite: bool = False, keep_log: bool = False
    ) -> Path:
        tensors, described = self._state()
        record = None if self.fitted_on_ is None else self.fitted_on_.to_dict()
        model = {"names": list(self.names_), "summary": self.summary_, "fitted_on": record, **described}
        config = self._saved_config()
        return save_run(
            Path(folder), self.kind, config, tensors, model, overwrite=overwrite, keep_log=keep_log
        )

    def _saved_config(self) -> dict[str, object]:
        """The parameters that a run keeps."""
        return as_config(cast("DataclassInstance", self))

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "auto") -> Self:
        """Read a run folder that `save` wrote; `sppnet.load` finds the class by itself.

        Args:
            folder: the run.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

        Raises:
            UserError: no run of this class and version, or a damaged one.
        """
        run = load_run(Path(folder), cls.kind)
        where = run.folder / "config.toml"
        with damaged(where, "the parameters of a run"):
            estimator = cast("Self", from_config(cast("Any", cls), run.config, where))
            estimator.device = device
            estimator._check_loaded()
        with damaged(run.folder, "a whole run"):
            state = SavedState.of(run)
            estimator.names_ = state.names
            estimator.summary_ = state.mapping("summary")
            estimator.fitted_on_ = FittedOn.from_dict(state.model.get("fitted_on"), state.described)
            estimator._restore(state)
        return estimator

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        part: Literal["all", "features", "box-features"] = "all",
        precision: Literal["float32", "float16", "int8"] = "float32",
        calibration: Sequence[ImageSource] = (),
    ) -> Path:
        """Write one ONNX file for images of any size; see `sppnet.export.export_estimator`.

        Raises:
            UserError: not fitted, an estimator that cannot be exported, or an argument at fault.
        """
        from sppnet.export import export_estimator

        self._check_fitted()
        return export_estimator(self, path, part=part, precision=precision, calibration=calibration)

    def _check_loaded(self) -> None:
        """Check the parameters of a run; files that only fitting needs may be gone."""
        self.check_params()

    def _check_fitted(self) -> None:
        if not hasattr(self, "names_"):
            name = type(self).__name__
            raise UserError(name, "a fitted estimator", "one that is not", "Call fit or load first.")

    def _forget(self) -> None:
        """Drop what was learned."""
        params = self.get_params(deep=False)
        for name in [name for name in vars(self) if name not in params]:
            delattr(self, name)

    @abstractmethod
    def evaluate(
        self,
        data: Any,
        split: str | None = None,
        *,
        layout: str | None = None,
        skip_bad: bool = False,
        quiet: bool = False,
    ) -> dict[str, Any]:
        """Measure what `predict` returns on labelled images."""

    if TYPE_CHECKING:
        # Declared for callers of any estimator; an estimator that only predicts needs neither.
        def fit(
            self,
            data: Any,
            split: str | None = None,
            *,
            layout: str | None = None,
            skip_bad: bool = False,
            quiet: bool = False,
        ) -> Self:
            """Learn from labelled images; a fit that fails leaves the estimator unfitted."""
            ...

        def to_measure(
            self, data: Any, split: str | None = None, *, layout: str | None = None, skip_bad: bool = False
        ) -> tuple[Any, dict[str, object]]:
            """Return the data set that `evaluate` measures, and its "held_out" and "trained_on"."""
            ...

    @abstractmethod
    def _predict_one(self, source: ImageSource, threshold: float | None) -> Result:
        """The result of one image; the estimator is fitted."""

    @abstractmethod
    def _state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """Every learned tensor by name, and what else `_restore` needs, in JSON's types."""

    @abstractmethod
    def _restore(self, state: SavedState) -> None:
        """Take over what `_state` gave; every tensor is checked against a table first."""


def fresh_fit(
    method: Callable[Concatenate[Fitted, Arguments], object],
) -> Callable[Concatenate[Fitted, Arguments], Fitted]:
    """Decorate a `fit`: parameters are checked first, and a fit that fails leaves the estimator unfitted.

    The method runs on a clone, whose learned attributes the estimator takes over at the end.
    """

    @functools.wraps(method)
    def fit(self: Fitted, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Fitted:
        self._forget()  # pyright: ignore[reportPrivateUsage]
        self.check_params()
        fresh = self.clone()
        method(fresh, *args, **kwargs)
        params = fresh.get_params(deep=False)
        for name, value in vars(fresh).items():
            if name not in params:
                setattr(self, name, value)
        return self

    return fit


def _is_several(source: object) -> bool:
    if isinstance(source, (list, tuple)):
        return True
    # A file object is an iterator too.
    return isinstance(source, Iterator) and not hasattr(source, "read")
