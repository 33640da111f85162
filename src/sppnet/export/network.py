"""Export a backbone to an ONNX model in float32, float16 or int8."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from torch import Tensor, nn

from sppnet.backbones import Backbone, prepare
from sppnet.errors import MissingExtraError, UserError
from sppnet.export.graph import IR_VERSION, OPSET

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")

_SIDES = (97, 131)  # sides of the traced image: odd and unequal, so that no size becomes a constant


class _Trunk(nn.Module):
    """The trunk of a backbone in a given precision, with float32 maps."""

    def __init__(self, trunk: nn.Module, precision: torch.dtype) -> None:
        super().__init__()
        self.trunk = trunk.to(precision)
        self.precision = precision

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(maps.float() for maps in self.trunk(images.to(self.precision)))


def export_network(
    backbone: Backbone, precision: Precision = "float32", images: Iterable[Tensor] = ()
) -> onnx.ModelProto:
    """Convert the trunk of a backbone: normalised ``[1, 3, H, W]`` to float32 maps, H and W dynamic.

    Args:
        backbone: the backbone; batch normalisations are folded into its convolutions.
        precision: precision of weights and activations.
        images: normalised images ``[1, 3, H, W]``, whose activations set the ranges of ``int8``.

    Returns:
        The model.

    Raises:
        UserError: the precision is unknown, or int8 has no images.
        MissingExtraError: onnxscript is not installed.
    """
    if precision not in PRECISIONS:
        raise UserError("precision", ", ".join(PRECISIONS), repr(precision))
    plain = prepare(backbone, "cpu", "float32")
    dtype = torch.float16 if precision == "float16" else torch.float32
    sides = [max(s, m) for s, m in zip(_SIDES, (plain.minimum.height, plain.minimum.width), strict=True)]
    sides = [-(-side // plain.multiple) * plain.multiple for side in sides]
    if sides[0] == sides[1]:
        sides[1] += plain.multiple
    image = torch.zeros(1, 3, *sides)
    model = _convert(_Trunk(plain.trunk, dtype), image)
    return _quantised(model, images) if precision == "int8" else model


def _convert(trunk: nn.Module, image: Tensor) -> onnx.ModelProto:
    dynamic = torch.export.Dim.DYNAMIC
    try:
        with _quiet():
            program = torch.onnx.export(
                trunk.eval(),
                (image,),
                dynamo=True,
                dynamic_shapes=({2: dynamic, 3: dynamic},),
                opset_version=OPSET,
                input_names=["images"],
                verbose=False,
            )
    except ImportError as error:
        raise MissingExtraError("onnxscript", "export", "export to ONNX") from error
    assert program is not None
    model = program.model_proto
    assert not model.functions
    model.ir_version = IR_VERSION
    return model


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Suppress the messages of the exporter on optional packages and deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _quantised(model: onnx.ModelProto, images: Iterable[Tensor]) -> onnx.ModelProto:
    """Quantise weights and activations of convolutions to 8 bits with onnxruntime."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(images)
            self.count = 0

        def get_next(self) -> Any:  # the annotation of the base class lacks None, which ends the data
            image = next(self.images, None)
            if image is None:
                return None
            self.count += 1
            return {"images": image.numpy()}

    reader = Reader()
    with tempfile.TemporaryDirectory() as folder, _silent_root():
        source, ready, target = (Path(folder, f"{name}.onnx") for name in ("float", "ready", "int8"))
        onnx.save(model, source)
        quant_pre_process(source, ready, skip_symbolic_shape=True)
        try:
            quantize_static(
                ready,
                target,
                reader,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                # Without it, products of 8-bit numbers overflow 16 bits on processors without VNNI.
                reduce_range=True,
            )
        except ValueError as error:
            if reader.count:
                raise
            raise UserError("calibration", "images for int8", "none", "Pass some training images.") from error
        quantised = onnx.load(target)
    quantised.ir_version = IR_VERSION
    return quantised


@contextlib.contextmanager
def _silent_root() -> Generator[None]:
    """Suppress the advice of the root logger on preprocessing, which has been done."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
