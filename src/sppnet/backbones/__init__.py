"""Convolutional networks that compute feature maps of images of any size."""

from sppnet.backbones.base import Backbone, LayerInfo
from sppnet.backbones.load import backbone_from_spec, load_backbone
from sppnet.backbones.prepare import prepare

__all__ = ["Backbone", "LayerInfo", "backbone_from_spec", "load_backbone", "prepare"]
