# ruff: noqa: E402
"""Learning as a whole: it helps, never harms, resumes as if nothing had happened, and says what is missing."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

from lutc.errors import UsageError
from lutc.fit.session import LookupSession
from lutc.ir.expand import EXPAND_OPS
from lutc.ir.graph import LUTC_DOMAIN, is_op
from lutc.learn import check_available, driver, learn_model
from lutc.learn.graph_test import compressed
from lutc.learn.trainer import Trainer
from lutc.observe import open_source

MORE = 384


def learned(kind, form, **settings):
    dense, fitted, data = compressed(kind, form, samples=MORE)
    settings = {"minutes": 0, "steps": 60, "batch": 16, "threads": 1, **settings}
    return fitted, learn_model(dense, fitted, open_source(data), **settings)


def bytes_of(model):
    return ir.to_proto(model).SerializeToString(deterministic=True)


@pytest.mark.parametrize(("kind", "form"), [("conv", "gain-v8"), ("tokens", "gain-v6"), ("tokens", "plain-v4")])
def test_learning_improves_held_out_samples(kind, form):
    fitted, result = learned(kind, form, rate=5e-3)
    assert result.kept and result.after < 0.97 * result.before
    assert result.samples + result.held_out == MORE
    assert bytes_of(result.model) != bytes_of(fitted.model)
    assert [p.step for p in result.curve] == sorted({p.step for p in result.curve})


def test_never_worse_than_before():
    fitted, result = learned("conv", "gain-v4", rate=3.0, steps=8)
    assert result.after <= result.before or not result.kept
    if not result.kept:
        assert bytes_of(result.model) == bytes_of(fitted.model)


@pytest.mark.parametrize(("tolerance", "factored"), [(float("inf"), True), (0.0, False)])
def test_tables_become_factors_only_where_that_loses_nothing(tolerance, factored, monkeypatch):
    monkeypatch.setattr(driver, "TOLERANCE", tolerance)
    _, result = learned("conv", "gain-v8", rate=5e-3, size="auto")
    assert result.kept
    assert any(is_op(node, *EXPAND_OPS, domain=LUTC_DOMAIN) for node in result.model.graph) == factored


def test_what_has_no_factors_is_judged_once(monkeypatch):
    asked = []
    monkeypatch.setattr(driver, "LookupSession", lambda model: asked.append(model) or LookupSession(model))
    _, result = learned("tokens", "plain-v4", steps=2, size="auto")
    assert not any(is_op(node, *EXPAND_OPS, domain=LUTC_DOMAIN) for node in result.model.graph)
    assert len(asked) == 3  # the original, the fit, what was learned


class Killed(Exception):
    pass


def test_an_interrupted_run_continues_to_the_same_bytes(tmp_path, monkeypatch):
    _, whole = learned("conv", "gain-v4", steps=20)
    original = Trainer._learn

    def until_killed(self, fraction):
        if self._step == 13:
            raise Killed
        original(self, fraction)

    monkeypatch.setattr(Trainer, "_learn", until_killed)
    with pytest.raises(Killed):
        learned("conv", "gain-v4", steps=20, checkpoint_dir=tmp_path, save_every=0.0)
    monkeypatch.setattr(Trainer, "_learn", original)
    lines = []

    class Notes:
        def __call__(self, *_):
            pass

        note = staticmethod(lines.append)

    _, resumed = learned("conv", "gain-v4", steps=20, checkpoint_dir=tmp_path, progress=Notes())
    assert bytes_of(resumed.model) == bytes_of(whole.model)
    assert any("step 13" in line for line in lines)


def test_ctrl_c_keeps_the_best_so_far_and_says_so(tmp_path, monkeypatch):
    original = Trainer._learn

    def interrupted(self, fraction):
        if self._step == 5:
            raise KeyboardInterrupt
        original(self, fraction)

    monkeypatch.setattr(Trainer, "_learn", interrupted)
    lines = []

    class Notes:
        def __call__(self, *_):
            pass

        note = staticmethod(lines.append)

    with pytest.raises(KeyboardInterrupt):
        learned("conv", "gain-v4", steps=20, checkpoint_dir=tmp_path, progress=Notes())
    assert any("interrupted" in line and str(tmp_path) in line for line in lines)
    assert len(list(tmp_path.glob("*.learn"))) == 1


def test_damaged_checkpoints_are_ignored(tmp_path):
    _, whole = learned("tokens", "gain-v4", steps=4, checkpoint_dir=tmp_path)
    (file,) = tmp_path.glob("*.learn")
    file.write_bytes(b"not a checkpoint")
    _, again = learned("tokens", "gain-v4", steps=4, checkpoint_dir=tmp_path)
    assert bytes_of(again.model) == bytes_of(whole.model)


def test_without_torch_there_is_one_clear_error(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "torch":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UsageError, match=r"pip install 'lutc\[learn\]'"):
        check_available()


_WORKER = """
import hashlib, os, pathlib
import onnx_ir as ir
from lutc.learn.driver_test import learned
_, result = learned("conv", "gain-v4", steps=4, minutes=0)
model = ir.to_proto(result.model).SerializeToString(deterministic=True)
# A file each: lines that both print to one pipe may run into each other.
found = pathlib.Path(__file__).with_name("result" + os.environ["RANK"])
found.write_text(f"{result.steps} {hashlib.sha256(model).hexdigest()}")
"""


def test_two_processes_agree(tmp_path):
    (tmp_path / "worker.py").write_text(_WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(tmp_path / "worker.py")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    found = {path.name: path.read_text() for path in tmp_path.glob("result*")}
    assert sorted(found) == ["result0", "result1"], done.stderr[-2000:]
    assert found["result0"] == found["result1"]


def test_minutes_end_on_time():
    now = np.zeros(1)

    def clock():
        now[0] += 0.5
        return float(now[0])

    _, result = learned("conv", "gain-v4", minutes=1.0, steps=None, clock=clock)
    assert 5 < result.steps < 120
