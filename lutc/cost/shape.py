"""What the time of a layer depends on."""

from __future__ import annotations

import dataclasses
import math

ACTIVATIONS = ("none", "relu", "silu", "tanh", "sigmoid", "gelu", "gelu_tanh")
"""What a layer's step may compute behind its sums."""


@dataclasses.dataclass(frozen=True)
class LayerShape:
    """A layer at concrete input shapes.

    Attributes:
        kind: "linear", "conv" or "attention".
        D: Input features; of a convolution, input channels; of attention, features of a query (all heads).
        N: Outputs; of a convolution, output channels; of attention, features of a value (all heads).
        batch: Images of a convolution, sequences of attention; 1 for a linear layer, whose leading dims are all rows.
        image: Height and width of a convolution's input; (rows, 1) for a linear layer; (queries, keys) of attention.
        kernel: Height and width of the taps.
        strides: Of a convolution.
        pads: Top, left, bottom, right.
        dilations: Of a convolution.
        group: Convolution groups.
        heads: Of attention's queries.
        activation: What the step computes behind its sums, one of `ACTIVATIONS`.
        residual: Whether the step adds a tensor to its sums.
        open_rows: Whether a linear layer's rows are left to the run: tables then are laid out for many.
        follows_conv: Whether a convolution's input comes from another one that is not depthwise: in int8, it brings the
            largest magnitude along.
        nonnegative: Whether a convolution's input is known to have no negative number.
    """

    kind: str
    D: int
    N: int
    batch: int = 1
    image: tuple[int, int] = (1, 1)
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    group: int = 1
    heads: int = 1
    activation: str = "none"
    residual: bool = False
    open_rows: bool = False
    follows_conv: bool = False
    nonnegative: bool = False

    @classmethod
    def linear(cls, rows: int, D: int, N: int, *, activation: str = "none", residual: bool = False) -> LayerShape:
        """A linear layer of so many rows."""
        return cls("linear", D, N, image=(rows, 1), activation=activation, residual=residual)

    @property
    def taps(self) -> int:
        """Taps of the kernel."""
        return math.prod(self.kernel)

    @property
    def out_image(self) -> tuple[int, int]:
        """Height and width of the output; (rows, 1) for a linear layer."""
        if self.kind != "conv":
            return self.image
        top, left, bottom, right = self.pads
        sizes = (self.image[0] + top + bottom, self.image[1] + left + right)
        return (
            _windows(sizes[0], self.kernel[0], self.strides[0], self.dilations[0]),
            _windows(sizes[1], self.kernel[1], self.strides[1], self.dilations[1]),
        )

    @property
    def rows(self) -> int:
        """Rows of outputs: those of a linear layer, output pixels of all images, queries of all sequences."""
        return self.batch * (self.image[0] if self.kind == "attention" else math.prod(self.out_image))

    @property
    def in_rows(self) -> int:
        """Rows that are encoded: as `rows`, but input pixels of a convolution."""
        return self.batch * math.prod(self.image) if self.kind == "conv" else self.rows

    @property
    def weights(self) -> int:
        """Entries of the dense weight; 0 for attention."""
        return 0 if self.kind == "attention" else self.N * self.D // self.group * self.taps


def _windows(size: int, kernel: int, stride: int, dilation: int) -> int:
    return max((size - dilation * (kernel - 1) - 1) // stride + 1, 0)
