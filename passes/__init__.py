"""Graph passes: one file a pass, each an onnx-ir pass with its contract."""
