"""The base class of all estimators."""

from __future__ import annotations

import dataclasses
import functools
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Literal,
    ParamSpec,
    Self,
    TypeVar,
    cast,
)

from torch import Tensor

from sppnet.config import as_config, from_config
from sppnet.data import FittedOn, ImageSource
from sppnet.estimators.params import changed_params, nested_params
from sppnet.estimators.predicting import Predictor, Result
from sppnet.estimators.state import SavedState, damaged
from sppnet.runs import load_run, save_run

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


Fitted = TypeVar("Fitted", bound="Estimator[Any]")
Arguments = ParamSpec("Arguments")


class Estimator(Predictor[Result]):
    """Base class of estimators that are fitted to labelled images and predict on images.

    As in scikit-learn, the constructor only stores its arguments, fitted attributes end in ``_``, `fit`
    returns self, and `get_params`, `set_params` and `clone` work. A subclass is a dataclass whose fields are
    its parameters (``@dataclass(init=False)`` with a constructor that calls `_store`). It decorates its
    `fit` with `fresh_fit` and implements `_predict_one`, `evaluate`, `_state` and `_restore`.

    Attributes:
        kind: the name of the class in ``model.json``.
        supports_boxes: whether results have boxes; then ``category_ids_`` has the class ids of the data set.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        names_: class names.
        summary_: seconds, counts and memory of fitting.
        fitted_on_: digests of the fitted and the held-out images; None if unknown.

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
        """Store the constructor's parameters; single options replace those of the option dataclasses."""
        for name, value in changed_params(values, options, type(self).__name__).items():
            setattr(self, name, value)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's arguments by name.

        Args:
            deep: add every option of the option dataclasses, as ``options__NAME``.
        """
        names = [f.name for f in dataclasses.fields(cast("DataclassInstance", self)) if f.init]
        plain = {name: getattr(self, name) for name in names}
        return nested_params(plain) if deep else plain

    def set_params(self, **params: Any) -> Self:
        """Change arguments or their options by name: ``seed``, ``options__C`` or ``C``.

        Returns:
            self.

        Raises:
            UserError: a name is unknown; no parameter is changed then.
        """
        plain = self.get_params(deep=False)
        for name, value in changed_params(plain, params, type(self).__name__).items():
            setattr(self, name, value)
        return self

    def clone(self) -> Self:
        """Return an unfitted estimator with the same parameters."""
        return type(self)(**self.get_params(deep=False))

    def check_params(self) -> None:
        """Check types and ranges of all parameters.

        Raises:
            UserError: a parameter is invalid.
        """
        parameters = cast("DataclassInstance", self)
        from_config(cast("Any", type(self)), as_config(parameters), type(self).__name__)
        for value in self.get_params(deep=False).values():
            check = getattr(value, "check", None)
            if callable(check):
                check()

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write a run folder, which `load` and ``sppnet predict`` read without other files.

        An existing run stays whole until the new one is, also when the process is killed.

        Args:
            folder: a new or empty folder.
            overwrite: replace an existing run.

        Returns:
            ``folder`` as a path.

        Raises:
            UserError: the estimator is not fitted, or the folder cannot be written or holds other files.
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
        """Return the parameters that are saved in a run."""
        return as_config(cast("DataclassInstance", self))

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "auto") -> Self:
        """Read a run folder that `save` wrote; `sppnet.load` detects the class automatically.

        Args:
            folder: the run.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

        Raises:
            UserError: the folder is not a run of this class and format, or the run is damaged.
        """
        run = load_run(Path(folder), cls.kind)
        where = run.folder / "config.toml"
        with damaged(where, "the parameters of a run"):
            estimator = cast("Self", from_config(cast("Any", cls), run.config, where))
            estimator.device = device
            estimator._check_loaded()
        with damaged(run.folder, "a complete run"):
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
        """Write an ONNX file for images of any size; see `sppnet.export.export_estimator`.

        Raises:
            UserError: the estimator is not fitted or cannot be exported, or an argument is invalid.
        """
        from sppnet.export import export_estimator

        self._check_fitted()
        return export_estimator(self, path, part=part, precision=precision, calibration=calibration)

    def _check_loaded(self) -> None:
        """Check the parameters of a run; files that only fitting needs may be missing."""
        self.check_params()

    def _forget(self) -> None:
        """Delete the fitted attributes."""
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
        """Evaluate the results of `predict` on labelled images."""

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
    def _state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """Return the fitted tensors by name, and further values for `_restore` in JSON types."""

    @abstractmethod
    def _restore(self, state: SavedState) -> None:
        """Set the fitted attributes from a saved state, whose tensors are checked against a table first."""


def fresh_fit(
    method: Callable[Concatenate[Fitted, Arguments], object],
) -> Callable[Concatenate[Fitted, Arguments], Fitted]:
    """Decorate a `fit` method: check the parameters first, and leave the estimator unfitted after a failure.

    The method runs on a clone, whose fitted attributes are copied to the estimator at the end.

    Examples:
        >>> from sppnet import Classifier
        >>> Classifier(C=-1.0).fit("images")
        Traceback (most recent call last):
        sppnet.errors.UserError: options.C: expected a number above 0, got -1.0
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
