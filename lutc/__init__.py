"""lutc: a compiler that makes neural networks cheap on CPUs.

lutc.compile("model.onnx", calib="samples.npz", output="model.lut")
session = lutc.load("model.lut")
outputs = session.run(None, {"x": x})
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["CompileResult", "InferenceSession", "__version__", "compile", "load"]

if TYPE_CHECKING:
    from lutc.compile import CompileResult, compile
    from lutc.session import InferenceSession, load


class _Package(types.ModuleType):
    """Imports the compiler or the runtime at first use: running an artifact loads no ONNX library.

    `compile` and `load` are functions of the API and also the names of stages (`lutc/compile.py`, `lutc/load/`).
    Importing such a stage makes Python assign the submodule to the package's attribute; the setters keep the
    functions there.
    """

    @property
    def compile(self) -> Any:
        return importlib.import_module("lutc.compile").compile

    @compile.setter
    def compile(self, module: types.ModuleType) -> None:
        pass

    @property
    def load(self) -> Any:
        return importlib.import_module("lutc.session").load

    @load.setter
    def load(self, module: types.ModuleType) -> None:
        pass

    @property
    def CompileResult(self) -> Any:
        return importlib.import_module("lutc.compile").CompileResult

    @property
    def InferenceSession(self) -> Any:
        return importlib.import_module("lutc.session").InferenceSession


sys.modules[__name__].__class__ = _Package
