"""Features of images and boxes as numpy arrays, and as a scikit-learn transformer.

Shapes: ``N`` images, ``M`` boxes, ``D`` feature length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast, overload

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from torch import Tensor

from sppnet.backbones import Backbone, load_backbone, prepare
from sppnet.config import DEFAULT_BACKBONE
from sppnet.data import ImageSource, read_image
from sppnet.errors import UserError
from sppnet.features.extract import extract
from sppnet.features.inputs import (
    check_options,
    checked_boxes,
    checked_sources,
    column,
    converted,
    feature_names,
)
from sppnet.features.network import pick_device
from sppnet.features.parallel import staged_iter
from sppnet.features.pool import image_rows, pool_rows
from sppnet.ops.bins import LEVELS, count_bins
from sppnet.structures import FeatureMaps

if TYPE_CHECKING:
    from sppnet.ops.pyramid import Mode

__all__ = ["FeatureExtractor"]


class FeatureExtractor(TransformerMixin, BaseEstimator):
    """Compute feature vectors of fixed length from images, or from boxes on them.

    The network runs once over an image of any size; the whole map or each box is pooled by a spatial
    pyramid (He et al. 2015, section 2.2). The extractor is a stateless scikit-learn transformer and supports
    pipelines, `clone`, `GridSearchCV` and `set_output`. The network is loaded at the first use.

    Args:
        backbone: ``builtin``, ``lite0``, ``lite2``, ``torchvision:NAME``, ``timm:NAME`` or one of the
            paper's networks.
        weights: safetensors file with weights of the backbone; nothing is downloaded then.
        layers: maps to pool, such as ``("stride8", "stride16")``; None for the default of the backbone.
        levels: bins along each side of each level of the pyramid.
        mode: ``"max"`` or ``"mean"``.
        scales: short sides, in pixels, to which the image is resized; 0 for the size of the image. None is
            ``[0]``. The features of an image are concatenated over all scales, ascending, so that ``D``
            grows with their number; a box is pooled at the scale at which its area is nearest to 224 x 224
            (section 4.1).
        long_side: maximum long side after resizing, in pixels; None for no limit.
        normalise: l2-normalise the features of each scale, layer and level; for whole images only.
        dtype: ``"float32"`` or ``"float16"``, dtype of the output.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: seed of the weights of a ``random:`` backbone.

    Attributes:
        n_features_out_: ``D`` of an image.
        n_features_box_: ``D`` of a box.
        network_: the backbone.

    Examples:
        >>> extractor = FeatureExtractor(levels=(2, 1), device="cpu")
        >>> photos = [np.zeros((40, 60, 3), np.uint8), np.zeros((64, 48, 3), np.uint8)]
        >>> extractor.images(photos).shape[0], extractor.boxes(photos[0], [[4, 4, 30, 36]]).dtype
        (2, dtype('float32'))
    """

    def __init__(
        self,
        backbone: str = DEFAULT_BACKBONE,
        *,
        weights: Path | str | None = None,
        layers: Sequence[str] | None = None,
        levels: Sequence[int] = LEVELS,
        mode: Mode = "max",
        scales: Sequence[int] | None = None,
        long_side: int | None = None,
        normalise: bool = False,
        dtype: Literal["float32", "float16"] = "float32",
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.layers = layers
        self.levels = levels
        self.mode: Mode = mode
        self.scales = scales
        self.long_side = long_side
        self.normalise = normalise
        self.dtype = dtype
        self.device = device
        self.seed = seed

    def images(self, sources: Iterable[ImageSource]) -> NDArray[np.floating[Any]]:
        """Compute the features of whole images.

        The features of an image are the same, to the last bit, whatever the other images are.

        Args:
            sources: any iterable of paths, bytes, PIL images, arrays or tensors.

        Returns:
            float32 (or float16) array ``[N, D]``.

        Raises:
            UserError: an option is invalid, or an image cannot be read.

        Examples:
            >>> FeatureExtractor(levels=(1,), device="cpu").images([]).shape[0]
            0
        """
        features = [np.empty((0, self.n_features_out_), self.dtype)]
        features += [vector[None] for vector in self.iter_images(sources)]
        return np.concatenate(features)

    @overload
    def iter_images(
        self, sources: Iterable[ImageSource], errors: Literal["raise"] = "raise"
    ) -> Iterator[NDArray[np.floating[Any]]]: ...

    @overload
    def iter_images(
        self, sources: Iterable[ImageSource], errors: Literal["return"]
    ) -> Iterator[NDArray[np.floating[Any]] | UserError]: ...

    def iter_images(
        self, sources: Iterable[ImageSource], errors: Literal["raise", "return"] = "raise"
    ) -> Iterator[NDArray[np.floating[Any]] | UserError]:
        """Yield the features ``[D]`` of each image, with bounded memory.

        Args:
            sources: any iterable of images; a few per thread are prefetched.
            errors: ``"raise"`` stops at the first image that cannot be read; ``"return"`` yields its
                `UserError` instead of features and continues.

        Raises:
            UserError: an option is invalid, or an image cannot be read.

        Examples:
            >>> stream = FeatureExtractor(levels=(1,), device="cpu").iter_images(["none.jpg"], "return")
            >>> [str(found) for found in stream]
            ['none.jpg: expected an image, got no such file']
        """
        if errors not in ("raise", "return"):
            raise UserError("errors", '"raise" or "return"', repr(errors))

        def read(source: ImageSource) -> Tensor | UserError:
            try:
                return read_image(source)
            except UserError as error:
                return error

        def compute(image: Tensor | UserError) -> NDArray[np.floating[Any]] | UserError:
            try:
                if not isinstance(image, UserError):
                    return self._features(image)
            except UserError as error:
                image = error
            if errors == "raise":
                raise image
            return image

        return staged_iter(read, compute, checked_sources(sources), self.network_.device)

    def image(self, source: ImageSource) -> NDArray[np.floating[Any]]:
        """Compute the features of one whole image, on all threads.

        Args:
            source: the image.

        Returns:
            float32 (or float16) array ``[D]``.

        Raises:
            UserError: an option is invalid, or an image cannot be read.

        Examples:
            >>> photo = np.zeros((40, 60, 3), np.uint8)
            >>> FeatureExtractor(levels=(1,), device="cpu").image(photo).ndim
            1
        """
        return self._features(read_image(source))

    def boxes(
        self, source: ImageSource, boxes: Tensor | NDArray[Any] | Sequence[Sequence[float]]
    ) -> NDArray[np.floating[Any]]:
        """Compute the features of boxes on one image, with one pass of the network.

        A box owns the cells whose centres lie in it, at least the nearest one. It is clipped to the image.

        Args:
            source: the image.
            boxes: ``[M, 4]``, ``(x0, y0, x1, y1)`` in pixels of the image, continuous edges; a tensor, an
                array or a list of any numeric type.

        Returns:
            float32 (or float16) array ``[M, D]``.

        Raises:
            UserError: an option is invalid, the image cannot be read, or a box is empty, not finite or
                outside the image.

        Examples:
            >>> photo = np.zeros((40, 60, 3), np.uint8)
            >>> FeatureExtractor(levels=(1,), device="cpu").boxes(photo, []).shape[0]
            0
        """
        return self._features(read_image(source), boxes)

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Validate the options and load the network; ``X`` and ``y`` are ignored.

        Raises:
            UserError: an option is invalid.
        """
        _ = self.network_
        return self

    def transform(self, X: Iterable[ImageSource]) -> NDArray[np.floating[Any]]:
        """Compute `images` of sources or of a column of paths, ``[N]`` or ``[N, 1]``, as in a data frame."""
        return self.images(column(X))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Return names of the ``D`` features: ``LAYER:[SCALE:]LEVELxLEVEL:cCHANNEL:ROW,COLUMN``.

        Examples:
            >>> FeatureExtractor(layers=("stride8",), levels=(1,), device="cpu").get_feature_names_out()[0]
            'blocks.2:1x1:c0:0,0'
        """
        return feature_names(self.network_.layers, self.levels, self._scales())

    @property
    def network_(self) -> Backbone:
        """The network on its device; reloaded if an option that it depends on has changed."""
        check_options(self.levels, self.mode, self.scales, self.long_side, self.dtype)
        layers = None if self.layers is None else tuple(self.layers)
        key = (self.backbone, self.weights, layers, self.device, self.seed)
        loaded: tuple[object, Backbone] | None = getattr(self, "_loaded", None)
        if loaded is None or loaded[0] != key:
            device = pick_device(self.device)
            loaded = key, prepare(load_backbone(self.backbone, self.weights, layers, self.seed), device)
            self._loaded = loaded
        return loaded[1]

    @property
    def n_features_out_(self) -> int:
        """``D``: channels of all layers, times bins of all levels, times scales."""
        return len(self._scales()) * self.n_features_box_

    @property
    def n_features_box_(self) -> int:
        """``D`` of a box: channels of all layers, times bins of all levels."""
        channels = sum(info.channels for info in self.network_.layers)
        return channels * count_bins(self.levels)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = True
        tags.input_tags.two_d_array = False
        return tags

    def __getstate__(self) -> dict[str, Any]:
        # The network is reloaded on demand, so that a pickled copy for another process is small.
        state = dict(cast("dict[str, Any]", super().__getstate__()))
        state.pop("_loaded", None)
        return state

    def _features(self, image: Tensor, boxes: Any = None) -> NDArray[np.floating[Any]]:
        """Compute the features of an image ``[3, H, W]`` as ``[D]``, or of boxes on it as ``[M, D]``."""
        maps = self._maps(self.network_, image)
        if boxes is None:
            features = image_rows(maps, self.levels, self.mode, normalise=self.normalise).flatten()
        else:
            features = pool_rows(maps, checked_boxes(boxes, maps), self.levels, self.mode)
        return converted(features.cpu().numpy(), self.dtype)

    def _maps(self, network: Backbone, image: Tensor) -> FeatureMaps:
        scales = self._scales()
        parts = [
            extract(network, image, (scale,) if scale else None, long_side=self.long_side) for scale in scales
        ]
        return FeatureMaps(tuple(one for part in parts for one in part.maps))

    def _scales(self) -> list[int]:
        return [0] if self.scales is None else sorted(set(self.scales))
