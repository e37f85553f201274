"""lutc: a compiler that makes neural networks cheap on CPUs."""

__version__ = "0.1.0"
