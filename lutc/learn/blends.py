"""Blends of samples: the original answers any input, so learning need not see the same ones again and again.

After mixup (Zhang et al., ICLR 2018), without its labels, for a teacher that is asked about the very blend, as in
"Knowledge distillation: A good teacher is patient and consistent" (Beyer et al., CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

_SHARE = 0.5
"""Of a minibatch's samples that are blended; the others stay as they are."""

_BETA = 0.5
"""Both parameters of the distribution of weights: most blends are nearly one of their samples."""


def can_blend(batch: Mapping[str, npt.NDArray]) -> bool:
    """Whether blends of samples are inputs too: floating-point numbers are, tokens are not."""
    return all(np.issubdtype(array.dtype, np.floating) for array in batch.values())


def blended(batch: Mapping[str, npt.NDArray], rng: np.random.Generator) -> dict[str, npt.NDArray]:
    """A minibatch of which some samples are blended with others of it, each with the same weight in all inputs.

    Args:
        batch: Floating-point arrays [samples, ...] by name.
        rng: Chooses samples, partners and weights.

    Returns:
        Arrays of the same shapes and types.
    """
    samples = len(next(iter(batch.values())))
    partners = rng.permutation(samples)
    weights = np.where(rng.random(samples) < _SHARE, rng.beta(_BETA, _BETA, samples), 1.0)

    def blend(array: npt.NDArray) -> npt.NDArray:
        own = weights.astype(array.dtype).reshape(-1, *[1] * (array.ndim - 1))
        return own * array + (1 - own) * array[partners]

    return {name: blend(array) for name, array in batch.items()}
