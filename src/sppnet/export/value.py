"""Outputs of nodes of an ONNX graph, as operands of Python expressions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from onnx import helper

if TYPE_CHECKING:
    from sppnet.export.graph import Builder

Kind: TypeAlias = type[np.generic]
Number: TypeAlias = int | float | bool


@dataclass(frozen=True, eq=False)
class Value:
    """The output of a node; operators and methods add nodes to the graph.

    Attributes:
        builder: the builder of the graph.
        name: the name in the graph.
        kind: the NumPy type of the elements.

    Examples:
        >>> from sppnet.export.graph import Builder
        >>> builder = Builder()
        >>> x = builder.input("x", np.float32, [None, 4])
        >>> (x * 2 + 1).kind
        <class 'numpy.float32'>
    """

    builder: Builder
    name: str
    kind: Kind

    def _pair(self, op: str, other: Value | Number, kind: Kind | None = None) -> Value:
        value = other if isinstance(other, Value) else self.builder.constant(other, self.kind)
        return self.builder.op(op, self, value, kind=kind)

    def __add__(self, other: Value | Number) -> Value:
        return self._pair("Add", other)

    def __sub__(self, other: Value | Number) -> Value:
        return self._pair("Sub", other)

    def __mul__(self, other: Value | Number) -> Value:
        return self._pair("Mul", other)

    def __truediv__(self, other: Value | Number) -> Value:
        """Divide; non-negative integers give the floor."""
        return self._pair("Div", other)

    def __mod__(self, other: Value | Number) -> Value:
        return self._pair("Mod", other)

    def __gt__(self, other: Value | Number) -> Value:
        return self._pair("Greater", other, np.bool_)

    def __ge__(self, other: Value | Number) -> Value:
        return self._pair("GreaterOrEqual", other, np.bool_)

    def __lt__(self, other: Value | Number) -> Value:
        return self._pair("Less", other, np.bool_)

    def __le__(self, other: Value | Number) -> Value:
        return self._pair("LessOrEqual", other, np.bool_)

    def equal(self, other: Value | Number) -> Value:
        """Compare elementwise."""
        return self._pair("Equal", other, np.bool_)

    def __and__(self, other: Value) -> Value:
        return self._pair("And", other)

    def __or__(self, other: Value) -> Value:
        return self._pair("Or", other)

    def __invert__(self) -> Value:
        return self.builder.op("Not", self)

    def maximum(self, other: Value | Number) -> Value:
        """Return the elementwise maximum."""
        return self._pair("Max", other)

    def minimum(self, other: Value | Number) -> Value:
        """Return the elementwise minimum."""
        return self._pair("Min", other)

    def cast(self, kind: Kind) -> Value:
        """Convert to another type."""
        to = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        return self if kind is self.kind else self.builder.op("Cast", self, kind=kind, to=to)

    def floor(self) -> Value:
        """Round down."""
        return self.builder.op("Floor", self)

    def sqrt(self) -> Value:
        """Return the square root."""
        return self.builder.op("Sqrt", self)

    def reshape(self, *shape: int) -> Value:
        """Change the shape; -1 is inferred, 0 keeps the length of the axis."""
        return self.builder.op("Reshape", self, self.builder.constant(shape, np.int64))

    def reshape_to(self, shape: Value) -> Value:
        """Change to a shape that the graph computes; 0 is a length of 0."""
        return self.builder.op("Reshape", self, shape, allowzero=1)

    def transpose(self, *axes: int) -> Value:
        """Permute the axes."""
        return self.builder.op("Transpose", self, perm=list(axes))

    def unsqueeze(self, *axes: int) -> Value:
        """Insert axes of length 1."""
        return self.builder.op("Unsqueeze", self, self.builder.constant(axes, np.int64))

    def squeeze(self, *axes: int) -> Value:
        """Remove axes of length 1."""
        return self.builder.op("Squeeze", self, self.builder.constant(axes, np.int64))

    def take(self, index: Value | int, axis: int = 0) -> Value:
        """Select elements along an axis by index."""
        at = index if isinstance(index, Value) else self.builder.constant(index, np.int64)
        return self.builder.op("Gather", self, at, axis=axis)

    def slice(self, start: Value | int, stop: Value | int, axis: int = 0) -> Value:
        """Slice an axis like Python."""
        ends = [
            end.reshape(1) if isinstance(end, Value) else self.builder.constant([end], np.int64)
            for end in (start, stop)
        ]
        return self.builder.op("Slice", self, *ends, self.builder.constant([axis], np.int64))

    def reduce(self, how: str, *axes: int, keep: bool = False) -> Value:
        """Reduce axes, or all of them, by ``how``: Sum, Max, Min, Mean, Prod or L2."""
        given = [self.builder.constant(axes, np.int64)] if axes else []
        return self.builder.op(f"Reduce{how}", self, *given, keepdims=int(keep))

    def length(self, axis: int = 0) -> Value:
        """Return the length of an axis, int64 ``[]``."""
        shape = self.builder.op("Shape", self, kind=np.int64, start=axis, end=axis + 1)
        return shape.reshape_to(self.builder.constant(np.empty(0), np.int64))

    def matmul(self, other: Value) -> Value:
        """Return the matrix product."""
        return self.builder.op("MatMul", self, other)
