"""Running a model in pieces, cut at the layers that are being replaced.

Every batch is carried through the network twice: *clean*, as the original computes it, and *compressed*, where the
layers met so far are lookups. Only tensors that a later piece reads are kept, and tensors that no replaced layer has
touched yet are kept once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import onnx

from lutc._ort import ort_session

Tensors = dict[str, npt.NDArray]


def _free_names(node: onnx.NodeProto) -> set[str]:
    """Everything a node reads, captures of its subgraphs included."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
        for graph in graphs:
            inner = {name for child in graph.node for name in _free_names(child)}
            local = {value.name for value in graph.input} | {value.name for value in graph.initializer}
            names |= inner - local - {name for child in graph.node for name in child.output}
    return names


@dataclasses.dataclass
class _Piece:
    """Nodes run by one session: those between two cuts."""

    nodes: list[onnx.NodeProto]
    inputs: list[str]
    outputs: list[str]
    live: set[str]


class CutModel:
    """A model as pieces around its cut nodes.

    Args:
        model: Serialised form of the model.
        cuts: First output of each node to cut at, in any order.
        threads: Of ONNX Runtime.

    Attributes:
        sites: The cut nodes in the order in which they run.
        outputs: Names of the model's outputs.
    """

    def __init__(self, model: onnx.ModelProto, cuts: Iterable[str], threads: int = 1) -> None:
        wanted = set(cuts)
        self._model, self._threads = model, threads
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.outputs = [value.name for value in model.graph.output]
        nodes = _schedule(list(model.graph.node), wanted)
        self.sites = [node for node in nodes if node.output[0] in wanted]
        runs: list[list[onnx.NodeProto]] = [[]]
        for node in nodes:
            if node.output[0] in wanted:
                runs.append([])
            else:
                runs[-1].append(node)
        self._pieces = self._plan(runs)
        self._sessions: dict[int, Any] = {}

    def _plan(self, runs: list[list[onnx.NodeProto]]) -> list[_Piece]:
        needed = set(self.outputs)
        pieces = []
        for index in range(len(runs) - 1, -1, -1):
            if index < len(self.sites):
                # The cut behind this piece: its inputs must survive until then. The shortcut of a residual addition
                # is looked up at the cut as well, and is alive there because the addition comes later.
                needed = (needed - set(self.sites[index].output)) | {name for name in self.sites[index].input if name}
            needed -= set(self._constants)
            made = {name for node in runs[index] for name in node.output if name}
            read = {name for node in runs[index] for name in _free_names(node)}
            inputs = sorted(read - made - set(self._constants))
            pieces.append(_Piece(runs[index], inputs, sorted(made & needed), set(needed)))
            needed = (needed - made) | set(inputs)
        return pieces[::-1]

    def __len__(self) -> int:
        """Number of pieces: one more than cuts."""
        return len(self._pieces)

    def _session(self, index: int, feeds: Mapping[str, npt.NDArray]) -> Any:
        if index not in self._sessions:
            piece = self._pieces[index]
            read = {name for node in piece.nodes for name in _free_names(node)}
            graph = onnx.helper.make_graph(
                piece.nodes,
                "piece",
                [
                    onnx.helper.make_tensor_value_info(
                        name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim
                    )
                    for name, value in feeds.items()
                ],
                [onnx.ValueInfoProto(name=name) for name in piece.outputs],
                [tensor for name, tensor in self._constants.items() if name in read],
            )
            model = onnx.ModelProto(ir_version=self._model.ir_version, graph=graph)
            model.opset_import.extend(self._model.opset_import)
            used = {(node.domain, node.op_type) for node in _with_children(piece.nodes)}
            functions = _closure(self._model.functions, used)
            model.functions.extend(functions)
            self._sessions[index] = ort_session(model.SerializeToString(), threads=self._threads)
        return self._sessions[index]

    def constant(self, name: str) -> npt.NDArray:
        """An initializer's value."""
        return onnx.numpy_helper.to_array(self._constants[name])

    def release(self, index: int) -> None:
        """Forget the session of a piece that will not run again."""
        self._sessions.pop(index, None)

    def run_piece(self, index: int, clean: list[Tensors], compressed: list[Tensors]) -> None:
        """Carry every batch through piece `index`.

        Args:
            index: Of the piece.
            clean: Live tensors of each batch, changed in place.
            compressed: Those that differ from the clean ones, changed in place.
        """
        piece = self._pieces[index]
        for ours, theirs in zip(clean, compressed, strict=True):
            if piece.outputs:
                feeds = {name: ours[name] for name in piece.inputs}
                session = self._session(index, feeds)
                made = dict(zip(piece.outputs, session.run(piece.outputs, feeds), strict=True))
                changed = [name for name in piece.inputs if name in theirs]
                if changed:
                    feeds.update({name: theirs[name] for name in changed})
                    theirs.update(zip(piece.outputs, session.run(piece.outputs, feeds), strict=True))
                ours.update(made)
            for tensors in (ours, theirs):
                for name in [name for name in tensors if name not in piece.live]:
                    del tensors[name]

    def run_clean(self, index: int, tensors: Tensors) -> None:
        """Carry one batch through piece `index`, in place."""
        self.run_piece(index, [tensors], [{}])


