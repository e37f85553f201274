"""Fitting lookups to calibration samples, in closed form and without labels."""

from lutc.fit.model import FitResult, LayerReport, fit_model

__all__ = ["FitResult", "LayerReport", "fit_model"]
