"""The layers that a cost model is measured on."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

from lutc.cost.shape import ACTIVATIONS, LayerShape
from lutc.cost.terms import KERNELS
from lutc.forms import Form

_SMALL = (64, 96, 192, 64, 160, 256, 64, 384, 32, 64, 10)
_MIDDLE = (384, 1536, 384, 384, 1152, 64, 768, 256)
_LARGE = (768, 3072, 768, 2304, 1024, 1024, 3072, 768)

_LINEAR_FORMS = (
    "fp32 int8 gain-v2 gain-v3 gain-v4 gain-v6 gain-v8 gain-v16",
    "gain-v3k8 gain-v4k8 gain-v4k4",
    "gain-v3-g15 gain-v4-g15 gain-v4k8-g15 gain-v3-g127",
    "plain-v2 plain-v3 plain-v4 plain-v8 plain-v16 plain-v32 plain-v4k8 plain-v8k8 plain-v4k4",
    "gain-v3-proj gain-v4-proj gain-v4-block64 plain-v8-proj",
)
_LARGE_FORMS = ("fp32", "int8", "gain-v3", "gain-v4", "plain-v8")
_CONV_FORMS = (
    "fp32 int8 gain-v2 gain-v3 gain-v4 gain-v8 gain-v4k8 gain-v4k4 gain-v4-g15 gain-v4k8-g15 gain-v4-g127",
    "plain-v4 plain-v8 plain-v16 plain-v8k8 plain-v4k4",
)
_EPILOGUE_FORMS = ("fp32", "int8", "gain-v4", "plain-v8")


@dataclasses.dataclass(frozen=True)
class Chain:
    """Layers that feed each other, and the rows to run them with.

    Attributes:
        layers: Shapes and forms.
        rows: Several sizes leave the rows of linear layers to the run; one fixes them.
    """

    layers: tuple[tuple[LayerShape, Form], ...]
    rows: tuple[int, ...] = ()

    def shapes(self, rows: int) -> list[tuple[LayerShape, Form]]:
        """The layers at so many rows (0: as they are)."""
        if not rows:
            return list(self.layers)
        several = len(self.rows) > 1
        return [(dataclasses.replace(shape, image=(rows, 1), open_rows=several), form) for shape, form in self.layers]


def linear_chain(form: str, sizes: Sequence[int], rows: Iterable[int]) -> Chain:
    """Linear layers of one form, `sizes` being the features between them."""
    rows = tuple(rows)
    parsed = Form.parse(form)
    return Chain(tuple((LayerShape.linear(rows[0], a, b), parsed) for a, b in itertools.pairwise(sizes)), rows)


def full_grid(isa: str) -> list[Chain]:
    """Everything that a form's time depends on."""
    slow = isa == "scalar"
    chains = []
    for form in _words(_LINEAR_FORMS):
        chains += [linear_chain(form, _SMALL, (rows,)) for rows in ((1, 6, 50) if slow else (1, 4))]
        if slow:
            continue
        chains.append(linear_chain(form, _SMALL, (16, 24, 48, 64, 80, 128, 197, 512, 2048)))
        chains += [linear_chain(form, _MIDDLE, (rows,)) for rows in (1, 8)]
        chains.append(linear_chain(form, _MIDDLE, (16, 32, 100, 128) if form == "fp32" else (16, 32, 100, 128, 384)))
        if form in _LARGE_FORMS:
            chains += [linear_chain(form, _LARGE, (1,)), linear_chain(form, _LARGE, (16, 64))]
    for form in _words(_CONV_FORMS):
        parsed = Form.parse(form)
        unsigned = parsed.kind == "int8" and KERNELS[isa].unsigned_unit > 0
        chains += [Chain(tuple(_fitting(shapes, parsed))) for shapes in _conv_shapes(slow, unsigned)]
    chains += list(_epilogues())
    chains += list(_attentions(slow))
    return chains


def streaming_chain(form: str, rows: int, size: int) -> Chain:
    """Linear layers of about `size` bytes of constants in all, in forms of a byte (int8) or two (plain-v8) a weight."""
    pairs = max(1, round(size / (2 if form != "int8" else 1) / (2 * 512 * 1024)))
    return linear_chain(form, (512, 1024) * pairs + (512,), (rows,))


def tiny_grid(isa: str) -> list[Chain]:
    """A few layers of a few forms: enough to see that measuring works."""
    del isa
    return [linear_chain(form, (16, 48, 32, 64), (rows,)) for form in ("fp32", "int8", "gain-v4") for rows in (1, 40)]


def _words(lines: Iterable[str]) -> Iterator[str]:
    return itertools.chain.from_iterable(line.split() for line in lines)


def _fitting(shapes: Iterable[LayerShape], form: Form) -> Iterator[tuple[LayerShape, Form]]:
    """Shapes with the form where the compiler would give it to them, else fp32."""
    before, activation = Form(), "none"
    for shape in shapes:
        channels = shape.D // shape.group
        # Depthwise layers stay fp32 in the compiler's int8 models, and in chains with activations here.
        fits = channels > 1 or shape.activation == "none" if form.dense else channels >= 8
        taken = form if fits else Form()
        follows = before.kind == taken.kind == "int8"
        yield dataclasses.replace(shape, follows_conv=follows, nonnegative=activation == "relu"), taken
        before, activation = taken, shape.activation


def _conv(channels: int, size: int | tuple[int, int], outputs: int, kernel: int = 3, stride: int = 1) -> LayerShape:
    image = size if isinstance(size, tuple) else (size, size)
    pad = kernel // 2
    return LayerShape(
        "conv", channels, outputs, image=image, kernel=(kernel, kernel), strides=(stride, stride), pads=(pad,) * 4
    )


