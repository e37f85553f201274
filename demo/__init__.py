"""The whole road on a real model: `python -m demo`."""
