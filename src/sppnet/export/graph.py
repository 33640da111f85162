"""Write ONNX graphs as Python expressions.

A `Builder` collects nodes; a `Value` is the output of one and carries its type, so that Python operators
and numbers become nodes and typed constants. Types are NumPy's; shapes stay symbolic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import helper, numpy_helper

OPSET = 18
"""The oldest operator set with every operator that the graphs use."""
IR_VERSION = 10
"""Read by onnxruntime 1.18 and later, whatever the version of onnx that writes the file."""

Kind: TypeAlias = type[np.generic]
Number: TypeAlias = int | float | bool
_SHARED = 64  # constants of at most so many bytes are stored once


@dataclass(frozen=True, eq=False)
class Value:
    """An output of a node.

    Attributes:
        builder: what collects the nodes that follow.
        name: in the graph.
        kind: NumPy's type of the elements.

    Examples:
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
        """Divide; integers, which are never negative here, give the floor."""
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
        """Where both are the same."""
        return self._pair("Equal", other, np.bool_)

    def __and__(self, other: Value) -> Value:
        return self._pair("And", other)

    def __or__(self, other: Value) -> Value:
        return self._pair("Or", other)

    def __invert__(self) -> Value:
        return self.builder.op("Not", self)

    def maximum(self, other: Value | Number) -> Value:
        """The larger of both."""
        return self._pair("Max", other)

    def minimum(self, other: Value | Number) -> Value:
        """The smaller of both."""
        return self._pair("Min", other)

    def cast(self, kind: Kind) -> Value:
        """As another type."""
        to = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        return self if kind is self.kind else self.builder.op("Cast", self, kind=kind, to=to)

    def floor(self) -> Value:
        """The largest whole number that is not above it."""
        return self.builder.op("Floor", self)

    def sqrt(self) -> Value:
        """The square root."""
        return self.builder.op("Sqrt", self)

    def reshape(self, *shape: int) -> Value:
        """Another shape; -1 takes what is left, 0 keeps the axis."""
        return self.builder.op("Reshape", self, self.builder.constant(shape, np.int64))

    def reshape_to(self, shape: Value) -> Value:
        """A shape that the graph computes; 0 means a length of 0."""
        return self.builder.op("Reshape", self, shape, allowzero=1)

    def transpose(self, *axes: int) -> Value:
        """The axes in another order."""
        return self.builder.op("Transpose", self, perm=list(axes))

    def unsqueeze(self, *axes: int) -> Value:
        """With axes of length 1."""
        return self.builder.op("Unsqueeze", self, self.builder.constant(axes, np.int64))

    def squeeze(self, *axes: int) -> Value:
        """Without axes of length 1."""
        return self.builder.op("Squeeze", self, self.builder.constant(axes, np.int64))

    def take(self, index: Value | int, axis: int = 0) -> Value:
        """Elements along an axis, by position."""
        at = index if isinstance(index, Value) else self.builder.constant(index, np.int64)
        return self.builder.op("Gather", self, at, axis=axis)

    def slice(self, start: Value | int, stop: Value | int, axis: int = 0) -> Value:
        """Part of an axis, as Python slices."""
        ends = [
            end.reshape(1) if isinstance(end, Value) else self.builder.constant([end], np.int64)
            for end in (start, stop)
        ]
        return self.builder.op("Slice", self, *ends, self.builder.constant([axis], np.int64))

    def reduce(self, how: str, *axes: int, keep: bool = False) -> Value:
        """``how``: Sum, Max, Min, Mean, Prod or L2, over axes; over all where none is given."""
        given = [self.builder.constant(axes, np.int64)] if axes else []
        return self.builder.op(f"Reduce{how}", self, *given, keepdims=int(keep))

    def length(self, axis: int = 0) -> Value:
        """int64 ``[]``, the length of an axis."""
        shape = self.builder.op("Shape", self, kind=np.int64, start=axis, end=axis + 1)
        return shape.reshape_to(self.builder.constant(np.empty(0), np.int64))

    def matmul(self, other: Value) -> Value:
        """The matrix product."""
        return self.builder.op("MatMul", self, other)


