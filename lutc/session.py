"""Running compiled models: `InferenceSession` takes the place of ONNX Runtime's in a script that imports it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lutc import _runtime
from lutc.errors import CorruptFileError, LutcError, UnsupportedModelError, UsageError

_ERRORS: dict[str, type[LutcError]] = {
    "invalid_argument": UsageError,
    "io": UsageError,
    "corrupt": CorruptFileError,
    "version": CorruptFileError,
    "unsupported": UnsupportedModelError,
}

_ONNX_TYPES = {
    "f32": "tensor(float)",
    "f64": "tensor(double)",
    "i64": "tensor(int64)",
    "i32": "tensor(int32)",
    "i8": "tensor(int8)",
    "u8": "tensor(uint8)",
    "bool": "tensor(bool)",
}


@dataclasses.dataclass(frozen=True)
class NodeArg:
    """An input or output of a model, as ONNX Runtime describes it.

    Attributes:
        name: its name.
        shape: one entry for each dim: a size, or the name of a symbolic one.
        type: the ONNX type, like "tensor(float)".
    """

    name: str
    shape: list[int | str]
    type: str


def _typed(error: Exception) -> LutcError:
    """The runtime's error as one of `lutc.errors`; raised `from` it, so that it stays visible as the cause."""
    code: str = getattr(error, "code", "internal")
    if code == "out_of_memory":
        return LutcMemoryError(str(error))
    return _ERRORS.get(code, LutcError)(str(error))


class LutcMemoryError(LutcError, MemoryError):
    """A run would need more memory than the session's limit, or than there is."""


class InferenceSession:
    """A compiled model, ready to run. Any number of threads may use one session at once.

    Inputs are read where they lie if they are C-contiguous; the runtime writes outputs directly into numpy arrays,
    fresh ones or the caller's. The interpreter lock is released meanwhile. What depends on the input shapes is worked
    out once and kept for the eight combinations used last; after that, fresh output arrays are all a run allocates.

    A file is mapped, not read: do not write into it while a session uses it (replacing it by renaming another over it
    is fine). The session notices between runs that its file was truncated or changed and raises `CorruptFileError`.
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes,
        sess_options: Any = None,
        providers: Sequence[Any] | None = None,
        provider_options: Sequence[Any] | None = None,
        *,
        threads: int | None = None,
        isa: str | None = None,
        memory_limit: int | None = None,
        map_file: bool = True,
    ) -> None:
        """Loads and verifies an artifact.

        Args:
            path_or_bytes: a `.lut` file, or its bytes.
            sess_options: ONNX Runtime's session options: `intra_op_num_threads` is honoured where `threads` is not
                given, the rest has no meaning here.
            providers: accepted for ONNX Runtime's sake; there is one provider, the CPU.
            provider_options: accepted likewise.
            threads: how many to use at most; None or 0: every CPU that affinity and the cgroup's quota grant this
                process, which is also the most.
            isa: "scalar", "avx2", "avxvnni" or "avx512"; None: what LUTC_ISA names, else the best of this CPU.
            memory_limit: bytes that intermediate results and outputs of one run may take; None: the memory granted to
                the process.
            map_file: False reads the file into private memory instead of mapping it.

        Raises:
            UsageError: no such file, or an argument out of range.
            CorruptFileError: not a `.lut`, damaged, truncated, or of a newer format version.
            UnsupportedModelError: the plan holds what this runtime (or this CPU, for `isa`) cannot execute.
        """
        del providers, provider_options
        if threads is None:
            threads = int(getattr(sess_options, "intra_op_num_threads", 0) or 0)
        if threads < 0:
            raise UsageError(f"threads must be 0 (all) or more, not {threads}")
        limit = 0 if memory_limit is None else memory_limit
        if limit < 0:
            raise UsageError(f"memory_limit must not be negative, and is {limit}")
        # More threads than any machine has mean "all of them".
        options: dict[str, Any] = {
            "threads": min(threads, 1 << 20),
            "isa": isa or "",
            "memory_limit": min(limit, 2**63),
        }
        try:
            if isinstance(path_or_bytes, (bytes, bytearray, memoryview)):
                self._session = _runtime.Session.from_bytes(bytes(path_or_bytes), **options)
            else:
                path = os.fsdecode(path_or_bytes)
                self._session = _runtime.Session(path, map=map_file, **options)
        except _runtime.Error as error:
            raise _typed(error) from error

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: Any = None,
        *,
        outputs: Mapping[str, np.ndarray] | None = None,
    ) -> list[np.ndarray]:
        """Runs the model once.

        Args:
            output_names: outputs to return, in this order; None: all, in the model's order.
            input_feed: one array by input name, of the input's dtype and shape. The same symbolic dim has the same
                size in every input; 0 is a size.
            run_options: accepted for ONNX Runtime's sake, ignored.
            outputs: arrays to write outputs into, by output name: C-contiguous, of the output's dtype and of its shape
                for these inputs, sharing no memory with an input or each other. Outputs without one get a fresh array.

        Returns:
            One array for each output: the one given, or a fresh one.

        Raises:
            UsageError: a name, dtype or shape that does not fit; the message says what does.
            LutcMemoryError: the shapes need more than the memory limit.
            CorruptFileError: the file was changed under the session.
        """
        del run_options
        # Not a context manager: it would take a microsecond, and models that listen for a word take five. Dicts are
        # copied: another thread may change the caller's while arrays are converted.
        try:
            if not outputs:
                return self._session.run(output_names, dict(input_feed))
            return self._session.run(output_names, dict(input_feed), dict(outputs))
        except _runtime.Error as error:
            raise _typed(error) from error

    def get_inputs(self) -> list[NodeArg]:
        """The model's inputs, in order."""
        return [NodeArg(name, shape, _ONNX_TYPES[dtype]) for name, dtype, shape in self._session.inputs()]

    def get_outputs(self) -> list[NodeArg]:
        """The model's outputs, in order."""
        return [NodeArg(name, shape, _ONNX_TYPES[dtype]) for name, dtype, shape in self._session.outputs()]

    def get_providers(self) -> list[str]:
        """What executes the model: always ["CPUExecutionProvider"]."""
        return ["CPUExecutionProvider"]

    @property
    def isa(self) -> str:
        """Name of the kernels in use: "scalar", "avx2", "avxvnni" or "avx512"."""
        return self._session.isa

    @property
    def threads(self) -> int:
        """How many threads a run uses at most."""
        return self._session.threads

    def metadata(self, key: str) -> str:
        """An entry of the artifact's metadata ("lutc.plan", "lutc.producer", "lutc.target", "lutc.report"), or ""."""
        return self._session.metadata(key)

    @contextlib.contextmanager
    def profiling(self) -> Iterator[None]:
        """Measures every step of the runs inside the `with` block; read them with `profile`."""
        self._session.set_profiling(True)
        try:
            yield
        finally:
            self._session.set_profiling(False)

    def profile(self) -> list[dict[str, Any]]:
        """What each step cost in the runs measured last.

        Dicts of name, op, calls, microseconds and bytes (read and written), all summed, and of inputs and outputs: the
        operands in the last run as (dtype, shape, whether it is a constant), None where one is omitted.
        """
        return self._session.profile()


def load(path: str | os.PathLike[str], *, threads: int | None = None, isa: str | None = None) -> InferenceSession:
    """Loads a `.lut` file; see `InferenceSession` for the arguments and errors."""
    return InferenceSession(path, threads=threads, isa=isa)
