"""Calibration samples: where they come from, whether they fit the model, and how many of them are kept."""

from lutc.observe.inputs import InputSpec, input_specs, validate
from lutc.observe.reservoir import DEFAULT_BUDGET, Kept, keep_samples
from lutc.observe.sources import CalibrationSource, open_source

__all__ = [
    "DEFAULT_BUDGET",
    "CalibrationSource",
    "InputSpec",
    "Kept",
    "input_specs",
    "keep_samples",
    "open_source",
    "validate",
]
