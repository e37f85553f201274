"""Typed errors of the compiler and the runtime, each with the exit code of the command line."""


class LutcError(Exception):
    """Base of every error lutc raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(LutcError):
    """A flag, an argument or an input the caller can mend (wrong name, dtype, shape, empty calibration ...)."""

    exit_code = 2


class UnsupportedModelError(LutcError):
    """The model is not valid ONNX or uses what lutc cannot compile; the message lists every failing node."""

    exit_code = 3


class BudgetMissedError(LutcError):
    """The accuracy budget could not be met; the best artifact that was found is kept."""

    exit_code = 4


class CorruptFileError(LutcError):
    """An artifact that breaks its specification: truncated, damaged, or of a newer format version."""

    exit_code = 5
