"""One process for each ISA and number of threads: runtimes read what limits them before they are imported."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from lutc import _runtime

_CHILD = "LUTC_BENCHMARK_VARIANT"

_AVX2 = {
    "LUTC_ISA": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # OpenVINO and PyTorch
    "DNNL_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",
}

UNLIMITED = "ONNX Runtime has no switch that holds it to AVX2: it used all that the CPU has, VNNI included"
"""What rows of AVX2 must say."""


def add_options(parser: argparse.ArgumentParser, threads: str = "1") -> None:
    """`--isa` and, unless its default is empty, `--threads`."""
    parser.add_argument("--isa", default="native", help="native, avx512, avxvnni, avx2; several separated by commas")
    if threads:
        parser.add_argument("--threads", default=threads, help="numbers of threads, separated by commas")


def child() -> tuple[str, int] | None:
    """The ISA and number of threads that this process is to measure; None in the process the user started."""
    text = os.environ.get(_CHILD)
    if text is None:
        return None
    isa, threads = text.split()
    return isa, int(threads)


def run_children(module: str, isas: str, threads: str, arguments: Sequence[str] | None) -> int:
    """Runs `python -m module` with the same arguments (None: this process's) once for each ISA and number of threads.

    Returns:
        The first exit status that is not 0, or 0.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    status = 0
    for isa in isas.split(","):
        name = _runtime.available_isas()[-1] if isa == "native" else isa
        for count in threads.split(","):
            environment = dict(os.environ, **{_CHILD: f"{name} {int(count)}"})
            environment.update(_AVX2 if name == "avx2" else {"LUTC_ISA": name})
            for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TVM_NUM_THREADS"):
                environment[variable] = count
            done = subprocess.run([sys.executable, "-m", module, *arguments], env=environment, check=False)
            status = status or done.returncode
    return status
