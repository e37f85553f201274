"""Symbolic shapes: which dimensions of a graph are equal, proved rather than assumed.

ONNX's shape inference gives every dimension that it cannot compute a fresh name, so it cannot say that the two
operands of an attention have the same batch. This analysis follows shape arithmetic (Shape, Gather, Concat, Mul ...)
through the graph. A dimension is a `Term`: an integer times a product of symbols. Symbols are the model's named
dimensions and, for anything not understood, a fresh name per value and axis; equal terms are equal sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx_ir as ir

from lutc.ir.graph import array, attribute, ints, is_op

Term = tuple[int, tuple[str, ...]]
Dims = tuple[Term, ...]
MAX_ELEMENTS = 64  # shape vectors are short; longer integer tensors are data

ONE: Term = (1, ())


def number(term: Term) -> int | None:
    """The integer a term is, or None when it has symbols."""
    return term[0] if not term[1] else None


def product(terms: Sequence[Term]) -> Term:
    """The product of terms; zero absorbs."""
    coefficient = math.prod(term[0] for term in terms)
    symbols = tuple(sorted(name for term in terms for name in term[1])) if coefficient else ()
    return coefficient, symbols


def quotient(a: Term, b: Term) -> Term | None:
    """A / b when it is exact for every value of the symbols, else None."""
    if b[0] == 0 or a[0] % b[0]:
        return None
    left = list(a[1])
    for name in b[1]:
        if name not in left:
            return None
        left.remove(name)
    return a[0] // b[0], tuple(left)


def _atom(text: str) -> Term:
    return 1, (text,)


def show(term: Term) -> str:
    """A term as text: "2*batch*sequence"."""
    factors = [str(term[0])] * (term[0] != 1 or not term[1]) + list(term[1])
    return "*".join(factors)


def broadcast(a: Term, b: Term) -> Term | None:
    """The broadcast of two dimensions, or None when it is not known which one decides."""
    if b in (a, ONE):
        return a
    if a == ONE:
        return b
    for x, y in ((a, b), (b, a)):
        if number(x) is not None:
            return x  # an integer above 1: the other must be equal or 1
        # min(k, n) against n: equal, or min(k, n) = 1 = n for any k above 1
        if len(y[1]) == 1 and y[0] == 1 and y[1][0].startswith("min(") and y[1][0].endswith(f",{show(x)})"):
            return x
    return None


class SymbolicShapes:
    """Dimensions and small integer contents of every value of a graph, computed on construction.

    `dims(value)` is a tuple of terms, or None when the rank is unknown; `content(value)` is the list of terms a
    0-d or 1-d integer (or computed boolean: 0 and 1) value holds, or None.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._dims: dict[ir.Value, Dims] = {}
        self._content: dict[ir.Value, list[Term]] = {}
        for value in graph.inputs:
            self._declare(value, trust_names=True)
        for node in graph:
            for value, dims in self._infer(node):
                self._dims[value] = dims
            content = self._evaluate(node)
            if content is not None and len(content) <= MAX_ELEMENTS:
                self._content[node.outputs[0]] = content

    def dims(self, value: ir.Value | None) -> Dims | None:
        """The dimensions of a value, None when its rank is unknown."""
        if value is None:
            return None
        if value not in self._dims:
            if value.const_value is not None and not value.is_graph_input():
                self._dims[value] = tuple((int(d), ()) for d in value.const_value.shape.numpy())
            else:
                self._declare(value, trust_names=False)
        return self._dims.get(value)

    def content(self, value: ir.Value | None) -> list[Term] | None:
        """The integers a 0-d or 1-d value holds, as terms."""
        if value is None:
            return None
        if value not in self._content:
            data = array(value) if value.const_value is not None and value.const_value.size <= MAX_ELEMENTS else None
            if data is None or data.dtype.kind not in "iu" or data.ndim > 1:
                return None
            self._content[value] = [(int(x), ()) for x in data.reshape(-1)]
        return self._content[value]

    def _declare(self, value: ir.Value, trust_names: bool) -> None:
        if value.shape is None:
            return
        self._dims[value] = tuple(
            (d, ()) if isinstance(d, int)
            else _atom(str(d.value)) if trust_names and d.value
            else _atom(f"{value.name}[{axis}]")
            for axis, d in enumerate(value.shape)
        )  # fmt: skip

    def _infer(self, node: ir.Node) -> list[tuple[ir.Value, Dims]]:
        rule = _RULES.get(node.op_type) if is_op(node, node.op_type) or node.domain == "ai.lutc" else None
        dims = rule(self, node) if rule is not None else None
        result = []
        for position, value in enumerate(node.outputs):
            known = dims if position == 0 or node.op_type == "Split" else None
            if known is None:
                self._declare(value, trust_names=False)
                continue
            if node.op_type == "Split":
                known = self._split(node, position)
                if known is None:
                    self._declare(value, trust_names=False)
                    continue
            # Keep an integer that ONNX's inference found where this analysis has only a symbol.
            if value.shape is not None and len(value.shape) == len(known):
                known = tuple(
                    (d, ()) if isinstance(d, int) and number(k) is None else k
                    for d, k in zip(value.shape, known, strict=True)
                )
            result.append((value, known))
        return result

    def _split(self, node: ir.Node, position: int) -> Dims | None:
        dims, sizes = self.dims(node.inputs[0]), ints(node.inputs[1]) if len(node.inputs) > 1 else None
        if dims is None:
            return None
        axis = attribute(node, "axis", 0) % len(dims)
        total = number(dims[axis])
        if sizes is None and total is not None and total % len(node.outputs) == 0:
            sizes = [total // len(node.outputs)] * len(node.outputs)
        if sizes is None or position >= len(sizes):
            return None
        return (*dims[:axis], (sizes[position], ()), *dims[axis + 1 :])

    # Shape rules: each returns the dimensions of output 0, or None.

    def _same(self, node: ir.Node) -> Dims | None:
        return self.dims(node.inputs[0])

    def _broadcast(self, node: ir.Node) -> Dims | None:
        return self._broadcast_dims([self.dims(value) for value in node.inputs], node.outputs[0].name or "")

    def _broadcast_dims(self, all_dims: Sequence[Dims | None], name: str) -> Dims | None:
        out: list[Term] = []
        for dims in all_dims:
            if dims is None:
                return None
            width = max(len(out), len(dims))
            left = [ONE] * (width - len(out)) + out
            right = [ONE] * (width - len(dims)) + list(dims)
            out = []
            for axis, (a, b) in enumerate(zip(left, right, strict=True)):
                out.append(broadcast(a, b) or _atom(f"{name}[{axis}]"))
        return tuple(out)

    def _matmul(self, node: ir.Node) -> Dims | None:
        a, b = self.dims(node.inputs[0]), self.dims(node.inputs[1])
        if a is None or b is None or len(a) < 2 or len(b) < 2:
            return None
        lead = self._broadcast_dims([a[:-2], b[:-2]], node.outputs[0].name or "")
        return None if lead is None else (*lead, a[-2], b[-1])

    def _linear(self, node: ir.Node) -> Dims | None:
        x, weight = self.dims(node.inputs[0]), self.dims(node.inputs[1])
        return None if x is None or weight is None else (*x[:-1], weight[1])

    def _attention(self, node: ir.Node) -> Dims | None:
        q, v = self.dims(node.inputs[0]), self.dims(node.inputs[2])
        if q is None or v is None:
            return None
        groups = node.attributes["num_heads"].as_int() // node.attributes["kv_num_heads"].as_int()
        return q[0], q[1], product([v[2], (groups, ())])

    def _gather(self, node: ir.Node) -> Dims | None:
        data, indices = self.dims(node.inputs[0]), self.dims(node.inputs[1])
        if data is None or indices is None:
            return None
        axis = attribute(node, "axis", 0) % len(data)
        return (*data[:axis], *indices, *data[axis + 1 :])

    def _gather_elements(self, node: ir.Node) -> Dims | None:
        return self.dims(node.inputs[1])

    def _gather_nd(self, node: ir.Node) -> Dims | None:
        data, indices = self.dims(node.inputs[0]), self.dims(node.inputs[1])
        depth = number(indices[-1]) if indices else None
        if data is None or indices is None or depth is None:
            return None
        return (*indices[:-1], *data[attribute(node, "batch_dims", 0) + depth :])

    def _transpose(self, node: ir.Node) -> Dims | None:
        dims = self.dims(node.inputs[0])
        if dims is None:
            return None
        perm = attribute(node, "perm", tuple(reversed(range(len(dims)))))
        return tuple(dims[axis] for axis in perm)

    def _reshape(self, node: ir.Node) -> Dims | None:
        dims, target = self.dims(node.inputs[0]), self.content(node.inputs[1])
        if dims is None or target is None:
            return None
        if not attribute(node, "allowzero", 0):
            if any(t == (0, ()) and axis >= len(dims) for axis, t in enumerate(target)):
                return None
            target = [dims[axis] if t == (0, ()) else t for axis, t in enumerate(target)]
        if (-1, ()) in target:
            rest = quotient(product(dims), product([t for t in target if t != (-1, ())]))
            rest = rest or _atom(f"{node.outputs[0].name}[-1]")
            target = [rest if t == (-1, ()) else t for t in target]
        return tuple(target)

    def _expand(self, node: ir.Node) -> Dims | None:
        target = self.content(node.inputs[1])
        if target is None:
            return None
        return self._broadcast_dims([self.dims(node.inputs[0]), tuple(target)], node.outputs[0].name or "")

    def _unsqueeze(self, node: ir.Node) -> Dims | None:
        dims, axes = self.dims(node.inputs[0]), ints(node.inputs[1])
        if dims is None or axes is None:
            return None
        width = len(dims) + len(axes)
        new = {axis % width for axis in axes}
        rest = iter(dims)
        return tuple(ONE if axis in new else next(rest) for axis in range(width))

    def _squeeze(self, node: ir.Node) -> Dims | None:
        dims, axes = self.dims(node.inputs[0]), ints(node.inputs[1]) if len(node.inputs) > 1 else None
        if dims is None or axes is None:
            return None
        gone = {axis % len(dims) for axis in axes}
        return tuple(d for axis, d in enumerate(dims) if axis not in gone)

    def _reduce(self, node: ir.Node) -> Dims | None:
        dims = self.dims(node.inputs[0])
        if dims is None:
            return None
        if is_op(node, "ArgMax", "ArgMin"):
            axes: list[int] | None = [attribute(node, "axis", 0)]
        elif len(node.inputs) > 1 and node.inputs[1] is not None:
            axes = ints(node.inputs[1])
        else:
            axes = [] if attribute(node, "noop_with_empty_axes", 0) else list(range(len(dims)))
        if axes is None:
            return None
        gone = {axis % len(dims) for axis in axes}
        if attribute(node, "keepdims", 1):
            return tuple(ONE if axis in gone else d for axis, d in enumerate(dims))
        return tuple(d for axis, d in enumerate(dims) if axis not in gone)

    def _concat(self, node: ir.Node) -> Dims | None:
        all_dims = [self.dims(value) for value in node.inputs]
        if any(dims is None for dims in all_dims):
            return None
        known = [dims for dims in all_dims if dims is not None]
        axis = attribute(node, "axis") % len(known[0])
        sizes = [number(dims[axis]) for dims in known]
        total = _atom(f"{node.outputs[0].name}[{axis}]")
        if all(size is not None for size in sizes):
            total = (sum(size for size in sizes if size is not None), ())
        return (*known[0][:axis], total, *known[0][axis + 1 :])

    def _slice(self, node: ir.Node) -> Dims | None:
        dims = self.dims(node.inputs[0])
        starts, ends = self.content(node.inputs[1]), self.content(node.inputs[2])
        if dims is None or starts is None or ends is None:
            return None
        axes = ints(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else range(len(starts))
        steps = ints(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else [1] * len(starts)
        if axes is None or steps is None:
            return None
        out = list(dims)
        for start, end, given, step in zip(starts, ends, axes, steps, strict=True):
            axis = given % len(dims)
            size, first, last = number(dims[axis]), number(start), number(end)
            if size is not None and first is not None and last is not None:
                out[axis] = (len(range(*slice(first, last, step).indices(size))), ())
            elif first == 0 and step == 1 and last is None and size is not None:
                out[axis] = _atom(f"min({size},{show(end)})")
            elif first != 0 or step != 1 or not (end == dims[axis] or (last or 0) >= 2**31 - 1):
                out[axis] = _atom(f"{node.outputs[0].name}[{axis}]")
        return tuple(out)

    def _pad(self, node: ir.Node) -> Dims | None:
        """An axis without padding keeps its size, any other one is known only where the size is an integer."""
        dims, amounts = self.dims(node.inputs[0]), ints(node.inputs[1])
        given = node.inputs[3] if len(node.inputs) > 3 else None
        axes = ints(given) if given is not None else list(range(len(dims or ())))
        if dims is None or amounts is None or axes is None or len(amounts) != 2 * len(axes):
            return None
        out = list(dims)
        for position, given_axis in enumerate(axes):
            axis, begin, end = given_axis % len(dims), amounts[position], amounts[len(axes) + position]
            size = number(dims[axis])
            if size is not None:
                out[axis] = (size + begin + end, ())
            elif begin or end:
                out[axis] = _atom(f"{node.outputs[0].name}[{axis}]")
        return tuple(out)

    def _range(self, node: ir.Node) -> Dims | None:
        start, limit, delta = (self.content(value) for value in node.inputs)
        if start == [(0, ())] and delta == [ONE] and limit is not None and len(limit) == 1:
            return (limit[0],)
        return None

    def _filled(self, node: ir.Node) -> Dims | None:
        target = self.content(node.inputs[0])
        return None if target is None else tuple(target)

    def _flatten(self, node: ir.Node) -> Dims | None:
        dims = self.dims(node.inputs[0])
        if dims is None:
            return None
        axis = attribute(node, "axis", 1)
        axis = axis + len(dims) if axis < 0 else axis
        return product(dims[:axis]), product(dims[axis:])

    def _pooled(self, node: ir.Node) -> Dims | None:
        """Conv and alike: the batch is the input's, the rest is what ONNX's inference found."""
        dims, found = self.dims(node.inputs[0]), node.outputs[0].shape
        if dims is None or found is None or not len(found):
            return None
        name = node.outputs[0].name
        rest = [(d, ()) if isinstance(d, int) else _atom(f"{name}[{i}]") for i, d in enumerate(found)][1:]
        return (dims[0], *rest)  # type: ignore[arg-type]

    # Contents of shape vectors.

    def _evaluate(self, node: ir.Node) -> list[Term] | None:
        if not is_op(node, node.op_type) or len(node.outputs) != 1:
            return None
        if node.op_type == "Shape":
            dims = self.dims(node.inputs[0])
            if dims is None:
                return None
            start, end = attribute(node, "start", 0), attribute(node, "end", None)
            return list(dims[slice(start, end)])
        if node.op_type == "Concat":
            parts = [self.content(value) for value in node.inputs]
            return None if any(p is None for p in parts) else [t for p in parts if p is not None for t in p]
        first = self.content(node.inputs[0]) if node.inputs else None
        if first is None:
            return None
        if node.op_type in ("Unsqueeze", "Squeeze", "Identity", "Reshape", "Flatten"):
            dims = self.dims(node.outputs[0])
            return first if dims is not None and len(dims) <= 1 else None
        if node.op_type == "Cast":
            return first if attribute(node, "to") in (ir.DataType.INT64, ir.DataType.INT32) else None
        if node.op_type == "Gather":
            indices = ints(node.inputs[1])
            if indices is None or any(not -len(first) <= i < len(first) for i in indices):
                return None
            return [first[i] for i in indices]
        if node.op_type == "Slice":
            bounds = [ints(value) for value in node.inputs[1:3]]
            steps = ints(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else [1]
            if bounds[0] is None or bounds[1] is None or not steps or len(bounds[0]) != 1 or steps[0] == 0:
                return None
            return first[slice(bounds[0][0], bounds[1][0], steps[0])]
        if node.op_type == "Where":
            yes, no = self.content(node.inputs[1]), self.content(node.inputs[2])
            if yes is None or no is None or not len(first) == len(yes) == len(no):
                return None
            if any(number(c) is None for c in first):
                return None
            return [a if number(c) else b for c, a, b in zip(first, yes, no, strict=True)]
        if node.op_type in ("Equal", "Mul", "Div", "Add", "Sub", "Min", "Max") and len(node.inputs) == 2:
            second = self.content(node.inputs[1])
            return None if second is None else _arithmetic(node.op_type, first, second)
        return None


def _equal(a: Term, b: Term) -> bool | None:
    """Whether two terms are equal; a product of symbols is a size, hence never negative when its factor is not."""
    if a == b:
        return True
    x, y = number(a), number(b)
    if x is not None and y is not None:
        return False
    if (x is not None and x < 0 and b[0] > 0) or (y is not None and y < 0 and a[0] > 0):
        return False
    return None


def _arithmetic(op: str, first: list[Term], second: list[Term]) -> list[Term] | None:
    if len(first) != len(second) and 1 not in (len(first), len(second)):
        return None
    width = max(len(first), len(second))
    out: list[Term] = []
    for a, b in zip(first * (width // len(first)), second * (width // len(second)), strict=True):
        x, y = number(a), number(b)
        if op == "Equal":
            same = _equal(a, b)
            if same is None:
                return None
            out.append((int(same), ()))
        elif op == "Mul":
            out.append(product([a, b]))
        elif op == "Div" and (exact := quotient(a, b)) is not None:
            out.append(exact)
        elif x is not None and y is not None and (op != "Div" or (y > 0 and x >= 0)):
            out.append(({"Add": x + y, "Sub": x - y, "Min": min(x, y), "Max": max(x, y)}.get(op, x // (y or 1)), ()))
        elif op in ("Add", "Sub") and y == 0:
            out.append(a)
        elif op == "Add" and x == 0:
            out.append(b)
        else:
            out.append(_atom(f"({show(a)} {op} {show(b)})"))
    return out


_Rule = Callable[[SymbolicShapes, ir.Node], "Dims | None"]


def _table() -> dict[str, _Rule]:
    groups: dict[_Rule, str] = {
        SymbolicShapes._same: "Abs Cast Ceil Clip Cos CumSum Dropout Erf Exp Floor Gelu HardSigmoid HardSwish Identity "
        "IsInf IsNaN LayerNormalization LeakyRelu Log LogSoftmax Neg Not RMSNormalization Reciprocal Relu Round "
        "Sigmoid Sign Silu Sin Softmax Softplus Sqrt Tanh BatchNormalization InstanceNormalization Trilu "
        "ScatterElements ScatterND Split Elu Selu Softsign Tan",
        SymbolicShapes._broadcast: "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or "
        "Pow PRelu Sub Sum Where Xor",
        SymbolicShapes._reduce: "ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ArgMax ArgMin",
        SymbolicShapes._pooled: "AveragePool Conv ConvTranspose GlobalAveragePool GlobalMaxPool MaxPool LutConv",
        SymbolicShapes._matmul: "MatMul",
        SymbolicShapes._linear: "Linear",
        SymbolicShapes._attention: "Attention",
        SymbolicShapes._gather: "Gather",
        SymbolicShapes._gather_elements: "GatherElements",
        SymbolicShapes._gather_nd: "GatherND",
        SymbolicShapes._transpose: "Transpose",
        SymbolicShapes._reshape: "Reshape",
        SymbolicShapes._expand: "Expand",
        SymbolicShapes._unsqueeze: "Unsqueeze",
        SymbolicShapes._squeeze: "Squeeze",
        SymbolicShapes._concat: "Concat",
        SymbolicShapes._slice: "Slice",
        SymbolicShapes._pad: "Pad",
        SymbolicShapes._range: "Range",
        SymbolicShapes._filled: "ConstantOfShape",
        SymbolicShapes._flatten: "Flatten",
    }  # fmt: skip
    return {op: rule for rule, names in groups.items() for op in names.split()}


_RULES = _table()
