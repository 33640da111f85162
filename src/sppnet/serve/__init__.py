"""HTTP server and web page for a run: predictions, features and feature maps of uploaded images."""

from sppnet.serve.app import create_app
from sppnet.serve.options import ServeOptions
from sppnet.serve.server import serve

__all__ = ["ServeOptions", "create_app", "serve"]
