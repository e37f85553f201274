"""Other runtimes at their best settings, each as something callable on the same feeds.

Where it is not known which settings are the best, each variant is timed and the fastest is kept; what was chosen is
remembered in build/benchmarks/choices.json and noted in the results.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peer_models
from benchmarks.harness import Call, interleave, on_cache_line, settle_s
from benchmarks.workload import Feed, Maker, Skipped, Workload, in_turn
from lutc._ort import ort

PEERS = (
    "onnxruntime_fp32",
    "onnxruntime_int8_dynamic",
    "onnxruntime_int8_qdq",
    "openvino_fp32",
    "openvino_bf16",
    "openvino_int8",
    "torch_fp32",
    "torch_int8_dynamic",
    "tvm_fp32",
)
"""Every peer there is."""

INT8 = ("onnxruntime_int8_dynamic", "onnxruntime_int8_qdq", "openvino_int8", "torch_int8_dynamic")
"""Those that multiply int8."""


def limited(isa: str) -> list[str]:
    """The int8 peers that can be held to this ISA."""
    return [name for name in INT8 if isa != "avx2" or not name.startswith("onnxruntime")]


_SELECTION_ROUNDS = 7


@dataclasses.dataclass
class Peers:
    """What can be compared with.

    Attributes:
        calls: By peer.
        skipped: Why, by peer.
        variants: The variant chosen, by peer.
    """

    calls: dict[str, Call] = dataclasses.field(default_factory=dict)
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    variants: dict[str, str] = dataclasses.field(default_factory=dict)


def open_peers(work: Workload, names: Sequence[str] = PEERS) -> Peers:
    """Opens the peers, each in its fastest variant.

    Args:
        work: What to run.
        names: Of `PEERS`.
    """
    found = Peers()
    for name in names:
        try:
            makers = _MAKERS[name](work)
            variant = _fastest(name, work, makers)
            width = 1 if name in INT8 else 4
            found.calls[name] = in_turn([makers[variant]() for _ in range(work.copies(width))])
            found.variants[name] = variant
        except Skipped as reason:
            found.skipped[name] = str(reason)
        except Exception as error:  # a peer that fails must not end the comparison
            found.skipped[name] = f"failed: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
    return found


def _fastest(name: str, work: Workload, makers: Mapping[str, Maker]) -> str:
    """The variant with the least CPU time; measured once and remembered."""
    if len(makers) == 1:
        return next(iter(makers))
    file = work.folder.parent / "choices.json"
    key = f"{name} {work.key} {work.isa} {work.threads}"
    remembered = json.loads(file.read_text()) if file.exists() else {}
    if remembered.get(key) in makers:
        return remembered[key]
    calls, reasons = {}, []
    for variant, make in makers.items():
        try:
            calls[variant] = make()
            calls[variant]()
        except Exception as error:
            reasons.append(f"{variant}: {type(error).__name__}: {str(error).splitlines()[0][:120]}")
    if not calls:
        raise Skipped("; ".join(reasons))
    samples = interleave(calls, _SELECTION_ROUNDS, 0.01, settle_s(work.threads))
    # Threads that wait by spinning make CPU time meaningless beyond one thread.
    times = {v: float(np.median(s.cpu if work.threads == 1 else s.wall)) for v, s in samples.items()}
    chosen = min(times, key=lambda variant: times[variant])
    remembered = json.loads(file.read_text()) if file.exists() else {}
    remembered[key] = chosen
    temporary = file.with_name(f"{os.getpid()}-choices.json")
    temporary.write_text(json.dumps(remembered, indent=1, sort_keys=True))
    os.replace(temporary, file)
    return chosen


def session_call(session: Any, feed: Feed) -> Call:
    """A call of anything with ONNX Runtime's `run` on the inputs it declares."""
    names = {value.name for value in session.get_inputs()}
    bound = {name: value for name, value in feed.items() if name in names}
    return lambda: session.run(None, bound)


def quantize_int8(model: Path, output: Path) -> Path:
    """ONNX Runtime's dynamic int8 quantisation of a model, written to `output` unless that is there."""
    return peer_models.dynamic_int8(model, output.parent, output.stem)


# ONNX Runtime


def _ort(path: Path, work: Workload) -> Maker:
    """Inputs and outputs are bound beforehand, so nothing is allocated or copied."""

    def make() -> Call:
        options = ort.SessionOptions()
        options.intra_op_num_threads = work.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # With one thread there is no pool; with more, spinning is its best latency.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if work.threads > 1 else "0")
        session = ort.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        outputs = [value.name for value in session.get_outputs()]
        first = session.run(None, {name: work.feeds[0][name] for name in names})
        results = [ort.OrtValue.ortvalue_from_numpy(on_cache_line(array)) for array in first]
        bindings = []
        for feed in work.feeds:
            binding = session.io_binding()
            for name in names:
                binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(feed[name]))
            for name, value in zip(outputs, results, strict=True):
                binding.bind_ortvalue_output(name, value)
            bindings.append(binding)
        return in_turn([lambda b=b: session.run_with_iobinding(b) for b in bindings])  # type: ignore[misc]

    return make


def _ort_fp32(work: Workload) -> dict[str, Maker]:
    # Its fusions for transformers happen when a session is made: its separate optimiser adds nothing (measured).
    return {"plain": _ort(work.model, work)}


def _ort_dynamic(work: Workload) -> dict[str, Maker]:
    return {"plain": _ort(peer_models.dynamic_int8(work.model, work.folder, "dynamic"), work)}


