"""Sources of samples, their validation, and the bounded reservoir."""

from __future__ import annotations

import numpy as np
import pytest

from lutc.errors import UsageError
from lutc.observe import InputSpec, keep_samples, open_source

IDS = InputSpec("ids", np.dtype(np.int64), ("batch", "length"))
X = InputSpec("x", np.dtype(np.float32), ("batch", 4))


def cost(batch):
    return sum(array.nbytes for array in batch.values())


def keep(source, specs=(X,), **options):
    return keep_samples(open_source(source), specs, cost=cost, **options)


def numbered(count, batch=2):
    for index in range(count):
        yield {"x": np.full((batch, 4), index, np.float32)}


def test_npz_counts_samples_along_the_first_axis(tmp_path):
    x = np.arange(400, dtype=np.float32).reshape(100, 4)
    np.savez(tmp_path / "a.npz", x=x)
    kept = keep(tmp_path / "a.npz")
    assert (kept.samples, kept.seen) == (100, 100)
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in kept.batches]), x)


def test_fixed_batch_size_is_met(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((7, 4), np.float32))
    kept = keep(tmp_path / "a.npz", [InputSpec("x", np.dtype(np.float32), (2, 4))])
    assert [batch["x"].shape[0] for batch in kept.batches] == [2, 2, 2]


def test_folders(tmp_path):
    np.save(tmp_path / "s0.npy", np.zeros(4, np.float32))
    np.save(tmp_path / "s1.npy", np.ones((3, 4), np.float32))
    assert keep(tmp_path).samples == 4
    with pytest.raises(UsageError, match=r"ids\.npy"):
        keep(tmp_path, [X, IDS])
    np.savez(tmp_path / "b.npz", x=np.zeros((5, 4), np.float32))
    assert keep(tmp_path).samples == 9


def test_batches_of_different_lengths():
    feeds = [{"ids": np.zeros((2, length), np.int64)} for length in (3, 9, 1)]
    assert [batch["ids"].shape for batch in keep(feeds, [IDS]).batches] == [(2, 3), (2, 9), (2, 1)]


def test_random_is_only_asked_for_by_name():
    kept = keep("random", [IDS, InputSpec("mask", np.dtype(np.int64), ("batch", "length"))])
    assert kept.samples > 16
    assert (kept.batches[0]["mask"] == 1).all()


def test_one_sample_is_enough():
    assert keep([{"x": np.zeros((1, 4), np.float32)}]).samples == 1


def test_callables_by_name(tmp_path, monkeypatch):
    (tmp_path / "samples_for_lutc.py").write_text(
        "import numpy as np\ndef made():\n    yield {'x': np.zeros((3, 4), np.float32)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert keep("samples_for_lutc:made").samples == 3
    with pytest.raises(UsageError, match="cannot be imported"):
        open_source("samples_for_lutc:absent")


@pytest.mark.parametrize(
    ("batches", "match"),
    [
        ([], "no calibration samples"),
        ([{"y": np.zeros((1, 4), np.float32)}], "missing: x; unknown: y"),
        ([{"x": np.zeros((1, 4))}], "'x', sample 0: dtype float64"),
        ([{"x": np.zeros(4, np.float32)}], "'x', sample 0: rank 1"),
        ([{"x": np.zeros((1, 5), np.float32)}], "size 5 on axis 1"),
        ([{"x": np.zeros((0, 4), np.float32)}], "empty"),
        ([*numbered(3), {"x": np.array([[0, np.nan, 0, 0]], np.float32)}], "'x', sample 6: NaN"),
        ([*numbered(3), {"x": np.array([[0, 0, 0, 0], [0, np.inf, 0, 0]], np.float32)}], "'x', sample 7: NaN"),
        ([3], "int, not dicts"),
    ],
)
def test_bad_samples_are_named(batches, match):
    with pytest.raises(UsageError, match=match):
        keep(batches)


def test_unequal_counts_in_an_npz(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 4), np.float32), ids=np.zeros((2, 5), np.int64))
    with pytest.raises(UsageError, match="counts samples"):
        keep(tmp_path / "a.npz", [X, IDS])


@pytest.mark.parametrize("name", ["absent.npz", "damaged.npz", "text.csv"])
def test_bad_paths(tmp_path, name):
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 no")
    (tmp_path / "text.csv").write_text("1,2")
    with pytest.raises(UsageError, match=name):
        keep(tmp_path / name)


def test_reservoir_keeps_to_its_budget_and_is_fair():
    budget = 20 * 2 * 4 * 4
    counts = np.zeros(200)
    for seed in range(40):
        kept = keep(numbered(200), budget=budget, seed=seed)
        assert kept.cost <= budget
        assert (kept.samples, kept.seen) == (40, 400)
        values = [int(batch["x"][0, 0]) for batch in kept.batches]
        assert values == sorted(values)
        counts[values] += 1
    # 4 +- 1.9 draws are expected of each batch: neither end of the stream may be favoured.
    assert abs(counts[:100].mean() - 4) < 0.8
    again = [int(batch["x"][0, 0]) for batch in keep(numbered(200), budget=budget, seed=39).batches]
    assert again == values


def test_memory_does_not_grow_with_the_stream():
    alive = []

    def stream():
        import weakref

        for _ in range(500):
            array = np.zeros((2, 4), np.float32)
            alive.append(weakref.ref(array))
            yield {"x": array}

    kept = keep(stream(), budget=10 * 32)
    assert len(kept.batches) == 10
    assert sum(ref() is not None for ref in alive) <= 12
