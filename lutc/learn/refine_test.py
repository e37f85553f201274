"""`lutc compile --learn`: after a preset of one form, after a selection, and with the baseline's method."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("torch")

import lutc
from lutc.cli import main
from lutc.errors import UsageError
from lutc.learn.testing import conv_network, images


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learn")
    ir.save(conv_network(), folder / "net.onnx")
    np.savez(folder / "calib.npz", x=np.concatenate([batch["x"] for batch in images(192)]))
    return folder


@pytest.mark.parametrize("flags", [("--preset", "gain-v4"), ("--preset", "plain-v4", "--method", "lutnn")])
def test_the_artifact_is_what_was_learned(road, capsys, flags):
    arguments = ["compile", str(road / "net.onnx"), "--calib", str(road / "calib.npz"), "-o", str(road / "net.lut")]
    assert main([*arguments, *flags, "--learn", "0.02", "--threads", "1", "-q", "--json"]) == 0
    learned = json.loads(capsys.readouterr().out)["learn"]
    told, tells = learned["classes"]
    assert learned["kept"] == (learned["after"] + tells < learned["before"] + told) and learned["steps"] > 0
    x = images(32, seed=5)[0]
    theirs = lutc.load(road / "net.lut").run(None, x)[0]
    assert np.isfinite(theirs).all()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--learn", "0"), "--learn 10"),
        (("--learn", "nan"), "--learn 10"),
        (("--learn", "inf"), "--learn 10"),
        (("--method", "magic"), "lutc, lutnn"),
        (("--method", "lutnn", "--preset", "gain-v3"), "plain-v8"),
        (("--method", "lutnn"), "plain-v8"),
    ],
)
def test_flags_that_make_no_sense_are_refused_at_once(road, capsys, flags, message):
    assert main(["compile", str(road / "net.onnx"), "--calib", "random", *flags]) == UsageError.exit_code
    assert message in " ".join(capsys.readouterr().err.split())