class Builder:
    """Nodes, constants, inputs and outputs of one graph.

    Examples:
        >>> builder = Builder()
        >>> x = builder.input("x", np.float32, ["N", 4])
        >>> builder.output("y", x * 2, ["N", 4])
        >>> [node.op_type for node in builder.model({}).graph.node]
        ['Mul', 'Identity']
    """

    def __init__(self) -> None:
        self._nodes: list[list[onnx.NodeProto]] = [[]]
        self._constants: dict[str, onnx.TensorProto] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._count = 0

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"

    def input(self, name: str, kind: Kind, shape: Sequence[int | str | None]) -> Value:
        """A tensor that the caller gives; names in the shape are dynamic."""
        self._inputs.append(_info(name, kind, shape))
        return Value(self, name, kind)

    def output(self, name: str, value: Value, shape: Sequence[int | str | None]) -> None:
        """A tensor that the caller gets."""
        self._nodes[0].append(helper.make_node("Identity", [value.name], [name], name=self._name("Identity")))
        self._outputs.append(_info(name, value.kind, shape))

    def constant(self, value: ArrayLike, kind: Kind) -> Value:
        """A constant; small equal ones are stored once."""
        array = np.ascontiguousarray(np.asarray(value, kind))
        array = array.reshape(np.shape(value))  # ascontiguousarray makes scalars vectors
        key = (array.dtype.str, array.shape, array.tobytes() if array.nbytes <= _SHARED else b"")
        if array.nbytes <= _SHARED and key in self._known:
            return Value(self, self._known[key], kind)
        name = self._name("constant")
        self._constants[name] = numpy_helper.from_array(array, name)
        self._known[key] = name
        return Value(self, name, kind)

    def op(self, op: str, *inputs: Value, kind: Kind | None = None, **attributes: Any) -> Value:
        """A node with one output, of its first input's type unless ``kind`` tells another."""
        return self.ops(op, *inputs, kinds=(inputs[0].kind if kind is None else kind,), **attributes)[0]

    def ops(self, op: str, *inputs: Value, kinds: Sequence[Kind], **attributes: Any) -> list[Value]:
        """A node with an output for each of ``kinds``."""
        outputs = [Value(self, self._name(op), kind) for kind in kinds]
        names = [value.name for value in inputs]
        made = helper.make_node(op, names, [v.name for v in outputs], name=self._name(op), **attributes)
        self._nodes[-1].append(made)
        return outputs

    def concat(self, values: Sequence[Value], axis: int = 0) -> Value:
        """Joined along an axis."""
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)

    def stack(self, values: Sequence[Value], axis: int = 0) -> Value:
        """Joined along a new axis."""
        return self.concat([value.unsqueeze(axis) for value in values], axis)

    def where(self, condition: Value, yes: Value, no: Value) -> Value:
        """``yes`` where the condition holds, ``no`` elsewhere."""
        return self.op("Where", condition, yes, no, kind=yes.kind)

    def range(self, count: Value) -> Value:
        """int64 0, 1, ... count - 1."""
        return self.op("Range", self.constant(0, np.int64), count, self.constant(1, np.int64))

    def sort(self, values: Value, *, descending: bool) -> tuple[Value, Value]:
        """A vector in order, and the positions that its elements had; equal ones keep their order."""
        return self.top(values, values.length(), descending=descending)

    def top(self, values: Value, count: Value, *, descending: bool = True) -> tuple[Value, Value]:
        """The first ``count`` along the last axis, and their positions; the first of equal ones first."""
        ordered, index = self.ops(
            "TopK", values, count.reshape(1), kinds=(values.kind, np.int64), largest=int(descending), sorted=1
        )
        return ordered, index

    def positions(self, mask: Value) -> Value:
        """int64 ``[n]``, where a vector of booleans is true."""
        return self.op("NonZero", mask, kind=np.int64).squeeze(0)

    def loop(
        self,
        states: Sequence[Value],
        body: Callable[[Value, list[Value]], tuple[Value | None, list[Value]]],
        trips: Value | None = None,
        sequences: Sequence[bool] = (),
    ) -> list[Value]:
        """Repeat ``body``, which maps a count and states to a condition (None: go on) and new states.

        Args:
            states: before the first round.
            body: called once, to build the body's graph; it may use any value from outside.
            trips: rounds at most; without end where None.
            sequences: which states are sequences of tensors.

        Returns:
            The states after the last round.
        """
        flags = list(sequences) or [False] * len(states)
        count = Value(self, self._name("round"), np.int64)
        going = Value(self, self._name("going"), np.bool_)
        inner = [Value(self, self._name("state"), state.kind) for state in states]
        self._nodes.append([])
        wanted, results = body(count, inner)
        condition = going if wanted is None else wanted
        # An output of a body must be made in it.
        ends = [self.op("Identity", value) for value in (condition, *results)]
        infos = [
            _sequence_info(v.name, v.kind) if s else _info(v.name, v.kind, None)
            for v, s in zip((*inner, *ends[1:]), flags * 2, strict=True)
        ]
        size = len(inner)
        graph = helper.make_graph(
            self._nodes.pop(),
            self._name("body"),
            [_info(count.name, np.int64, []), _info(going.name, np.bool_, []), *infos[:size]],
            [_info(ends[0].name, np.bool_, []), *infos[size:]],
        )
        nothing = Value(self, "", np.int64)
        start = self.constant(True, np.bool_)
        kinds = [state.kind for state in states]
        return self.ops("Loop", trips or nothing, start, *states, kinds=kinds, body=graph)

    def call(self, model: onnx.ModelProto, given: Value, kinds: Sequence[Kind]) -> list[Value]:
        """The outputs of a model of one input; its nodes are copied, its weights stored once.

        Args:
            model: without subgraphs and functions of its own.
            given: its input.
            kinds: of its outputs.
        """
        graph = model.graph
        prefix = self._name("call")
        names = {graph.input[0].name: given.name, "": ""}
        for tensor in graph.initializer:
            names[tensor.name] = f"network/{tensor.name}"
            if names[tensor.name] not in self._constants:
                copy = onnx.TensorProto()
                copy.CopyFrom(tensor)
                copy.name = names[tensor.name]
                self._constants[copy.name] = copy
        for node in graph.node:
            names.update({name: f"{prefix}/{name}" for name in node.output if name})
            copied = onnx.NodeProto()
            copied.CopyFrom(node)
            copied.name = self._name(node.op_type)
            copied.input[:] = [names[name] for name in node.input]
            copied.output[:] = [names[name] for name in node.output]
            del copied.metadata_props[:]
            self._nodes[0].append(copied)
        return [Value(self, names[o.name], kind) for o, kind in zip(graph.output, kinds, strict=True)]

    def model(self, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The graph as a model that onnxruntime loads."""
        used = _used(self._nodes[0]) | {info.name for info in self._inputs}
        constants = [tensor for name, tensor in self._constants.items() if name in used]
        graph = helper.make_graph(self._nodes[0], "sppnet", self._inputs, self._outputs, constants)
        domain = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=domain, ir_version=IR_VERSION, producer_name="sppnet")
        helper.set_model_props(model, dict(metadata))
        return model


def _used(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Names that nodes and the bodies of loops read."""
    names: set[str] = set()
    for node in nodes:
        names.update(node.input)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                names |= _used(attribute.g.node)
    return names


def _info(name: str, kind: Kind, shape: Sequence[int | str | None] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape)


def _sequence_info(name: str, kind: Kind) -> onnx.ValueInfoProto:
    return helper.make_tensor_sequence_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), None)
