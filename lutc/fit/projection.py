"""Output-aware projection: transform coding in the space of the layer's outputs, with bit allocation.

The coordinates are the eigenvectors of the covariance of the predicted output, so that an error in one of them costs
exactly its square at the output; codebooks of 1 to 8 coordinates are then laid out by dynamic programming.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from lutc.fit.encode import quantise_rows
from lutc.fit.encoder import choose_inv_scale, pad_groups
from lutc.fit.tables import Moments, chosen_ridge, refit
from lutc.forms import Form
from lutc.ir.parameters import ProjectParameters

Floats = npt.NDArray[np.float32]

SIZES = (1, 2, 3, 4, 6, 8)
"""Group sizes that the allocation chooses from."""

_DISTORTION = {
    ("plain", 16): (0.011, 0.108, 0.233, 0.344, 0.50, 0.60),
    ("gain", 16): (0.0005, 0.0033, 0.061, 0.166, 0.35, 0.48),
    ("gain", 8): (0.0005, 0.013, 0.125, 0.26, 0.45, 0.56),
    ("gain", 4): (0.0005, 0.050, 0.24, 0.38, 0.58, 0.68),
}
"""Measured distortion of a Gaussian sub-vector of each of SIZES features."""


@dataclasses.dataclass(frozen=True)
class FittedProjection:
    """A projection and what the layer behind it needs to know.

    Attributes:
        parameters: Constants of the Project.
        groups: Coordinates of each codebook, int32 [C, V].
        metric: What an error of the projected, scaled coordinates costs, float64 [r, r].
        weight: The layer's weights in those coordinates, float32 [r, N].
    """

    parameters: ProjectParameters
    groups: npt.NDArray[np.int32]
    metric: npt.NDArray[np.float64]
    weight: Floats


def apply_projection(x: Floats, p: ProjectParameters) -> Floats:
    """Project: float32 [..., r] of finite float32 [..., D], exact in integers."""
    rows = x.reshape(-1, x.shape[-1])
    q = quantise_rows(rows, p.offset, p.inv_scale)
    matrix = p.matrix.astype(np.float32)
    # 1040 products of 127 * 127 stay below 2^24, where float32 sums are exact.
    sums = np.zeros((len(rows), p.rank), np.float64)
    for start in range(0, q.shape[1], 1024):
        sums += q[:, start : start + 1024] @ matrix[start : start + 1024]
    return (sums.astype(np.float32) * p.mul).reshape(*x.shape[:-1], p.rank)


def group_distortion(variances: npt.NDArray[np.float64], iid: float) -> float:
    """Expected squared error of one codebook over coordinates of unequal variance.

    The codebook's rate is what gives `iid` for equal variances; it is spent by reverse water-filling.
    """
    ordered = np.sort(variances)[::-1]
    logs = np.log(np.maximum(ordered, 1e-300))
    rate = -len(ordered) * np.log(iid)
    for active in range(len(ordered), 0, -1):
        level = (logs[:active].sum() - rate) / active
        if level <= logs[active - 1]:
            return float(np.exp(level) * active + ordered[active:].sum())
    return float(ordered.sum())


def allocate(variances: npt.NDArray[np.float64], codebooks: int, form: Form) -> list[int]:
    """Sizes of consecutive groups of coordinates, sorted by falling variance, that lose the least.

    Args:
        variances: float64 [coordinates], falling.
        codebooks: Number of groups to spend.
        form: Its kind and entries decide what a group of a size loses.

    Returns:
        At most `codebooks` sizes; coordinates beyond their sum are dropped.
    """
    count = len(variances)
    losses = _DISTORTION[form.kind, form.entries]
    cost = np.full((len(SIZES), count + 1), np.inf)
    for s, size in enumerate(SIZES):
        for end in range(size, count + 1):
            cost[s, end] = group_distortion(variances[end - size : end], losses[s])
    best = np.full((codebooks + 1, count + 1), np.inf)
    choice = np.zeros((codebooks + 1, count + 1), np.int64)
    best[0, 0] = 0
    for c in range(1, codebooks + 1):
        for s, size in enumerate(SIZES):
            if size > count:
                continue
            total = best[c - 1, : count + 1 - size] + cost[s, size:]
            better = total < best[c, size:]
            best[c, size:][better], choice[c, size:][better] = total[better], size
    tail = np.concatenate([np.cumsum(variances[::-1])[::-1], [0]])
    spent, end = (int(i) for i in np.unravel_index(np.argmin(best + tail), best.shape))
    sizes: list[int] = []
    while spent:
        sizes.append(int(choice[spent, end]))
        end -= sizes[-1]
        spent -= 1
    return sizes[::-1]


def _coordinates(
    covariance: npt.NDArray[np.float64], weight: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Analysis matrix [D, D], variances [D] (falling) and synthesis matrix [D, N] of predicted outputs x W."""
    size = len(covariance)
    ridge = 1e-6 * max(np.trace(covariance) / size, 1e-30)
    factor = np.linalg.cholesky(covariance + ridge * np.eye(size))
    whitened = factor.T @ weight
    values, vectors = np.linalg.eigh(whitened @ whitened.T)
    values, vectors = np.maximum(values[::-1], 1e-30), vectors[:, ::-1]
    spread = np.sqrt(values)
    analysis = np.linalg.solve(factor.T, vectors) * spread
    return analysis, values, (vectors / spread).T @ whitened


