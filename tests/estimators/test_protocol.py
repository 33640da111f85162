from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sklearn.base
import torch
from torch import Tensor

import sppnet
from sppnet.classify import Classifier, ClassifierOptions, NetworkClassifier, NetworkOptions
from sppnet.detect import Detector, DetectorOptions
from sppnet.errors import UserError
from sppnet.estimators import (
    Estimator,
    FailedPrediction,
    PredictionsError,
    SavedState,
    TensorSpec,
    fresh_fit,
)
from sppnet.estimators.tensors import check_tensors


@dataclass
class Answer:
    scores: Tensor


@dataclass(init=False)
class Mean(Estimator[Answer]):
    """A toy: the mean of a list of numbers."""

    kind: ClassVar[str] = "toy-mean"
    device: str = "auto"
    options: ClassifierOptions = field(default_factory=ClassifierOptions)

    def __init__(self, device: str = "auto", options: ClassifierOptions | None = None, **single: Any) -> None:
        self._store({"device": device, "options": options or ClassifierOptions()}, single)

    @fresh_fit
    def fit(self, data: list[float]) -> None:
        self.names_, self.summary_ = ("mean",), {}
        if not data:
            raise UserError("data", "numbers", "none")
        self.mean_ = torch.tensor(data).mean()

    def evaluate(
        self, data: Any, split: str | None = None, *, layout: str | None = None, quiet: bool = False
    ):
        return {"error": float(torch.tensor(data).sub(self.mean_).abs().mean())}

    def _predict_one(self, source: Any, threshold: float | None) -> Answer:
        if source == "bad":
            raise UserError("bad", "a number", "text")
        return Answer(self.mean_ + source)

    def _state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        return {"mean": self.mean_}, {}

    def _restore(self, state: SavedState) -> None:
        state.check([TensorSpec("mean", ())])
        self.mean_ = state.tensors["mean"]


def test_a_new_kind_of_estimator_needs_one_class(tmp_path: Path) -> None:
    mean = Mean(C=2.0).fit([1.0, 3.0])
    mean.save(tmp_path / "run")
    again = sppnet.load(tmp_path / "run")
    assert isinstance(again, Mean)
    assert again.options.C == 2.0
    assert float(again.predict(1.0).scores) == 3.0


def test_a_failed_fit_leaves_the_estimator_unfitted() -> None:
    mean = Mean().fit([1.0])
    for data, change in (([], {}), ([1.0], {"C": -1.0}), ([1.0], {"C": "much"})):
        broken = Mean(**change)
        broken.mean_ = mean.mean_
        with pytest.raises(UserError):
            broken.fit(data)
        assert not [name for name in vars(broken) if name.endswith("_")]
        with pytest.raises(UserError, match="a fitted estimator"):
            broken.predict(1.0)


def test_one_bad_source_leaves_the_other_results() -> None:
    mean = Mean().fit([1.0])
    asked: list[object] = []

    def sources():
        for source in (1.0, "bad", 2.0):
            asked.append(source)
            yield source

    found = mean.predict_iter(sources())
    assert float(next(found).scores) == 2.0
    assert asked == [1.0], "sources are taken one by one"
    failed, last = found
    assert isinstance(failed, FailedPrediction)
    assert failed.source == "bad"
    assert float(last.scores) == 3.0
    with pytest.raises(PredictionsError, match="1 of 3 that cannot be read: bad") as caught:
        mean.predict([1.0, "bad", 2.0])
    assert [type(result) for result in caught.value.results] == [Answer, FailedPrediction, Answer]


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match="finite scores"):
        Mean().fit([1.0]).predict(float("nan"))


@pytest.mark.parametrize("kind", [Detector, Classifier, NetworkClassifier])
def test_parameters_work_as_in_scikit_learn(kind: type[Estimator[Any]]) -> None:
    estimator = kind(seed=7)
    for name, value in estimator.get_params().items():
        path = name.split("__")
        at: Any = estimator
        for part in path:
            at = getattr(at, part)
        assert at == value or at is value
    assert sklearn.base.clone(estimator) == estimator == estimator.clone()
    assert estimator.set_params(seed=8).seed == 8
    with pytest.raises(UserError, match="one of the parameters"):
        kind(no_such_option=1)
    with pytest.raises(UserError, match="one of the parameters"):
        estimator.set_params(seed=9, no_such_option=1)
    assert estimator.seed == 8, "nothing is changed when one name is wrong"


def test_single_options_equal_those_of_the_dataclass() -> None:
    assert Detector(C=0.5, nms=0.2) == Detector(options=DetectorOptions(C=0.5, nms=0.2))
    assert Detector().set_params(options__svm__C=0.5) == Detector(C=0.5)
    assert Classifier().set_params(options__C=0.5) == Classifier(C=0.5)
    assert NetworkClassifier(hidden=(4,), epochs=2).network == NetworkOptions(hidden=(4,))
    with pytest.raises(UserError, match="Did you mean 'flip_below'"):
        Detector(flip_belov=1)


def test_runs_of_an_unknown_kind_are_refused(tmp_path: Path) -> None:
    folder = Mean().fit([1.0]).save(tmp_path / "run")
    model = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**model, "format": 1, "kind": "ranker"}))
    with pytest.raises(UserError, match="kind 'ranker'"):
        sppnet.load(folder)
    with pytest.raises(UserError, match="a run of kind classifier, got a run of kind ranker"):
        Classifier.load(folder)


TABLE = [TensorSpec("weight", ("4*K", "D")), TensorSpec("bias", ("K+1",)), TensorSpec("scale", ())]


def tensors() -> dict[str, Tensor]:
    return {"weight": torch.zeros(8, 3), "bias": torch.zeros(3), "scale": torch.ones(())}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weight": torch.zeros(9, 3)}, r"weight of shape \[8, .D.\], got shape \[9, 3\]"),
        ({"weight": torch.zeros(8, 0)}, "weight of shape"),
        ({"bias": torch.zeros(2)}, r"bias of shape \[3\], got shape \[2\]"),
        ({"bias": torch.zeros(3, 1)}, "bias of 1 dimensions"),
        ({"scale": torch.ones((), dtype=torch.float64)}, "scale of torch.float32, got torch.float64"),
        ({"scale": torch.tensor(float("nan"))}, "finite numbers in scale"),
        ({"bias": torch.full((3,), 1e30)}, "finite numbers in bias"),
        ({"more": torch.ones(1)}, "the unexpected tensor 'more'"),
    ],
)
def test_tensors_are_checked_against_the_table(change: dict[str, Tensor], said: str) -> None:
    assert check_tensors(tensors(), TABLE, "file", {"K": 2}) == {"K": 2, "D": 3}
    with pytest.raises(UserError, match=said):
        check_tensors(tensors() | change, TABLE, "file", {"K": 2})
    missing = tensors()
    del missing["bias"]
    with pytest.raises(UserError, match="the tensor bias, got a file without it"):
        check_tensors(missing, TABLE, "file", {"K": 2})
