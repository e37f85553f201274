"""The cost model: seconds of every layer in every form, from measurements of this runtime's own kernels.

model = load("avx512")
found = layer_shapes(canonical, choices, {"input_ids": (1, 128)})
seconds = model.seconds(found.layers["dense"], Form.parse("gain-v4"), constant_bytes=40e6)
"""

from lutc.cost.model import CostModel
from lutc.cost.observe import ModelShapes, layer_shapes
from lutc.cost.shape import LayerShape
from lutc.cost.store import load

__all__ = ["CostModel", "LayerShape", "ModelShapes", "layer_shapes", "load"]