def _with_children(nodes: Iterable[onnx.NodeProto]) -> Iterable[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
            for graph in graphs:
                yield from _with_children(graph.node)


def _closure(functions: Sequence[onnx.FunctionProto], used: set[tuple[str, str]]) -> list[onnx.FunctionProto]:
    found: dict[tuple[str, str], onnx.FunctionProto] = {}
    table = {(function.domain, function.name): function for function in functions}
    open_keys = [key for key in used if key in table]
    while open_keys:
        key = open_keys.pop()
        if key not in found:
            found[key] = table[key]
            open_keys += [(n.domain, n.op_type) for n in table[key].node if (n.domain, n.op_type) in table]
    return [function for key, function in table.items() if key in found]


def shortcut(nodes: Sequence[onnx.NodeProto], output: str) -> tuple[str, str] | None:
    """The Add that alone reads `output`: the name of its sum and of its other operand."""
    readers = [node for node in nodes if output in node.input]
    if len(readers) != 1 or readers[0].op_type != "Add" or len(set(readers[0].input)) != 2:
        return None
    other = next(name for name in readers[0].input if name != output)
    return readers[0].output[0], other


def _schedule(nodes: list[onnx.NodeProto], cuts: set[str]) -> list[onnx.NodeProto]:
    """Topological order in which the other operand of a residual addition comes before the cut that feeds it."""
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = [{maker[name] for name in _free_names(node) if name in maker} for node in nodes]
    ancestors: list[set[int]] = []
    for index, before in enumerate(needs):
        ancestors.append(set(before).union(*(ancestors[b] for b in before if b < index)))
    for index, node in enumerate(nodes):
        if node.output[0] not in cuts:
            continue
        found = shortcut(nodes, node.output[0])
        other = maker.get(found[1]) if found else None
        if other is None or other < index or index in ancestors[other]:
            continue
        rival = nodes[other].output[0] in cuts and len(ancestors[other]) > len(ancestors[index])
        if not rival:
            needs[index] = needs[index] | {other}
    order: list[int] = []
    state = [0] * len(nodes)
    for root in range(len(nodes)):
        stack = [root]
        while stack:
            index = stack[-1]
            if state[index] == 2:
                stack.pop()
                continue
            waiting = [before for before in sorted(needs[index], reverse=True) if state[before] != 2]
            if (state[index] == 1 or not waiting) and not waiting:
                state[index] = 2
                order.append(index)
                stack.pop()
                continue
            state[index] = 1
            stack += waiting
    return [nodes[index] for index in order]
