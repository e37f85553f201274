"""Prices of a family's terms from measured times: least squares of relative errors, no price below zero."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares, nnls

Floats = npt.NDArray[np.float64]

_OUTLIER = 0.1  # relative errors beyond this count linearly
_START = 2.0  # exponent from which the search begins
_SMALL = 1e-4  # least price, as a share of the time it explains at most


@dataclasses.dataclass(frozen=True)
class Price:
    """What a family's work costs.

    Its time is (work^p + arrival^p)^(1/p): work and the arrival of constants one after the other at p = 1, the longer
    of the two at large p.

    Attributes:
        terms: Seconds by term.
        streaming: Seconds that constants take to arrive, over bytes / rate of reading.
        overlap: p, 1 .. 16.
    """

    terms: Mapping[str, float]
    streaming: float = 1.0
    overlap: float = _START

    def seconds(self, amounts: Mapping[str, float], arrival: float) -> float:
        """Time of a step.

        Args:
            amounts: By term; terms without a price are free.
            arrival: Seconds in which its constants can be read.
        """
        work = sum(self.terms.get(name, 0.0) * amount for name, amount in amounts.items())
        wait = self.streaming * arrival
        longest = max(work, wait)
        if longest <= 0:
            return 0.0
        return longest * (1 + (min(work, wait) / longest) ** self.overlap) ** (1 / self.overlap)


@dataclasses.dataclass(frozen=True)
class Sample:
    """A measured step: amounts by term, seconds its constants can be read in, seconds it took."""

    amounts: Mapping[str, float]
    arrival: float
    seconds: float


def fit_price(samples: Sequence[Sample]) -> Price:
    """The price that explains the samples of one family best.

    Args:
        samples: At least one; more than terms, or prices of some terms stay at zero. Terms that none has get no price.
    """
    names = sorted({name for sample in samples for name, amount in sample.amounts.items() if amount > 0})
    seconds = np.array([sample.seconds for sample in samples], np.float64)
    amounts = np.array([[sample.amounts.get(name, 0.0) for name in names] for sample in samples]) / seconds[:, None]
    scale = amounts.max(axis=0)  # prices are searched in shares of the time they explain at most
    shares = amounts / scale
    arrival = np.array([sample.arrival for sample in samples], np.float64) / seconds
    start, _ = nnls(shares, np.ones(len(samples)))
    problem = _Problem(shares, np.maximum(arrival, 1e-9))
    count = len(names)
    low = np.concatenate([np.zeros(count + 1), [1.0]])
    high = np.concatenate([np.full(count, np.inf), [10.0, 16.0]])
    found = [
        least_squares(
            problem.errors, np.concatenate([np.maximum(start * part, _SMALL), [1.0, _START]]), problem.jacobian,
            bounds=(low, high), loss="soft_l1", f_scale=_OUTLIER, max_nfev=200,
            x_scale=np.concatenate([np.maximum(start, 1e-2), [1.0, 1.0]]),
        )
        for part in (1.0, 0.7)
    ]  # fmt: skip
    best = min(found, key=lambda result: result.cost).x
    prices = {name: float(x / unit) for name, x, unit in zip(names, best, scale, strict=False) if x > _SMALL}
    return Price(prices, float(best[count]), float(best[count + 1]))


class _Problem:
    """Logarithms of predicted over measured times, as a function of (prices, streaming, overlap), and derivatives."""

    def __init__(self, shares: Floats, arrival: Floats) -> None:
        self._shares, self._arrival = shares, arrival

    def _parts(self, x: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Logarithms of work and wait, shares of their powers in the sum."""
        work = np.log(np.maximum(self._shares @ x[:-2], 1e-9))
        wait = np.log(np.maximum(x[-2] * self._arrival, 1e-12))
        total = np.logaddexp(x[-1] * work, x[-1] * wait)
        return work, wait, np.exp(x[-1] * work - total), total

    def errors(self, x: Floats) -> Floats:
        return self._parts(x)[3] / x[-1]

    def jacobian(self, x: Floats) -> Floats:
        work, wait, share, total = self._parts(x)
        terms = self._shares * (share / np.exp(work))[:, None]
        streaming = (1 - share) / max(x[-2], 1e-12)
        overlap = (share * work + (1 - share) * wait) / x[-1] - total / x[-1] ** 2
        return np.column_stack([terms, streaming, overlap])