def fit_projection(x: Floats, y: Floats, weight: Floats, form: Form) -> FittedProjection:
    """Fit the projection in front of a layer that maps x [rows, D] to y [rows, N].

    Args:
        x: float32 [rows, D].
        y: float32 [rows, N].
        weight: The dense layer's, [D, N].
        form: With a "full" or "block" projection; `width` sets the number of codebooks, D / width.

    Returns:
        The projection.
    """
    features = x.shape[1]
    cut = max(len(x) - max(len(x) // 6, 1), 1)
    train, held_out = (
        Moments.collect([(part_x, part_y)], features, y.shape[1])
        for part_x, part_y in ((x[:cut], y[:cut]), (x[min(cut, len(x) - 1) :], y[min(cut, len(x) - 1) :]))
    )
    both = (train + held_out).centred()
    _, strength = chosen_ridge(train.centred(), held_out.centred(), weight, (1e-4, 1e-3, 1e-2, 1e-1))
    predictor = refit(both, weight, strength)
    covariance = both.aa / max(len(x), 1)
    size = features if form.projection == "full" else form.block
    starts = list(range(0, features, size))
    parts = [_coordinates(covariance[s : s + size, s : s + size], predictor[s : s + size]) for s in starts]
    variances = np.concatenate([values for _, values, _ in parts])
    owner = np.concatenate([np.full(len(values), b) for b, (_, values, _) in enumerate(parts)])
    place = np.concatenate([np.arange(len(values)) for _, values, _ in parts])
    order = np.argsort(-variances, kind="stable")
    sizes = allocate(variances[order], max(1, features // form.width), form)
    kept = order[: sum(sizes)]

    # Columns of the matrix are laid out block by block; groups follow the falling variances.
    columns = kept[np.lexsort((place[kept], owner[kept]))]
    position = {int(coordinate): column for column, coordinate in enumerate(columns)}
    groups, begin = [], 0
    for group_size in sizes:
        groups.append(np.array([position[int(k)] for k in kept[begin : begin + group_size]]))
        begin += group_size
    matrix = np.zeros((features, len(columns)))
    synthesis = np.zeros((len(columns), y.shape[1]))
    for column, coordinate in enumerate(columns):
        block, k = int(owner[coordinate]), int(place[coordinate])
        analysis, _, out = parts[block]
        matrix[starts[block] : starts[block] + len(analysis), column] = analysis[:, k]
        synthesis[column] = out[k]

    offset = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    inv_scale = choose_inv_scale(x - offset)
    step = np.where(inv_scale > 0, 1 / np.maximum(inv_scale, 1e-30), 0)
    scaled = matrix * step[:, None]
    unit = np.maximum(np.abs(scaled).max(axis=0), 1e-30) / 127
    integers = np.rint(scaled / unit).astype(np.int8)
    z_scale = choose_inv_scale(((x - offset) @ matrix.astype(np.float32)).astype(np.float32)).astype(np.float64)
    blocks: list[int] = []
    if form.projection == "block":
        for b, start in enumerate(starts):
            blocks += [min(size, features - start), int((owner[columns] == b).sum())]
    inverse = 1 / np.maximum(z_scale, 1e-30)
    return FittedProjection(
        parameters=ProjectParameters(
            offset=offset,
            inv_scale=inv_scale,
            matrix=integers,
            mul=(unit * z_scale).astype(np.float32),
            blocks=tuple(blocks),
        ),
        groups=pad_groups(groups),
        metric=np.diag(inverse**2),
        weight=(synthesis * inverse[:, None]).astype(np.float32),
    )
