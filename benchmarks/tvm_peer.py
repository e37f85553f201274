"""TVM as a peer: fp32, tuned by MetaSchedule for a stated time per operator, weights laid out beforehand.

Tuning happens once per model and machine in a process of its own, which is stopped when its time is up; what it found
is kept beside the model.

    python -m benchmarks.tvm_peer MODEL.onnx FOLDER ISA     (the tuning process)
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.peers import Workload

BUDGET_S = 120
"""Seconds of tuning for each operator and ISA."""

_ENOUGH_TRIALS = 100_000  # the clock ends the tuning


def _target(isa: str) -> Any:
    import tvm

    cpu = "x86-64-v3" if isa == "avx2" else _host_cpu()
    return tvm.target.Target({"kind": "llvm", "mcpu": cpu, "num-cores": 1})


def _host_cpu() -> str:
    """LLVM's name for this CPU."""
    from tvm.target import codegen

    return str(codegen.llvm_get_system_cpu())


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


def _pipeline(isa: str, trials: int, folder: Path) -> Any:
    from tvm import relax

    return relax.pipeline.static_shape_tuning_pipeline(
        total_trials=trials, target=_target(isa), work_dir=str(folder), cpu_weight_prepack=True
    )


def tune(model: Path, folder: Path, isa: str, budget_s: float = BUDGET_S) -> None:
    """Tunes a model for `budget_s` seconds; keeps what is found in `folder`, and marks it as finished.

    Args:
        model: ONNX file with static shapes.
        folder: For the database of schedules.
        isa: "avx512" (all that this CPU has) or "avx2".
        budget_s: Seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.tvm_peer", str(model), str(folder), isa]
    started = time.monotonic()
    with (folder / "tuning.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            process.wait(timeout=budget_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.poll() is None:  # with the workers it started
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    (folder / "finished").write_text(f"{time.monotonic() - started:.0f} s\n")


def maker(work: Workload) -> Callable[[], Callable[[], object]]:
    """Opens copies of the tuned model.

    Args:
        work: What to run; tuned first unless that is done.

    Raises:
        Skipped: TVM is not installed.
    """
    from benchmarks.peers import Skipped, in_turn

    if importlib.util.find_spec("tvm") is None:
        raise Skipped("apache-tvm is not installed")
    os.environ["TVM_NUM_THREADS"] = str(work.threads)
    import tvm
    from tvm import relax

    folder = work.folder / f"tvm-{work.isa}"
    if not (folder / "finished").exists():
        tune(work.model, folder, work.isa)
    module, params = _imported(work.model)
    target = _target(work.isa)
    with target:
        module = _pipeline(work.isa, 0, folder)(module)
        executable = tvm.compile(module, target=target)

    def make() -> Callable[[], object]:
        machine = relax.VirtualMachine(executable, tvm.cpu())
        copies = [tvm.runtime.tensor(param.numpy()) for param in params]
        with contextlib.suppress(AttributeError):  # no weight was laid out anew
            copies = list(machine["main_transform_params"](copies))
        calls = []
        for number, feed in enumerate(work.feeds):
            array = tvm.runtime.tensor(next(iter(feed.values())))
            machine.save_function("main", f"call{number}", array, *copies, include_return=False)
            calls.append(machine[f"call{number}"])
        return in_turn(calls)

    return make


def main() -> None:
    """The tuning process."""
    import types

    # Instructions of other devices, whose import alone would take a minute of the budget.
    for device in ("cuda", "rocm", "metal", "hexagon"):
        name = f"tvm.s_tir.tensor_intrin.{device}"
        sys.modules[name] = types.ModuleType(name)
    model, folder, isa = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    module, _ = _imported(model)
    with _target(isa):
        _pipeline(isa, _ENOUGH_TRIALS, folder)(module)


if __name__ == "__main__":
    main()
