"""`--shape`: the model's inputs get the shapes the user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from lutc.errors import UsageError
from lutc.passes.base import GraphPass


class SetInputShapes(GraphPass):
    """Needs: nothing. Guarantees: the named inputs have the given shapes; shapes of other values are forgotten.

    A symbolic dimension may become an integer or another name, everywhere it appears in the inputs; an integer
    must stay what it is.

    Raises:
        UsageError: no such input, another rank, or another size than the model fixes.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int | str]]) -> None:
        self._wanted = shapes

    def rewrite(self, model: ir.Model) -> bool:
        """Substitutes, then clears what inference has to find anew."""
        if not self._wanted:
            return False
        inputs = {value.name: value for value in model.graph.inputs}
        renamed: dict[str, int | str] = {}
        for name, wanted in self._wanted.items():
            if name not in inputs:
                raise UsageError(f"--shape {name}: the model has no such input; it has {', '.join(map(str, inputs))}")
            old = inputs[name].shape
            if old is None:
                inputs[name].shape = ir.Shape(wanted)
                continue
            if len(old) != len(wanted):
                raise UsageError(f"--shape {name}: the model's input has rank {len(old)}, not {len(wanted)}")
            for axis, (was, new) in enumerate(zip(old, wanted, strict=True)):
                if isinstance(was, int):
                    if was != new:
                        raise UsageError(f"--shape {name}: axis {axis} is {was} in the model, it cannot be {new}")
                elif was.value is not None and renamed.setdefault(str(was.value), new) != new:
                    raise UsageError(f"--shape {name}: dimension {was.value!r} is given two sizes")
            inputs[name].shape = ir.Shape(wanted)
        for value in model.graph.inputs:
            value.shape = _substitute(value.shape, renamed)
        for node in model.graph:
            for value in node.outputs:
                value.shape = _substitute(value.shape, renamed) if value.is_graph_output() else None
        return True


def _substitute(shape: ir.Shape | None, renamed: Mapping[str, int | str]) -> ir.Shape | None:
    if shape is None:
        return None
    return ir.Shape([d if isinstance(d, int) else renamed.get(str(d.value), d.value) for d in shape])
