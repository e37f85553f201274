"""Stage 1: an ONNX file, its external data and its graph, checked before any long work."""

from lutc.load.model import load_model
from lutc.load.supported import check_supported

__all__ = ["check_supported", "load_model"]
