from __future__ import annotations

import pytest

import sppnet


def test_importing_the_package_is_quick(program) -> None:
    said = program("imported", "sppnet", "torch", "numpy", "PIL")
    assert (said.stdout, said.stderr) == ("[]\n", "")


def test_every_public_name_exists() -> None:
    for name in sppnet.__all__:
        assert getattr(sppnet, name) is not None
        assert name in dir(sppnet)
    from sppnet import Classifier, Detector, RegionPyramidPool2d, SpatialPyramidPool2d

    assert [c.__name__ for c in (Classifier, Detector, RegionPyramidPool2d, SpatialPyramidPool2d)] == [
        "Classifier",
        "Detector",
        "RegionPyramidPool2d",
        "SpatialPyramidPool2d",
    ]


def test_other_names_do_not_exist() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Recogniser'"):
        # That there is none is what is tested.
        _ = sppnet.Recogniser  # type: ignore[attr-defined]


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert sppnet.__version__ == version("sppnet")
