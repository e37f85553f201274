"""`python -m lutc` is the command `lutc`."""


def main() -> None:
    """Run the command line."""


if __name__ == "__main__":
    main()
