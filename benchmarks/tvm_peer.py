"""TVM as a peer: fp32, tuned by MetaSchedule within a stated budget per layer, weights laid out beforehand.

    python -m benchmarks.tvm_peer [--only REGEX] [--isa avx512] [--seconds N]     tunes what is not yet tuned

Tuning runs in a process of its own, stopped when the processor time of the budget is used up; what it found is kept
beside the layer's model, and `benchmarks.ops` skips TVM where there is nothing. apache-tvm 0.27 needs apache-tvm-ffi
0.1.14: with 0.1.15 MetaSchedule crashes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.single_layers import LAYERS, model_of
from benchmarks.workload import Skipped, Workload, in_turn

BUDGET_S = 120
"""Seconds of processor time for each layer and ISA; twice as many seconds on the clock end it, too."""

_ENOUGH_TRIALS = 100_000  # the budget ends the tuning


def _target(isa: str) -> Any:
    import tvm
    from tvm.target import codegen

    cpu = "x86-64-v3" if isa == "avx2" else str(codegen.llvm_get_system_cpu())
    return tvm.target.Target({"kind": "llvm", "mcpu": cpu, "num-cores": 1})


def _imported(model: Path) -> tuple[Any, list[Any]]:
    """The model as a Relax module whose weights are arguments, and the weights."""
    import onnx
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    module = from_onnx(onnx.load(model), keep_params_in_input=True)
    module = relax.transform.DecomposeOpsForInference()(module)
    module, params = relax.frontend.detach_params(module)
    return module, [tvm.runtime.tensor(array) for array in params["main"]]


def folder_of(work_folder: Path, isa: str) -> Path:
    """Where the schedules of a layer are kept."""
    return work_folder / f"tvm-{isa}"


def tune(model: Path, folder: Path, isa: str, budget_s: float = BUDGET_S) -> int:
    """Tunes a model until a budget is used up, on top of what was found and spent before.

    Args:
        model: ONNX file with static shapes.
        folder: For the database of schedules.
        isa: "avx512" (all that this CPU has) or "avx2".
        budget_s: Seconds of processor time in all.

    Returns:
        Schedules measured so far.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ledger = folder / "spent"
    budget_s -= float(ledger.read_text()) if ledger.exists() else 0
    if budget_s < 10:  # starting takes as long
        return _measured(folder)
    command = [sys.executable, "-m", "benchmarks.tvm_peer", "--tune", str(model), str(folder), isa]
    deadline, used = time.monotonic() + 2 * budget_s, 0.0
    with (folder / "tuning.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            while process.poll() is None and used < budget_s and time.monotonic() < deadline:
                time.sleep(0.5)
                used = max(used, _used(process.pid))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the workers it started
            process.wait()
    ledger.write_text(f"{used + (float(ledger.read_text()) if ledger.exists() else 0):.1f}\n")
    return _measured(folder)


def _measured(folder: Path) -> int:
    """Schedules that the database of a folder holds."""
    records = folder / "database_tuning_record.json"
    return len(records.read_text().splitlines()) if records.exists() else 0


def _used(session: int) -> float:
    """Processor seconds of all processes of a session."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks += sum(int(field) for field in fields[11:15])  # own, and of children that have ended
    return ticks / os.sysconf("SC_CLK_TCK")


def maker(work: Workload) -> tuple[Callable[[], Callable[[], object]], int]:
    """Opens copies of the tuned model.

    Args:
        work: What to run.

    Returns:
        What opens a copy, and how many schedules the tuning measured.

    Raises:
        Skipped: TVM is not installed, or the layer is not tuned.
    """
    if importlib.util.find_spec("tvm") is None:
        raise Skipped("apache-tvm is not installed")
    folder = folder_of(work.folder, work.isa)
    if not _measured(folder):
        raise Skipped("not tuned: python -m benchmarks.tvm_peer does that once")
    import tvm
    from tvm import relax

    module, params = _imported(work.model)
    target = _target(work.isa)
    pipeline = relax.pipeline.static_shape_tuning_pipeline(
        total_trials=0, target=target, work_dir=str(folder), cpu_weight_prepack=True
    )
    with target:
        executable = tvm.compile(pipeline(module), target=target)

    def make() -> Callable[[], object]:
        machine = relax.VirtualMachine(executable, tvm.cpu())
        weights = [tvm.runtime.tensor(param.numpy()) for param in params]
        with contextlib.suppress(AttributeError):  # no weight was laid out anew
            weights = list(machine["main_transform_params"](weights))
        calls = []
        for number, feed in enumerate(work.feeds):
            array = tvm.runtime.tensor(next(iter(feed.values())))
            machine.save_function("main", f"call{number}", array, *weights, include_return=False)
            calls.append(machine[f"call{number}"])
        return in_turn(calls)

    return make, _measured(folder)


def _without_other_devices() -> None:
    """Leaves out the instructions of other devices, whose import alone would take much of the budget."""
    import types

    for device in ("cuda", "rocm", "metal", "hexagon"):
        name = f"tvm.s_tir.tensor_intrin.{device}"
        sys.modules[name] = types.ModuleType(name)


def _tune_here(model: Path, folder: Path, isa: str) -> None:
    """The tuning process."""
    _without_other_devices()
    from tvm import transform
    from tvm.relax.pipeline import zero_pipeline
    from tvm.relax.transform import AttachAttrLayoutFreeBuffers, CanonicalizeBindings
    from tvm.s_tir import meta_schedule

    module, _ = _imported(model)
    target = _target(isa)
    with target:
        passes = [CanonicalizeBindings(), zero_pipeline(), AttachAttrLayoutFreeBuffers()]
        meta_schedule.relax_integration.tune_relax(
            mod=transform.Sequential(passes)(module), params={}, target=target, work_dir=str(folder),
            max_trials_global=_ENOUGH_TRIALS, num_trials_per_iter=16, seed=0,
            builder=meta_schedule.builder.LocalBuilder(max_workers=1, initializer=_without_other_devices),
            strategy=meta_schedule.search_strategy.EvolutionarySearch(population_size=128, init_min_unmeasured=32),
        )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tvm_peer", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="regular expression over lines such as 'linear 128x768x768'")
    parser.add_argument("--isa", default="avx512", choices=("avx512", "avx2"))
    parser.add_argument("--seconds", type=float, default=BUDGET_S, help="of processor time for each layer")
    parser.add_argument("--tune", nargs=3, metavar=("MODEL", "FOLDER", "ISA"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.tune:
        _tune_here(Path(options.tune[0]), Path(options.tune[1]), options.tune[2])
        return 0
    for layer in LAYERS:
        if re.search(options.only, f"{layer.op} {layer.shape}"):
            model = model_of(layer)
            found = tune(model, folder_of(model.parent, options.isa), options.isa, options.seconds)
            print(f"{layer.op} {layer.shape}: {found} schedules measured", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
