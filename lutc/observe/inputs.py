"""What a model wants to be fed with, and whether a batch of samples is that."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from lutc.errors import UsageError

Batch = dict[str, npt.NDArray]


def count_samples(batch: Mapping[str, npt.NDArray]) -> int:
    """Samples in a batch: the longest first axis of its arrays."""
    return max((array.shape[0] for array in batch.values() if array.ndim), default=1)


def batch_bytes(batch: Mapping[str, npt.NDArray]) -> int:
    """Bytes of all arrays of a batch."""
    return sum(array.nbytes for array in batch.values())


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name: As in the graph.
        dtype: Element type.
        shape: Sizes; a string is a symbolic size (one name, one size per batch), None an unknown one. None for
            an unknown rank.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | str | None, ...] | None


def input_specs(model: ir.Model) -> list[InputSpec]:
    """The inputs of a model that a caller must feed."""
    specs = []
    for value in model.graph.inputs:
        if value.name in model.graph.initializers:
            continue
        shape = None
        if value.shape is not None:
            shape = tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
        dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
        specs.append(InputSpec(str(value.name), np.dtype(dtype), shape))
    return specs


def _check_tensor(array: npt.NDArray, spec: InputSpec, sample: int) -> None:
    if spec.shape is not None and array.ndim != len(spec.shape):
        raise UsageError(
            f"calibration input '{spec.name}', sample {sample}: rank {array.ndim} (shape {list(array.shape)}), but "
            f"the model wants rank {len(spec.shape)} ({list(spec.shape)})"
        )
    if array.dtype != spec.dtype:
        raise UsageError(
            f"calibration input '{spec.name}', sample {sample}: dtype {array.dtype.name}, but the model wants "
            f"{spec.dtype.name}; convert it with .astype({spec.dtype.name!r})"
        )
    if array.size == 0:
        raise UsageError(f"calibration input '{spec.name}', sample {sample}: empty (shape {list(array.shape)})")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise UsageError(
            f"calibration input '{spec.name}', sample {sample + (bad[0] if bad else 0)}: NaN or infinity at "
            f"{list(bad)}; remove the sample or mend it"
        )


def validate(batch: Mapping[str, object], specs: Sequence[InputSpec], sample: int) -> Batch:
    """Check one batch of samples against the model.

    Args:
        batch: Arrays by input name.
        specs: The model's inputs.
        sample: Number of the batch's first sample, for messages.

    Returns:
        The batch as contiguous numpy arrays.

    Raises:
        UsageError: A name is missing or unknown, or a tensor has the wrong dtype, rank or size, or holds NaN or
            infinity; the message names tensor and sample.
    """
    names = [spec.name for spec in specs]
    listing = ", ".join(f"{spec.name} ({spec.dtype.name})" for spec in specs)
    missing = [name for name in names if name not in batch]
    unknown = [str(name) for name in batch if name not in names]
    if missing or unknown:
        parts = [f"missing: {', '.join(missing)}"] if missing else []
        parts += [f"unknown: {', '.join(unknown)}"] if unknown else []
        raise UsageError(
            f"calibration sample {sample}: input names do not match ({'; '.join(parts)}); the model's inputs are "
            f"{listing}"
        )
    checked: Batch = {}
    sizes: dict[str, tuple[int, str]] = {}
    for spec in specs:
        given = np.asarray(batch[spec.name])
        array = np.ascontiguousarray(given).reshape(given.shape)
        _check_tensor(array, spec, sample)
        for axis, dim in enumerate(spec.shape or ()):
            size = int(array.shape[axis])
            if isinstance(dim, int) and size != dim:
                raise UsageError(
                    f"calibration input '{spec.name}', sample {sample}: size {size} on axis {axis}, but the model "
                    f"wants {dim}"
                )
            if isinstance(dim, str):
                known, owner = sizes.setdefault(dim, (size, spec.name))
                if known != size:
                    raise UsageError(
                        f"calibration input '{spec.name}', sample {sample}: '{dim}' is {size}, but {known} in '{owner}'"
                    )
        checked[spec.name] = array
    return checked


def split_batch(batch: Batch, specs: Sequence[InputSpec], limit: int) -> list[Batch]:
    """Cut a batch along the first axis into at most `limit` samples each, where the model's first axis is free.

    Raises:
        UsageError: The model's batch size is fixed and the samples do not divide into it.
    """
    first = {spec.shape[0] if spec.shape else None for spec in specs}
    sizes = {array.shape[0] if array.ndim else 0 for array in batch.values()}
    if len(sizes) != 1 or len(first) != 1:
        return [batch]
    size, dim = sizes.pop(), first.pop()
    if isinstance(dim, int):
        if dim in (size, 0):
            return [batch]
        whole = size // dim * dim
        if whole == 0:
            raise UsageError(f"the model's batch size is {dim}, but there are only {size} samples")
        limit, size = dim, whole
    elif size <= limit or dim is None:
        return [batch]
    return [{name: array[s : s + limit] for name, array in batch.items()} for s in range(0, size, limit)]
