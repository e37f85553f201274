"""The operators of `ai.lutc`: nodes, function bodies and a numpy reference (docs/operators.md)."""

from lutc.ir.lookup import DOMAIN, add_functions, lookup_functions, lut_conv, lut_linear, project
from lutc.ir.parameters import ConvParameters, LookupParameters, ProjectParameters

__all__ = [
    "DOMAIN",
    "ConvParameters",
    "LookupParameters",
    "ProjectParameters",
    "add_functions",
    "lookup_functions",
    "lut_conv",
    "lut_linear",
    "project",
]
