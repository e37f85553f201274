"""Hand-made .lut files for tests: every field is the test's to break."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import xxhash

NAMES = {
    "float32": "f32",
    "float64": "f64",
    "int64": "i64",
    "int32": "i32",
    "int8": "i8",
    "uint8": "u8",
    "bool": "bool",
}
SAFETENSORS = {dtype: name.upper() for dtype, name in NAMES.items()}


def stamp(image: bytes) -> bytes:
    """The file with its hash made right."""
    blank = image[:38] + b"0" * 16 + image[54:]
    return image[:38] + f"{xxhash.xxh64_intdigest(blank):016x}".encode() + image[54:]


def assemble(header: str | bytes, data: bytes, *, length: int | None = None) -> bytes:
    """A file from its header's JSON text and its data, padded and hashed."""
    text = header.encode() if isinstance(header, str) else header
    text += b" " * (-(8 + len(text)) % 64)
    return stamp((len(text) if length is None else length).to_bytes(8, "little") + text + data)


class Tiny:
    """The parts of a .lut: change `plan`, `header` (the tensors' entries) or `data`, then ask for `bytes()`."""

    def __init__(self, plan: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        self.plan = copy.deepcopy(plan)
        self.version = "1"
        self.header: dict[str, Any] = {}
        self.data = b""
        for name, array in tensors.items():
            if gap := -len(self.data) % 64:
                self.entry(f"_pad.{len(self.data)}", "U8", [gap], bytes(gap))
            self.entry(name, SAFETENSORS[array.dtype.name], list(array.shape), array.tobytes())

    def entry(self, name: str, dtype: str, shape: list[int], data: bytes) -> None:
        """Appends a tensor as it is told, right or wrong."""
        offsets = [len(self.data), len(self.data) + len(data)]
        self.header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        self.data += data

    def header_text(self) -> str:
        """The header's JSON."""
        metadata = {"lutc.hash": "0" * 16, "lutc.format": self.version, "lutc.plan": json.dumps(self.plan)}
        return json.dumps({"__metadata__": metadata, **self.header}, separators=(",", ":"))

    def bytes(self) -> bytes:
        """The file."""
        return assemble(self.header_text(), self.data)


def linear_model(weight: np.ndarray | None = None) -> Tiny:
    """y [batch, 4] = relu(x [batch, 3] @ w), every value named by its index: x 0, w 1, product 2, y 3."""
    w = np.arange(12, dtype=np.float32).reshape(3, 4) - 5 if weight is None else weight
    plan = {
        "inputs": [{"name": "x", "value": 0, "dtype": "f32", "shape": ["batch", 3]}],
        "outputs": [{"name": "y", "value": 3, "dtype": "f32", "shape": ["batch", 4]}],
        "values": [
            {"dtype": "f32"},
            {"dtype": "f32", "tensor": "w", "shape": [3, 4]},
            {"dtype": "f32"},
            {"dtype": "f32"},
        ],
        "steps": [
            {"op": "mat_mul", "name": "product", "inputs": [0, 1], "outputs": [2]},
            {"op": "relu", "name": "positive", "inputs": [2], "outputs": [3]},
        ],
    }
    return Tiny(plan, {"w": w})


LOOKUP_ATTRS: dict[str, Any] = {
    "gain_limit": 63,
    "codebooks": 2,
    "entries": 4,
    "outputs": 8,
    "layout": "ckn",
    "activation": "none",
}


def lookup_model(**replaced: np.ndarray) -> Tiny:
    """y [batch, 8] = a lookup layer over x [batch, 4], 2 codebooks of 4 directions; arrays replace its parts."""
    tensors = {
        "offset": np.zeros(4, np.float32),
        "inv_scale": np.full(4, 20, np.float32),
        "groups": np.array([[0, 1], [2, 3]], np.int32),
        "directions": np.array([[[100, 0], [0, 100], [70, 70], [70, -70]]] * 2, np.int8),
        "code_bias": np.zeros((2, 4), np.int32),
        "gain_mul": np.full(2, 0.005, np.float32),
        "table": (np.arange(64).reshape(2, 4, 8) * 37 % 255 - 127).astype(np.int8),
        "scale": np.full(8, 0.01, np.float32),
        "bias": np.full(8, 0.5, np.float32),
    } | replaced
    values: list[dict[str, Any]] = [{"dtype": "f32"}, {"dtype": "u8"}, {"dtype": "f32"}]
    values += [{"dtype": NAMES[a.dtype.name], "tensor": n, "shape": list(a.shape)} for n, a in tensors.items()]
    plan = {
        "inputs": [{"name": "x", "value": 0, "dtype": "f32", "shape": ["batch", 4]}],
        "outputs": [{"name": "y", "value": 2, "dtype": "f32", "shape": ["batch", 8]}],
        "values": values,
        "steps": [
            {
                "op": "lut_encode",
                "name": "encode",
                "inputs": [0, *range(3, 9)],
                "outputs": [1],
                "attrs": {"gain_limit": 63, "axis": -1},
            },
            {
                "op": "lut_linear",
                "name": "lookup",
                "inputs": [1, 9, 10, 11],
                "outputs": [2],
                "attrs": dict(LOOKUP_ATTRS),
            },
        ],
    }
    return Tiny(plan, tensors)
