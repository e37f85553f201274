"""`load_model`: from a path, bytes, ModelProto or onnx-ir Model to a checked onnx-ir Model in float32."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx_ir.passes import common

from lutc.errors import UnsupportedModelError, UsageError
from lutc.ir.isolated import MAX_BYTES, run_worker, without_weights
from lutc.load.external import ExternalFiles
from lutc.load.structure import attribute_tensors, check_structure, tensors
from lutc.passes.to_float32 import ToFloat32

MAX_FILE_BYTES = (1 << 31) - 1  # protobuf's own limit
_SUB_BYTE = {ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.FLOAT4E2M1}


def load_model(source: str | os.PathLike[str] | onnx.ModelProto | bytes | ir.Model) -> ir.Model:
    """Reads and checks an ONNX model.

    Everything is checked within seconds: the file, its structure, its external data, and, in a child process that may
    crash without harm, onnx's own checker and shape inference. float16 and bfloat16 models become float32. Large
    external tensors stay mapped files.

    Args:
        source: A file, its bytes, a ModelProto, or an onnx-ir Model. Only a file may have external data.

    Raises:
        UsageError: there is no such file, or it cannot be read.
        UnsupportedModelError: not an ONNX model, damaged, malformed, or with unsafe or missing external data.
    """
    if isinstance(source, ir.Model):
        source = ir.to_proto(source)
    if isinstance(source, onnx.ModelProto):
        proto, folder, label = source, None, "the model"
    elif isinstance(source, bytes):
        proto, folder, label = _parse(source, "the given bytes"), None, "the model"
    else:
        path = Path(source)
        proto, folder, label = _parse(_read(path), str(path)), path.parent, str(path)
    check_structure(proto)
    external = _take_external(proto, folder)
    try:
        model = ir.from_proto(proto)
    except Exception as error:
        raise UnsupportedModelError(f"{label}: {_innermost(error)}") from error
    _attach(model, external)
    common.TopologicalSortPass()(model)
    common.RemoveInitializersFromInputsPass()(model)  # before IR version 4 every weight was an input as well
    model.ir_version = max(model.ir_version, 4)
    data = without_weights(model)
    if len(data) <= MAX_BYTES:
        run_worker("check", data)
    return ToFloat32()(model).model


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise UsageError(f"{str(path)!r} is a folder; name the .onnx file")
        if size > MAX_FILE_BYTES:
            raise UnsupportedModelError(f"{str(path)!r} is over 2 GiB; save its weights as external data")
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"there is no file {str(path)!r}") from None
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r}: {error.strerror}") from None


def _parse(data: bytes, label: str) -> onnx.ModelProto:
    if not data:
        raise UnsupportedModelError(f"{label} is empty; it is no ONNX model")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError, UnicodeDecodeError):
        raise UnsupportedModelError(f"{label} is no ONNX model: it is damaged, truncated or another format") from None
    return model


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def _take_external(proto: onnx.ModelProto, folder: Path | None) -> dict[int, np.ndarray]:
    """Maps every external tensor. Initialisers are returned by position of `tensors`, others are filled in."""
    files = ExternalFiles(folder) if folder is not None else None
    found: dict[int, np.ndarray] = {}
    everything = list(tensors(proto.graph))
    everything += [pair for f in proto.functions for node in f.node for pair in attribute_tensors(node)]
    for position, (tensor, initialiser) in enumerate(everything):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if len(entries) != len(tensor.external_data):
            raise UnsupportedModelError(f"external data of tensor {tensor.name!r}: a key is given twice")
        if files is None:
            raise UnsupportedModelError(
                f"tensor {tensor.name!r} lies in the file {entries.get('location', '?')!r}, but the model was not "
                "loaded from a file; pass its path"
            )
        kind = ir.DataType(tensor.data_type)
        if kind in _SUB_BYTE or kind == ir.DataType.STRING:
            raise UnsupportedModelError(f"tensor {tensor.name!r}: external data of type {kind.name} is not supported")
        data = files.array(tensor.name, entries, np.dtype(kind.numpy()).newbyteorder("<"), tuple(tensor.dims))
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT
        if initialiser and data.size:
            found[position] = data
            tensor.metadata_props.add(key="lutc.external", value=str(position))
        else:
            tensor.raw_data = data.tobytes()
    return found


def _attach(model: ir.Model, external: dict[int, np.ndarray]) -> None:
    """Gives the mapped arrays to the initialisers they belong to, in every subgraph."""
    if not external:
        return
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            tensor = value.const_value
            key = tensor.metadata_props.get("lutc.external") if isinstance(tensor, ir.serde.TensorProtoTensor) else None
            if tensor is not None and key is not None:
                value.const_value = ir.Tensor(external[int(key)], dtype=tensor.dtype, name=value.name)
