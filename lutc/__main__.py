"""`python -m lutc` is the command `lutc`."""

import sys


def main() -> None:
    """Runs the command line and exits with its code."""
    from lutc.cli import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
