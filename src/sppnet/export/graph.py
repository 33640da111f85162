"""Build ONNX graphs from Python expressions.

A `Builder` collects nodes. A `sppnet.export.value.Value` is the output of a node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import helper, numpy_helper

from sppnet.export.value import Kind, Value

OPSET = 18
"""The oldest operator set with all operators of the graphs."""
IR_VERSION = 10
"""The IR version of the files, which onnxruntime 1.18 and later read."""

_SHARED = 64  # bytes of the largest constants that are stored once


class Builder:
    """Collect the nodes, constants, inputs and outputs of a graph.

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
        """Add an input; names in its shape are dynamic."""
        self._inputs.append(_info(name, kind, shape))
        return Value(self, name, kind)

    def output(self, name: str, value: Value, shape: Sequence[int | str | None]) -> None:
        """Add an output."""
        self._nodes[0].append(helper.make_node("Identity", [value.name], [name], name=self._name("Identity")))
        self._outputs.append(_info(name, value.kind, shape))

    def constant(self, value: ArrayLike, kind: Kind) -> Value:
        """Add a constant; small equal constants are stored once."""
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
        """Add a node with one output, of the type of its first input unless ``kind`` is given."""
        return self.ops(op, *inputs, kinds=(inputs[0].kind if kind is None else kind,), **attributes)[0]

    def ops(self, op: str, *inputs: Value, kinds: Sequence[Kind], **attributes: Any) -> list[Value]:
        """Add a node with one output per type in ``kinds``."""
        outputs = [Value(self, self._name(op), kind) for kind in kinds]
        names = [value.name for value in inputs]
        made = helper.make_node(op, names, [v.name for v in outputs], name=self._name(op), **attributes)
        self._nodes[-1].append(made)
        return outputs

    def concat(self, values: Sequence[Value], axis: int = 0) -> Value:
        """Concatenate along an axis."""
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)

    def stack(self, values: Sequence[Value], axis: int = 0) -> Value:
        """Stack along a new axis."""
        return self.concat([value.unsqueeze(axis) for value in values], axis)

    def where(self, condition: Value, yes: Value, no: Value) -> Value:
        """Select ``yes`` where the condition is true, else ``no``."""
        return self.op("Where", condition, yes, no, kind=yes.kind)

    def range(self, count: Value) -> Value:
        """Return int64 0, 1, ... count - 1."""
        return self.op("Range", self.constant(0, np.int64), count, self.constant(1, np.int64))

    def sort(self, values: Value, *, descending: bool) -> tuple[Value, Value]:
        """Sort a vector stably; return its elements and their indices."""
        return self.top(values, values.length(), descending=descending)

    def top(self, values: Value, count: Value, *, descending: bool = True) -> tuple[Value, Value]:
        """Return the ``count`` largest or smallest along the last axis and their indices; ties by index."""
        ordered, index = self.ops(
            "TopK", values, count.reshape(1), kinds=(values.kind, np.int64), largest=int(descending), sorted=1
        )
        return ordered, index

    def positions(self, mask: Value) -> Value:
        """Return the indices, int64 ``[N]``, where a vector of booleans is true."""
        return self.op("NonZero", mask, kind=np.int64).squeeze(0)

    def scattered(self, count: Value, index: Value, values: Value, *, reduction: str = "none") -> Value:
        """Return a vector of ``count`` zeros with ``values`` at positions ``index``."""
        zero = helper.make_tensor("zero", helper.np_dtype_to_tensor_dtype(np.dtype(values.kind)), [1], [0])
        zeros = self.op("ConstantOfShape", count.reshape(1), kind=values.kind, value=zero)
        return self.op("ScatterElements", zeros, index, values, axis=0, reduction=reduction)

    def loop(
        self,
        states: Sequence[Value],
        body: Callable[[Value, list[Value]], tuple[Value | None, list[Value]]],
        trips: Value | None = None,
        sequences: Sequence[bool] = (),
    ) -> list[Value]:
        """Add a loop.

        Args:
            states: the states before the first round.
            body: maps the number of the round and the states to a condition, or None to continue, and new
                states. It is called once to build the graph of the body, and may use values from outside.
            trips: largest number of rounds; unlimited when None.
            sequences: whether each state is a sequence of tensors.

        Returns:
            The states after the last round.
        """
        flags = list(sequences) or [False] * len(states)
        count = Value(self, self._name("round"), np.int64)
        going = Value(self, self._name("going"), np.bool_)
        inner = [Value(self, self._name("state"), state.kind) for state in states]
        self._nodes.append([])
        given_condition, results = body(count, inner)
        condition = going if given_condition is None else given_condition
        ends = self._ends([condition, *results])
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
        no_trips = Value(self, "", np.int64)
        start = self.constant(True, np.bool_)
        kinds = [state.kind for state in states]
        return self.ops("Loop", trips or no_trips, start, *states, kinds=kinds, body=graph)

    def _ends(self, values: Sequence[Value]) -> list[Value]:
        """Return the outputs of a body or branch: each must be that of a node in it, and no other's.

        onnxruntime copies the input of an Identity, so that one is added only where it is needed.
        """
        made = {name for node in self._nodes[-1] for name in node.output}
        ends: list[Value] = []
        for value in values:
            free = value.name in made and all(value.name != end.name for end in ends)
            ends.append(value if free else self.op("Identity", value))
        return ends

    def choose(self, condition: Value, yes: Callable[[], Value], no: Callable[[], Value]) -> Value:
        """Compute one of two values; only the nodes of the chosen one run."""
        branches: list[onnx.GraphProto] = []
        kinds: list[Kind] = []
        for compute in (yes, no):
            self._nodes.append([])
            (end,) = self._ends([compute()])
            info = _info(end.name, end.kind, None)
            branches.append(helper.make_graph(self._nodes.pop(), self._name("branch"), [], [info]))
            kinds.append(end.kind)
        assert kinds[0] is kinds[1]
        return self.op("If", condition, kind=kinds[0], then_branch=branches[0], else_branch=branches[1])

    def call(self, model: onnx.ModelProto, given: Value, kinds: Sequence[Kind]) -> list[Value]:
        """Insert the nodes of a model with one input; its weights are stored once.

        Args:
            model: a model without subgraphs and functions.
            given: the input.
            kinds: the types of the outputs.

        Returns:
            The outputs of the model.
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
        """Return the graph as a model."""
        used = _used(self._nodes[0]) | {info.name for info in self._inputs}
        constants = [tensor for name, tensor in self._constants.items() if name in used]
        graph = helper.make_graph(self._nodes[0], "sppnet", self._inputs, self._outputs, constants)
        domain = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=domain, ir_version=IR_VERSION, producer_name="sppnet")
        helper.set_model_props(model, dict(metadata))
        return model


def _used(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Return the names of the inputs of nodes and of the bodies of loops."""
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
