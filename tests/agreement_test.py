"""A compiled transformer: the runtime's codes, gains and sums are those of its function bodies in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import lutc
from benchmarks.agreement import layer_agreement, whole_model
from tests.models import export_roberta


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    return export_roberta(tmp_path_factory.mktemp("roberta") / "roberta.onnx")


def _feeds(count: int, seed: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    feeds = []
    for length in rng.integers(3, 20, count):
        mask = np.ones((2, length), np.int64)
        mask[1, length // 2 + 1 :] = 0
        feeds.append({"input_ids": rng.integers(3, 200, (2, length)), "attention_mask": mask})
    return feeds


@pytest.mark.parametrize("form", ["gain-v3", "plain-v4", "gain-v4-proj"])
def test_runtime_computes_what_the_bodies_define(roberta: Path, tmp_path: Path, form: str) -> None:
    lut, onnx = tmp_path / "a.lut", tmp_path / "a.onnx"
    lutc.compile(roberta, calib=_feeds(40, 0), output=lut, form=[f".*={form}"], save_onnx=onnx)
    rows = layer_agreement(ir.load(onnx), _feeds(2, 1))
    assert len(rows) >= 8
    assert all(row["values"] > 0 for row in rows)
    assert [row for row in rows if any(row["different"].values())] == []
    found = whole_model(lut, onnx, _feeds(20, 2))["native"]
    assert found["samples"] == 40
    assert found["median"] >= 0.9999