def _qdq_files(work: Workload) -> Iterator[tuple[str, Path]]:
    scopes = ("layers",) if _single(work) else ("layers", "products") if work.transformer else ("layers", "all")
    for scope, unsigned in itertools.product(scopes, (False, True)):
        path = peer_models.qdq(
            work.model, work.folder, work.feeds[0], unsigned=unsigned, scope=scope, optimise=not work.transformer
        )
        yield f"{'u8' if unsigned else 's8'}-{scope}", path


def _single(work: Workload) -> bool:
    return work.weights > 0


def _ort_qdq(work: Workload) -> dict[str, Maker]:
    return {name: _ort(path, work) for name, path in _qdq_files(work)}


# OpenVINO


def _openvino(path: Path, work: Workload, precision: str) -> Maker:
    if importlib.util.find_spec("openvino") is None:
        raise Skipped("openvino is not installed")
    os.environ.setdefault("OPENVINO_TELEMETRY_CONSENT", "0")
    import openvino

    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Skipped("this CPU has no bf16 arithmetic")

    def make() -> Call:
        options = {
            "INFERENCE_NUM_THREADS": work.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(core.read_model(path), "CPU", options)
        request = compiled.create_infer_request()
        names = [port.any_name for port in compiled.inputs]
        tensors = [
            [openvino.Tensor(np.ascontiguousarray(feed[name]), shared_memory=True) for name in names]
            for feed in work.feeds
        ]
        # The method of the class below Python's wrapper, which adds 20 microseconds to a call.
        infer = type(request).__mro__[1].infer
        if len(names) == 1:
            return in_turn([functools.partial(infer, request, bound[0], True, False) for bound in tensors])
        for name, tensor in zip(names, tensors[0], strict=True):
            request.set_tensor(name, tensor)
        return functools.partial(infer, request, {}, True, False)

    return make


def _openvino_fp32(work: Workload) -> dict[str, Maker]:
    return {"f32": _openvino(work.model, work, "f32")}


def _openvino_bf16(work: Workload) -> dict[str, Maker]:
    if work.isa == "avx2":
        raise Skipped("AVX2 has no bf16 arithmetic")
    return {"bf16": _openvino(work.model, work, "bf16")}


def _openvino_int8(work: Workload) -> dict[str, Maker]:
    makers = {}
    for name, path in _qdq_files(work):
        makers[name] = _openvino(path, work, "f32")
        if not _single(work) and work.isa != "avx2":
            with_bf16 = _maybe(lambda path=path: _openvino(path, work, "bf16"))  # type: ignore[misc]
            if with_bf16:
                makers[f"{name}, rest bf16"] = with_bf16
    return makers


def _maybe(make: Callable[[], Maker]) -> Maker | None:
    try:
        return make()
    except Skipped:
        return None


# PyTorch


def _torch_call(module: Any, work: Workload, convert: Callable[[Any], Any] | None = None) -> Call:
    import torch

    torch.set_num_threads(work.threads)
    feeds = []
    for feed in work.feeds:
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in feed.items()}
        feeds.append({name: convert(t) for name, t in tensors.items()} if convert else tensors)

    def call(tensors: dict) -> Any:
        with torch.inference_mode():
            # A bare layer takes its one input by position, whatever its name.
            return module(next(iter(tensors.values()))) if len(tensors) == 1 else module(**tensors)

    return in_turn([lambda f=f: call(f) for f in feeds])  # type: ignore[misc]


def _torch_module(work: Workload) -> Callable[[], Any]:
    if work.module is None:
        raise Skipped("no PyTorch form of this model")
    if importlib.util.find_spec("torch") is None:
        raise Skipped("torch is not installed")
    return work.module


def _torch_fp32(work: Workload) -> dict[str, Maker]:
    build = _torch_module(work)
    makers: dict[str, Maker] = {"eager": lambda: _torch_call(build(), work)}
    if _single(work):

        def prepacked() -> Call:
            from torch.utils import mkldnn

            return _torch_call(mkldnn.to_mkldnn(build()), work, lambda t: t.to_mkldnn())

        makers["mkldnn"] = prepacked
    return makers


def _torch_int8(work: Workload) -> dict[str, Maker]:
    build = _torch_module(work)

    def make(engine: str) -> Maker:
        def quantised() -> Call:
            import warnings

            import torch

            torch.backends.quantized.engine = engine
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                root = torch.nn.Sequential(build())
                module = torch.ao.quantization.quantize_dynamic(root, {torch.nn.Linear}, torch.qint8)[0]
            if not any("quantized" in type(part).__module__ for part in module.modules()):
                raise Skipped("PyTorch quantises no layer of this model")
            return _torch_call(module, work)

        return quantised

    return {engine: make(engine) for engine in ("onednn", "fbgemm")}


def _tvm(work: Workload) -> dict[str, Maker]:
    from benchmarks import tvm_peer

    make, schedules = tvm_peer.maker(work)
    return {f"tuned, best of {schedules} schedules": make}


_MAKERS: dict[str, Callable[[Workload], dict[str, Maker]]] = {
    "onnxruntime_fp32": _ort_fp32,
    "onnxruntime_int8_dynamic": _ort_dynamic,
    "onnxruntime_int8_qdq": _ort_qdq,
    "openvino_fp32": _openvino_fp32,
    "openvino_bf16": _openvino_bf16,
    "openvino_int8": _openvino_int8,
    "torch_fp32": _torch_fp32,
    "torch_int8_dynamic": _torch_int8,
    "tvm_fp32": _tvm,
}
