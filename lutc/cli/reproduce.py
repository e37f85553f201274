"""The command line that a command was started with, rebuilt from its parsed parameters."""

from __future__ import annotations

import shlex
from typing import Any

_PRESENTATION = ("json", "quiet")  # options that change nothing but what is printed


def command_line(context: Any) -> str:
    """A line for a shell: arguments first, then every option that matters and differs from its default.

    Args:
        context: Of the running command (`typer.Context`).
    """
    arguments, options = [], []
    for parameter in context.command.params:
        value = context.params.get(parameter.name)
        if parameter.param_type_name == "argument":
            arguments += [str(value)]
        elif parameter.name in _PRESENTATION or value in (None, False, (), []) or value == parameter.default:
            continue
        elif value is True:
            options += [parameter.opts[0]]
        else:
            for each in value if isinstance(value, (list, tuple)) else [value]:
                options += [parameter.opts[0], str(each)]
    return shlex.join(["lutc", *context.command.name.split(), *arguments, *options])
