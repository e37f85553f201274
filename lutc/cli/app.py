"""The program: its commands, and how an error or an interruption becomes a message and an exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from lutc import __version__
from lutc.cli import bench, compile, evaluate, inspect, run, targets
from lutc.errors import LutcError

INTERRUPTED = 130
USAGE = 2

app = typer.Typer(
    name="lutc",
    help="Compile an ONNX model so that its linear and convolution layers run as SIMD table lookups.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("compile")(compile.command)
app.command("run")(run.command)
app.command("bench")(bench.command)
app.command("inspect")(inspect.command)
app.command("eval")(evaluate.command)
app.command("targets")(targets.command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lutc {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Compile an ONNX model so that its linear and convolution layers run as SIMD table lookups."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: without the program's name; the process's own by default.

    Returns:
        The exit code: 0 ok, 2 usage, 3 unsupported model, 4 budget missed, 5 corrupt file, 130 interrupted, 1 a bug.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    sys.path.insert(0, os.getcwd())  # so that pkg.mod:callable finds modules of the working directory
    try:
        code = app(args=arguments, prog_name="lutc", standalone_mode=False)
        return int(code or 0)
    except LutcError as error:
        return _fail(str(error), error.exit_code, type(error).__name__, arguments)
    except KeyboardInterrupt:
        return _interrupted(arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if type(error).__name__ == "Abort":  # typer's own word for Ctrl-C
            return _interrupted(arguments)
        if hasattr(error, "format_message"):  # typer's usage errors; their class moved between versions
            return _usage(error, arguments)
        raise
    finally:
        sys.path.pop(0)


def _usage(error: Exception, arguments: Sequence[str]) -> int:
    message = error.format_message()  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    if context is not None:
        message += f"\n{context.get_usage()}\nTry '{context.command_path} --help'."
    elif not message:  # help was printed
        return USAGE
    return _fail(message, USAGE, "UsageError", arguments)


def _interrupted(arguments: Sequence[str]) -> int:
    hint = ""
    if "compile" in arguments[:1]:
        hint = (
            "Run the same command again to continue where it stopped."
            if any(a.startswith("--resume") for a in arguments)
            else "Next time add --resume DIR: finished layers are kept there and not fitted again."
        )
    return _fail(f"interrupted; no output was written. {hint}".strip(), INTERRUPTED, "Interrupted", arguments)


def _fail(message: str, code: int, kind: str, arguments: Sequence[str]) -> int:
    print(f"lutc: error: {message}", file=sys.stderr)
    if "--json" in arguments:
        print(json.dumps({"error": message, "kind": kind, "exit_code": code}))
    return code
