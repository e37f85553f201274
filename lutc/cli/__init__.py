"""The command line: `lutc compile | run | bench | inspect | eval`; `python -m lutc` is the same program."""

from lutc.cli.app import app, main

__all__ = ["app", "main"]
