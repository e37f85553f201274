"""Reads what an artifact says of itself: ports, tables' target, the compiler's report; and verifies it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from lutc._runtime import xxh64
from lutc.errors import CorruptFileError, UsageError
from lutc.forms import DENSE_FORMS
from lutc.session import InferenceSession
from lutc.write import FORMAT_VERSION, HASH_DIGITS, HASH_OFFSET

_MAX_HEADER = 256 << 20
_PREFIX = b'{"__metadata__":{"lutc.hash":"'


@dataclasses.dataclass
class Artifact:
    """The header of a `.lut` file.

    Attributes:
        path: the file.
        bytes: its size.
        format: format version.
        producer: who wrote it ("lutc 0.1.0").
        target: ISA that the tables are laid out for.
        hash: XXH64, 16 hex digits, as stored.
        plan: the plan (docs/format.md).
        report: the compiler's report.
        tensor_bytes: stored bytes of every tensor by name, padding left out.
        expanded_bytes: bytes of the tables that a runtime makes from factors when it loads the file (before padding).
    """

    path: str
    bytes: int
    format: int
    producer: str
    target: str
    hash: str
    plan: dict[str, Any]
    report: dict[str, Any]
    tensor_bytes: dict[str, int]
    expanded_bytes: int

    @property
    def layers(self) -> list[dict[str, Any]]:
        """For each linear, convolution or attention: name, op, form, group_sizes, codebooks, rank, bytes, error ..."""
        return self.report.get("layers", [])

    def summary(self) -> dict[str, Any]:
        """What `lutc inspect --json` prints, without the layers."""
        ports = {
            kind: [{key: port[key] for key in ("name", "dtype", "shape")} for port in self.plan[kind]]
            for kind in ("inputs", "outputs")
        }
        return {
            "path": self.path,
            "bytes": self.bytes,
            "format": self.format,
            "producer": self.producer,
            "target": self.target,
            "hash": self.hash,
            **ports,
            "steps": len(self.plan["steps"]),
            "tables_made_at_load": len(self.plan.get("init", [])),
            "expanded_bytes": self.expanded_bytes,
            "lookup_layers": sum(layer.get("form") not in DENSE_FORMS for layer in self.layers),
            "int8_layers": sum(layer.get("form") == "int8" for layer in self.layers),
            "dense_layers": sum(
                layer.get("form") in DENSE_FORMS and layer.get("op") != "attention" for layer in self.layers
            ),
            **{key: value for key, value in self.report.items() if key != "layers"},
        }


def read_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Reads the header of an artifact; the tensors are not touched (`verify` does that).

    Raises:
        UsageError: the file cannot be opened.
        CorruptFileError: not a `.lut`, damaged, or of a newer format version.
    """
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MAX_HEADER):
                raise CorruptFileError(
                    f"'{path}' is not a .lut file, or is truncated (header of {length} bytes in {size})"
                )
            header = file.read(length)
    except OSError as error:
        raise UsageError(f"cannot open '{path}': {error.strerror or error}") from error
    if not header.startswith(_PREFIX):
        raise CorruptFileError(f"'{path}' is not a .lut file; compile one with: lutc compile MODEL.onnx -o OUT.lut")
    try:
        entries = json.loads(header)
        metadata = entries.pop("__metadata__")
        version = int(metadata["lutc.format"])
        if version > FORMAT_VERSION:
            raise CorruptFileError(
                f"'{path}' has format version {version}; this lutc reads up to {FORMAT_VERSION}. Install a newer lutc."
            )
        plan = json.loads(metadata["lutc.plan"])
        return Artifact(
            path=os.fspath(path),
            bytes=size,
            format=version,
            producer=metadata["lutc.producer"],
            target=metadata["lutc.target"],
            hash=header[HASH_OFFSET - 8 : HASH_OFFSET - 8 + HASH_DIGITS].decode(),
            plan=plan,
            report=json.loads(metadata.get("lutc.report", "{}")),
            tensor_bytes={
                name: entry["data_offsets"][1] - entry["data_offsets"][0]
                for name, entry in entries.items()
                if not name.startswith("_pad.")
            },
            expanded_bytes=_expanded_bytes(plan),
        )
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise CorruptFileError(f"'{path}': the header is damaged ({error})") from error


def _expanded_bytes(plan: dict[str, Any]) -> int:
    total = 0
    for step in plan.get("init", []):
        atoms, weight = (plan["values"][value]["shape"] for value in step["inputs"][:2])
        columns = weight[1] if len(weight) == 2 else weight[0] * weight[2] * weight[3]
        total += atoms[0] // step.get("attrs", {}).get("group", 1) * atoms[1] * columns
    return total


def verify(path: str | os.PathLike[str]) -> None:
    """Checks everything the runtime checks on load: hash, sizes, ranges, finiteness, every step.

    Raises:
        UsageError: the file cannot be opened.
        CorruptFileError: what is wrong.
    """
    artifact = read_artifact(path)
    data = bytearray(Path(path).read_bytes())
    data[HASH_OFFSET : HASH_OFFSET + HASH_DIGITS] = b"0" * HASH_DIGITS
    found = f"{xxh64(bytes(data)):016x}"
    if found != artifact.hash:
        raise CorruptFileError(f"'{path}' is damaged: its hash is {found}, the header says {artifact.hash}")
    InferenceSession(path)
