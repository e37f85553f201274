"""Prices of a family's terms from measured times: least squares of relative errors, no price below zero."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares, nnls

Floats = npt.NDArray[np.float64]

_OUTLIER = 0.1  # relative errors beyond this count linearly
_HIDDEN = 0.5  # where the search for the share of streaming that hides behind work begins


@dataclasses.dataclass(frozen=True)
class Price:
    """What a family's work costs.

    Attributes:
        terms: Seconds by term.
        streaming: Seconds that constants take to arrive, over bytes / rate of reading.
        hidden: Share of the other work behind which their arrival hides, 0 .. 1.
    """

    terms: Mapping[str, float]
    streaming: float = 1.0
    hidden: float = 1.0

    def seconds(self, amounts: Mapping[str, float], arrival: float) -> float:
        """Time of a step.

        Args:
            amounts: By term; terms without a price are free.
            arrival: Seconds in which its constants can be read.
        """
        work = sum(self.terms.get(name, 0.0) * amount for name, amount in amounts.items())
        return work + max(0.0, self.streaming * arrival - self.hidden * work)


@dataclasses.dataclass(frozen=True)
class Sample:
    """A measured step: amounts by term, seconds its constants can be read in, seconds it took."""

    amounts: Mapping[str, float]
    arrival: float
    seconds: float


def fit_price(samples: Sequence[Sample]) -> Price:
    """The price that explains the samples of one family best.

    Args:
        samples: At least one; more than terms, or prices of some terms stay at zero.
    """
    names = sorted({name for sample in samples for name in sample.amounts})
    amounts = np.array([[sample.amounts.get(name, 0.0) for name in names] for sample in samples], np.float64)
    seconds = np.array([sample.seconds for sample in samples], np.float64)
    arrival = np.array([sample.arrival for sample in samples], np.float64)
    relative = amounts / seconds[:, None]
    scale = np.maximum(relative.max(axis=0), 1e-300)  # prices in shares of the time they explain at most
    start, _ = nnls(relative / scale, np.ones(len(samples)))

    def predicted(x: Floats) -> Floats:
        work = (amounts / scale) @ x[:-2]
        return work + np.maximum(x[-2] * arrival - x[-1] * work, 0.0)

    def errors(x: Floats) -> Floats:
        return np.log(np.maximum(predicted(x), 1e-12) / seconds)

    low = np.zeros(len(names) + 2)
    high = np.concatenate([np.full(len(names), np.inf), [3.0, 1.0]])
    best = min(
        (
            least_squares(
                errors, np.concatenate([np.maximum(start * share, 1e-4), [1.0, _HIDDEN]]), bounds=(low, high),
                loss="soft_l1", f_scale=_OUTLIER, x_scale=np.concatenate([np.maximum(start, 1e-2), [1.0, 1.0]]),
            )
            for share in (1.0, 0.7)
        ),
        key=lambda found: found.cost,
    )  # fmt: skip
    prices = {name: float(x) for name, x in zip(names, best.x[:-2] / scale, strict=True)}
    return Price(prices, float(best.x[-2]), float(best.x[-1]))
