"""`CostModel`: seconds of a layer in a form on one thread of one machine."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lutc.cost.fit import Price
from lutc.cost.shape import LayerShape
from lutc.cost.terms import KERNELS, Work, works
from lutc.errors import UsageError
from lutc.forms import Form

FORMAT = 1


def is_shared(term: str) -> bool:
    """Whether a term costs the same behind every family: activations and residuals."""
    return term.startswith("activation.") or term == "residual"


@dataclasses.dataclass(frozen=True)
class CostModel:
    """Prices of the kernels of one ISA on one machine.

    Attributes:
        isa: "scalar", "avx2", "avxvnni" or "avx512".
        machine: The CPU they were measured on.
        source: "measured" on this machine, or "shipped" with lutc.
        prices: By family of steps (`lutc.cost.terms`).
        shared: Seconds an output of every activation and of a residual, by term.
        rates: (bytes, bytes per second): how fast a buffer of that size is read, sizes rising.
        error: Median relative error on what it was fitted to.
        note: A remark for people; may be empty.
    """

    isa: str
    machine: str
    source: str
    prices: Mapping[str, Price]
    shared: Mapping[str, float]
    rates: Sequence[tuple[float, float]]
    error: float = 0.0
    note: str = ""

    def seconds(self, shape: LayerShape, form: Form, *, constant_bytes: float, shared_encode: bool = False) -> float:
        """Time of a layer on one thread: projection, encode, lookups or products, activation and residual.

        Args:
            shape: The layer at the input shapes of interest.
            form: One that fits the layer's kind.
            constant_bytes: Weights and tables of the whole model: they decide from where a layer's own arrive.
            shared_encode: Whether another layer has encoded the input already.

        Raises:
            UsageError: The form does not fit the layer, or the model knows no price for it.
        """
        if not form.fits(shape.kind):
            raise UsageError(f"a layer of kind {shape.kind} cannot be {form}")
        return sum(
            self.step_seconds(work, constant_bytes=constant_bytes)
            for work in works(shape, form, self.isa)
            if not (shared_encode and work.part == "encode")
        )

    def encode_seconds(self, shape: LayerShape, form: Form, *, constant_bytes: float) -> float:
        """The part of `seconds` that layers reading the same input with the same codebooks share; 0 of dense forms."""
        return sum(
            self.step_seconds(work, constant_bytes=constant_bytes)
            for work in works(shape, form, self.isa)
            if work.part == "encode"
        )

    def step_seconds(self, work: Work, *, constant_bytes: float) -> float:
        """Time of one step of a layer.

        Raises:
            UsageError: The model knows no price for it.
        """
        extra = sum(self.shared.get(name, 0.0) * amount for name, amount in work.terms.items())
        amounts = self.amounts(work, constant_bytes)
        return self._price(work.family).seconds(amounts, self.arrival(work, constant_bytes)) + extra

    def amounts(self, work: Work, constant_bytes: float) -> dict[str, float]:
        """Terms of a step, and those that depend on where the constants of the whole model are.

        Between two runs of a step they push its outputs' lines out of the cache ("stores", seconds of reading as many
        bytes), and every call of an inner loop meets the first bytes of its part unprepared ("stalls").
        """
        rate = self._rate(constant_bytes)
        amounts = {**work.terms, "stores": work.output_bytes / rate}
        if "calls" in work.terms:
            amounts["stalls"] = work.terms["calls"] / rate
        return amounts

    def constant_bytes(self, shape: LayerShape, form: Form) -> float:
        """Weights, tables and codebooks that a layer adds to the constants of a model."""
        return sum(work.constant_bytes for work in works(shape, form, self.isa))

    def arrival(self, work: Work, constant_bytes: float) -> float:
        """Seconds in which a step's constants can be read where all constants of a model take `constant_bytes`."""
        size = work.constant_bytes
        first = size / self._rate(max(size, constant_bytes))
        return first + (work.passes - 1) * size / self._rate(size)

    def _rate(self, size: float) -> float:
        """Bytes per second from a buffer of this size."""
        at = np.log([entry[0] for entry in self.rates])
        return math.exp(float(np.interp(math.log(max(size, 1.0)), at, np.log([entry[1] for entry in self.rates]))))

    def _price(self, family: str) -> Price:
        """The family's price, or that of its nearest kin."""
        parts = family.split(".")
        for length in range(len(parts), 0, -1):
            prefix = ".".join(parts[:length])
            kin = [name for name in self.prices if name == prefix or name.startswith(f"{prefix}.")]
            if kin and length >= 2:
                return self.prices[family if family in kin else max(kin)]
        raise UsageError(
            f"the cost model of {self.isa} has no price for '{family}'; measure it with lutc targets --measure"
        )

    def to_json(self) -> str:
        """The model as JSON, a family a line."""
        families = {
            name: {
                "terms": {term: _short(value) for term, value in sorted(price.terms.items()) if value > 0},
                "streaming": _short(price.streaming),
                "overlap": _short(price.overlap),
            }
            for name, price in sorted(self.prices.items())
        }
        head = {
            "format": FORMAT,
            "isa": self.isa,
            "machine": self.machine,
            "note": self.note,
            "error": _short(self.error),
            "rates": [[int(size), _short(rate)] for size, rate in self.rates],
            "shared": {term: _short(value) for term, value in sorted(self.shared.items())},
        }
        lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
        body = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in families.items())
        return "{\n" + ",\n".join(lines) + f',\n "prices": {{\n{body}\n }}\n}}\n'

    @classmethod
    def from_json(cls, text: str, source: str) -> CostModel:
        """Reads what `to_json` writes.

        Raises:
            ValueError: It is something else, or of another format.
        """
        found = json.loads(text)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError("not a cost model of this version")
        try:
            model = cls(
                isa=str(found["isa"]),
                machine=str(found["machine"]),
                source=source,
                note=str(found.get("note", "")),
                error=_number(found["error"]),
                rates=[(_number(size), _number(rate)) for size, rate in found["rates"]],
                shared={str(name): _number(value) for name, value in found["shared"].items()},
                prices={
                    str(name): Price(
                        {str(term): _number(value) for term, value in entry["terms"].items()},
                        _number(entry["streaming"]),
                        _number(entry["overlap"]),
                    )
                    for name, entry in found["prices"].items()
                },
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a cost model lacks or misplaces {error}") from error
        sizes = [size for size, _ in model.rates]
        if model.isa not in KERNELS or not sizes or sizes != sorted(sizes) or min(min(e) for e in model.rates) <= 0:
            raise ValueError("a cost model of an unknown ISA, or without rates")
        if any(price.overlap < 1 for price in model.prices.values()):
            raise ValueError("a cost model takes longer than work and waiting together")
        return model


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r} is no price")
    return float(value)