def _depthwise(channels: int, size: int | tuple[int, int], stride: int = 1, kernel: int = 3) -> LayerShape:
    return dataclasses.replace(_conv(channels, size, channels, kernel, stride), group=channels)


def _with_epilogue(shapes: Iterable[LayerShape]) -> list[LayerShape]:
    """The same layers with a relu, and a residual where it fits."""
    return [
        dataclasses.replace(shape, activation="relu", residual=shape.D == shape.N and shape.image == shape.out_image)
        for shape in shapes
    ]


def _conv_shapes(slow: bool, unsigned: bool) -> list[list[LayerShape]]:
    """Chains of convolutions: a small residual network, a large one, separable ones, odd ones, small images.

    Some once more with epilogues; all where convolutions behind a relu have a kernel of their own (`unsigned`).
    """
    small = [
        _conv(3, 32, 16), _conv(16, 32, 16), _conv(16, 32, 32, 3, 2), _conv(32, 16, 32), _conv(32, 16, 64, 3, 2),
        _conv(64, 8, 64), _conv(64, 8, 128, 1), _conv(128, 8, 128),
    ]  # fmt: skip
    heads = [
        _conv(64, (8, 10), 12), _depthwise(12, (8, 10)), _conv(12, (8, 10), 64, 1), _conv(64, (8, 10), 6, 1),
        _depthwise(6, (8, 10)), _conv(6, (8, 10), 128, 1), _depthwise(128, (8, 10), 2), _conv(128, (4, 5), 256, 1),
        _conv(256, (4, 5), 6), _conv(6, (4, 5), 64, 1), _conv(64, (4, 5), 256, 1), _depthwise(256, (4, 5)),
        _conv(256, (4, 5), 64, 1), _conv(64, (4, 5), 4, 1), _depthwise(4, (4, 5)), _conv(4, (4, 5), 256, 1),
        _conv(256, (4, 5), 12), _conv(12, (4, 5), 1), _depthwise(1, (4, 5)),
    ]  # fmt: skip
    if slow:
        return [small, heads, _with_epilogue(small)]
    large = [
        _conv(32, 56, 64), _conv(64, 56, 64), _conv(64, 56, 128, 1), _conv(128, 56, 128, 3, 2), _conv(128, 28, 256, 1),
        _conv(256, 28, 256, 3, 2), _conv(256, 14, 64, 1), _conv(64, 14, 256, 1), _conv(256, 14, 512, 3, 2),
        _conv(512, 7, 512),
    ]  # fmt: skip
    separable = [
        _conv(3, 96, 16, 3, 2), _depthwise(16, 48), _conv(16, 48, 32, 1), _depthwise(32, 48, 2), _conv(32, 24, 64, 1),
        _depthwise(64, 24, 1, 5), _conv(64, 24, 64, 1), _depthwise(64, 24, 2), _conv(64, 12, 128, 1),
        _depthwise(128, 12), _conv(128, 12, 128, 1), _conv(128, 12, 32, 1), _depthwise(32, 12, 2), _conv(32, 6, 96, 1),
    ]  # fmt: skip
    odd = [
        _conv(16, (30, 60), 24, 5), dataclasses.replace(_conv(24, (30, 60), 48), group=2),
        LayerShape("conv", 48, 40, image=(30, 60), kernel=(1, 7), pads=(0, 3, 0, 3)),
        LayerShape("conv", 40, 64, image=(30, 60), kernel=(3, 3), pads=(2, 2, 2, 2), dilations=(2, 2)),
        _conv(64, (30, 60), 48, 1), LayerShape("conv", 48, 16, image=(30, 60), kernel=(3, 3)),
    ]  # fmt: skip
    late = [_conv(256, (8, 10), 256, 1)] * 3 + [
        _conv(256, (8, 10), 512, 1), _conv(512, (8, 10), 128, 1), _conv(128, (8, 10), 256), _conv(256, (8, 10), 64, 1),
        _conv(64, (8, 10), 256, 3, 2), _conv(256, (4, 5), 256, 1), _conv(256, (4, 5), 64, 1), _conv(64, (4, 5), 256, 1),
    ]  # fmt: skip
    wide = [
        _conv(3, (240, 320), 16, 3, 2), _depthwise(16, (120, 160)), _conv(16, (120, 160), 32, 1),
        _depthwise(32, (120, 160), 2), _conv(32, (60, 80), 48, 1), _conv(48, (60, 80), 16),
    ]  # fmt: skip
    plain = [small, large, separable, odd, heads, late, wide]
    return plain + [_with_epilogue(shapes) for shapes in (plain if unsigned else (small, separable))]


def _epilogues() -> Iterator[Chain]:
    for form in _EPILOGUE_FORMS:
        for rows in (1, 16, 64, 100):
            shapes = [LayerShape.linear(rows, 256, 256, activation=name) for name in ACTIVATIONS]
            shapes += [LayerShape.linear(rows, 256, 256, residual=True)]
            yield Chain(tuple((shape, Form.parse(form)) for shape in shapes))


def _attentions(slow: bool) -> Iterator[Chain]:
    for length, features, heads in ((16, 384, 12), (64, 256, 4), (128, 384, 12), (50, 768, 12), (256, 192, 3)):
        if slow and length > 64:
            continue
        for kind in ("fp32", "int8"):
            shape = LayerShape("attention", features, features, image=(length, length), heads=heads)
            yield Chain(((shape, Form.parse(kind)),))
