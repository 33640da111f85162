"""What a run says about a fitted estimator, read with suspicion: every part is checked before it is used."""

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
        tensors: by name; `backbone` takes those of the backbone away.
        model: what the estimator wrote into ``model.json``.
        names: the class names: text, at least one, none twice.

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
            raise UserError(self.described, "names, a list of different texts", "other values", "Fit again.")
        self.names = tuple(cast("list[str]", listed))

    @classmethod
    def of(cls, run: RunContents) -> SavedState:
        """The state of a run that was read.

        Raises:
            UserError: no class names.
        """
        return cls(run.folder, dict(run.tensors), run.model)

    @property
    def described(self) -> Path:
        """The description's file, for messages."""
        return self.folder / "model.json"

    @property
    def file(self) -> Path:
        """The tensors' file, for messages."""
        return self.folder / "model.safetensors"

    def check(self, table: Sequence[TensorSpec], sizes: Mapping[str, int] | None = None) -> dict[str, int]:
        """`check_tensors` on the tensors that are left; ``K`` is the number of class names.

        Raises:
            UserError: the tensors differ from the table.
        """
        return check_tensors(self.tensors, table, self.file, {"K": len(self.names), **(sizes or {})})

    def mapping(self, name: str, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """An entry of the description that is a mapping.

        Raises:
            UserError: it is missing or something else.
        """
        value = (self.model if content is None else content).get(name)
        if not isinstance(value, dict):
            raise UserError(self.described, f"a table {name!r}", type(value).__name__, "Fit again.")
        return cast("dict[str, Any]", value)

    def texts(self, name: str) -> tuple[str, ...]:
        """An entry of the description that is a list of texts.

        Raises:
            UserError: it is missing or something else.
        """
        value = self.model.get(name)
        if not isinstance(value, list) or not all(
            isinstance(text, str) for text in cast("list[object]", value)
        ):
            raise UserError(self.described, f"a list of texts {name!r}", type(value).__name__, "Fit again.")
        return tuple(cast("list[str]", value))

    def category_ids(self) -> tuple[int | str, ...]:
        """COCO's id of every class; 1, 2, ... where the run, written by an earlier version, has none.

        Raises:
            UserError: another list than one different id, a number or text, per class.
        """
        value = self.model.get("category_ids")
        if value is None:
            return tuple(range(1, len(self.names) + 1))
        ids = cast("list[object]", value) if isinstance(value, list) else []
        right = all(isinstance(one, (int, str)) and not isinstance(one, bool) for one in ids)
        if not right or len(set(ids)) != len(self.names) or len(ids) != len(self.names):
            raise UserError(
                self.described, f"category_ids, {len(self.names)} ids", "other values", "Fit again."
            )
        return tuple(cast("list[int | str]", ids))

    def number(self, content: Mapping[str, Any], name: str, least: int, most: int) -> int:
        """A whole number of a table in the description.

        Raises:
            UserError: it is missing, something else, or out of its range.
        """
        value = content.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            got = str(value)[:60] if isinstance(value, (float, str)) else "another value"
            raise UserError(self.described, f"{name}, {least} to {most}", got, "Fit again.")
        return value

    def backbone(self) -> Backbone:
        """The backbone that the description names, with the weights among the tensors, which it takes away.

        Raises:
            UserError: the description or the weights are damaged, or do not fit each other.
        """
        backbone = self.architecture(self.mapping("backbone"))
        mine = {name for name in self.tensors if name.startswith(_BACKBONE)}
        state = {name.removeprefix(_BACKBONE): self.tensors.pop(name) for name in sorted(mine)}
        check_tensors(state, list(same_shapes(backbone.state_dict())), self.file)
        backbone.load_state_dict(state)
        check_backbone(backbone, self.folder)
        return backbone

    def architecture(self, spec: Mapping[str, Any]) -> Backbone:
        """The backbone of a description, checked, its weights yet to be loaded.

        Raises:
            UserError: a description that no backbone of this package has written.
        """
        layers = spec.get("layers")
        listed = cast("list[object]", layers) if isinstance(layers, list) else []
        wanted = "a backbone's name, layers, minimum, multiple, mean and std"
        with damaged(self.described, wanted):
            right = isinstance(spec["name"], str) and 1 <= len(listed) <= 64
            for layer in cast("list[dict[str, Any]]", listed):
                right &= isinstance(layer["name"], str) and 1 <= layer["channels"] <= 2**16
                right &= 0.5 <= layer["stride"] <= _LARGEST_SIDE and abs(layer["first"]) <= _LARGEST_OFFSET
            right &= all(1 <= side <= _LARGEST_SIDE for side in spec["minimum"])
            right &= 1 <= spec["multiple"] <= _LARGEST_SIDE
            right &= len(spec["mean"]) == len(spec["std"]) == 3
            right &= all(abs(v) <= _LARGEST_OFFSET for v in spec["mean"])
            right &= all(1e-6 <= v <= _LARGEST_OFFSET for v in spec["std"])
            if not right:
                raise ValueError("a value out of its range")
            return backbone_from_spec(dict(spec))


def check_backbone(backbone: Backbone, where: object) -> None:
    """Run a restored backbone on a small image: its maps must be those that it describes, and finite.

    Raises:
        UserError: other maps, or numbers that are not finite.
    """
    height, width = (max(_PROBE, side) for side in (backbone.minimum.height, backbone.minimum.width))
    step = backbone.multiple
    image = torch.full((1, 3, -(-height // step) * step, -(-width // step) * step), 0.5)
    with torch.inference_mode(), damaged(where, f"the weights of {backbone.name}"):
        maps = backbone(image.to(backbone.device))
    wanted = [layer.channels for layer in backbone.layers]
    got = [found.shape[1] for found in maps]
    if wanted != got:
        raise UserError(where, f"a backbone with maps of {wanted} channels", got, "Fit again.")
    check_finite({layer.name: found for layer, found in zip(backbone.layers, maps, strict=True)}, where)


@contextmanager
def damaged(where: object, expected: str) -> Generator[None]:
    """Turn whatever a damaged file makes fail into a `UserError` that names it.

    What is read here was written by `Estimator.save` and checked by its checksum; if it still fails, the
    file was changed together with its checksum, or comes from an incompatible version.
    """
    try:
        yield
    except UserError as error:
        if str(where) in str(error):
            raise
        raise UserError(where, expected, f"one at fault: {error}") from error
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
        raise UserError(where, expected, f"one at fault ({text[:120]})", "Fit again.") from error
    except AssertionError as error:
        raise UserError(where, expected, f"one at fault ({error})", "Fit again.") from error
