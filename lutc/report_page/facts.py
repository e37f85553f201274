"""What the page says beside the compiler's report: names, times, commands, where it was made."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence

_PACKAGES = ("lutc", "numpy", "scipy", "onnx", "onnx-ir", "onnxruntime", "torch")


@dataclasses.dataclass(frozen=True)
class Times:
    """Medians of one interleaved measurement on one thread, microseconds of CPU time for one inference.

    Attributes:
        shape: Of the inputs, for people.
        ours: The artifact.
        others: By name, what it is compared with: "int8" and "fp32" are the same model through this runtime, every
            layer in that form; "ONNX Runtime fp32" and the like are other runtimes.
        layers: By layer name, its steps in the artifact.
        layers_int8: The same in the all-int8 model.
    """

    shape: str
    ours: float
    others: Mapping[str, float] = dataclasses.field(default_factory=dict)
    layers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    layers_int8: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Facts:
    """Everything but the report.

    Attributes:
        model: The model's name.
        artifact: The artifact's name.
        commands: To make and check it again, one a line.
        calibration: About the samples, by name.
        versions: By package.
        machine: By property.
        times: Measured times; None where nothing was measured.
        missed: Why the budget was missed; empty where it was kept or there was none.
        made: A time stamp; left out where empty.
    """

    model: str
    artifact: str = ""
    commands: Sequence[str] = ()
    calibration: Mapping[str, str] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    machine: Mapping[str, str] = dataclasses.field(default_factory=dict)
    times: Times | None = None
    missed: str = ""
    made: str = ""


def versions() -> dict[str, str]:
    """Python's version and those of the packages that take part."""
    found = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if "lutc" not in found:  # imported from a checkout
        from lutc import __version__

        found["lutc"] = __version__
    return found


def machine() -> dict[str, str]:
    """The CPU, the kernels it can run, the system."""
    from lutc import _runtime
    from lutc.cost.machine import cpu_name

    return {
        "CPU": cpu_name(),
        "kernels": ", ".join(_runtime.available_isas()),
        "system": f"{platform.system()} {platform.machine()}",
    }
