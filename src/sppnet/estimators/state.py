"""The saved state of an estimator; every entry is checked before it is used."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from sppnet.backbones import Backbone, backbone_from_spec
from sppnet.errors import UserError
from sppnet.estimators.tensors import TensorSpec, check_finite, check_tensors, same_shapes
from sppnet.runs import RunContents

_BACKBONE = "backbone."
_PROBE = 64
_LARGEST_SIDE = 4096
_LARGEST_OFFSET = 1e6


@dataclass
class SavedState:
    """The tensors and the description of a run, while an estimator is restored from them.

    Attributes:
        folder: the run, for messages.
        tensors: tensors by name; `backbone` removes those of the backbone.
        model: the content of ``model.json``.
        names: the class names, at least one and all different.

    Examples:
        >>> state = SavedState(Path("run"), {"bias": torch.zeros(2)}, {"names": ["cat", "dog"]})
        >>> state.check([TensorSpec("bias", ("K",))])
        {'K': 2}
    """

    folder: Path
    tensors: dict[str, Tensor]
    model: Mapping[str, Any]
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = self.model.get("names")
        listed = cast("list[object]", names) if isinstance(names, list) else []
        if not listed or not all(isinstance(name, str) for name in listed) or len(set(listed)) < len(listed):
            raise UserError(self.described, "names, a list of different texts", "another value", "Fit again.")
        self.names = tuple(cast("list[str]", listed))

    @classmethod
    def of(cls, run: RunContents) -> SavedState:
        """Return the state of a run.

        Raises:
            UserError: the run has no class names.
        """
        return cls(run.folder, dict(run.tensors), run.model)

    @property
    def described(self) -> Path:
        """The path of the description, for messages."""
        return self.folder / "model.json"

    @property
    def file(self) -> Path:
        """The path of the tensors, for messages."""
        return self.folder / "model.safetensors"

    def check(self, table: Sequence[TensorSpec], sizes: Mapping[str, int] | None = None) -> dict[str, int]:
        """Apply `check_tensors` to the remaining tensors; ``K`` is the number of class names.

        Raises:
            UserError: the tensors differ from the table.
        """
        return check_tensors(self.tensors, table, self.file, {"K": len(self.names), **(sizes or {})})

    def mapping(self, name: str, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return an entry of the description that is a mapping.

        Raises:
            UserError: the entry is missing or not a mapping.
        """
        value = (self.model if content is None else content).get(name)
        if not isinstance(value, dict):
            raise UserError(self.described, f"a table {name!r}", type(value).__name__, "Fit again.")
        return cast("dict[str, Any]", value)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return an entry of the description that is a list of texts.

        Raises:
            UserError: the entry is missing or not a list of texts.
        """
        value = self.model.get(name)
        if not isinstance(value, list) or not all(
            isinstance(text, str) for text in cast("list[object]", value)
        ):
            raise UserError(self.described, f"a list of texts {name!r}", type(value).__name__, "Fit again.")
        return tuple(cast("list[str]", value))

    def category_ids(self) -> tuple[int | str, ...]:
        """Return the COCO id of every class; 1, 2, ... for runs of earlier versions, which have none.

        Raises:
            UserError: the ids are not a list of different numbers or texts, one per class.
        """
        value = self.model.get("category_ids")
        if value is None:
            return tuple(range(1, len(self.names) + 1))
        ids = cast("list[object]", value) if isinstance(value, list) else []
        valid = all(isinstance(one, (int, str)) and not isinstance(one, bool) for one in ids)
        if not valid or len(set(ids)) != len(self.names) or len(ids) != len(self.names):
            raise UserError(
                self.described,
                f"category_ids, {len(self.names)} different ids",
                "another value",
                "Fit again.",
            )
        return tuple(cast("list[int | str]", ids))

    def number(self, content: Mapping[str, Any], name: str, least: int, most: int) -> int:
        """Return a whole number of a table in the description.

        Raises:
            UserError: the entry is missing, not a whole number, or out of its range.
        """
        value = content.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            got = str(value)[:60] if isinstance(value, (float, str)) else "another value"
            raise UserError(self.described, f"{name}, {least} to {most}", got, "Fit again.")
        return value

    def backbone(self) -> Backbone:
        """Build the backbone of the description and load its weights, which are removed from ``tensors``.

        Raises:
            UserError: the description or the weights are damaged, or they do not match.
        """
        backbone = self.architecture(self.mapping("backbone"))
        prefixed = {name for name in self.tensors if name.startswith(_BACKBONE)}
        state = {name.removeprefix(_BACKBONE): self.tensors.pop(name) for name in sorted(prefixed)}
        check_tensors(state, list(same_shapes(backbone.state_dict())), self.file)
        backbone.load_state_dict(state)
        check_backbone(backbone, self.folder)
        return backbone

    def architecture(self, spec: Mapping[str, Any]) -> Backbone:
        """Build the backbone of a description, without loading weights.

        Raises:
            UserError: the description is damaged.
        """
        layers = spec.get("layers")
        listed = cast("list[object]", layers) if isinstance(layers, list) else []
        expected = "a backbone's name, layers, minimum, multiple, mean and std"
        with damaged(self.described, expected):
            valid = isinstance(spec["name"], str) and 1 <= len(listed) <= 64
            for layer in cast("list[dict[str, Any]]", listed):
                valid &= isinstance(layer["name"], str) and 1 <= layer["channels"] <= 2**16
                valid &= 0.5 <= layer["stride"] <= _LARGEST_SIDE and abs(layer["first"]) <= _LARGEST_OFFSET
            valid &= all(1 <= side <= _LARGEST_SIDE for side in spec["minimum"])
            valid &= 1 <= spec["multiple"] <= _LARGEST_SIDE
            valid &= len(spec["mean"]) == len(spec["std"]) == 3
            valid &= all(abs(v) <= _LARGEST_OFFSET for v in spec["mean"])
            valid &= all(1e-6 <= v <= _LARGEST_OFFSET for v in spec["std"])
            if not valid:
                raise ValueError("a value out of its range")
            return backbone_from_spec(dict(spec))


def check_backbone(backbone: Backbone, where: object) -> None:
    """Run a restored backbone on a small image and check its maps.

    Raises:
        UserError: the channels of the maps differ from the description, or values are not finite.
    """
    height, width = (max(_PROBE, side) for side in (backbone.minimum.height, backbone.minimum.width))
    step = backbone.multiple
    image = torch.full((1, 3, -(-height // step) * step, -(-width // step) * step), 0.5)
    with torch.inference_mode(), damaged(where, f"the weights of {backbone.name}"):
        maps = backbone(image.to(backbone.device))
    expected = [layer.channels for layer in backbone.layers]
    got = [found.shape[1] for found in maps]
    if expected != got:
        raise UserError(where, f"maps of {expected} channels", f"maps of {got} channels", "Fit again.")
    check_finite({layer.name: found for layer, found in zip(backbone.layers, maps, strict=True)}, where)


@contextmanager
def damaged(where: object, expected: str) -> Generator[None]:
    """Turn the failures of a damaged file into a `UserError` that names the file.

    The checksums of a run have been checked before. A failure therefore means that a file was changed
    together with its checksum, or comes from an incompatible version.
    """
    try:
        yield
    except UserError as error:
        if str(where) in str(error):
            raise
        raise UserError(where, expected, f"damaged content: {error}") from error
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(where, expected, f"damaged content ({text[:120]})", "Fit again.") from error
    except AssertionError as error:
        raise UserError(where, expected, f"damaged content ({error})", "Fit again.") from error
