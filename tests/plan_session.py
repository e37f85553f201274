"""A plan, written and loaded as any artifact is, through memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from lutc import _runtime
from lutc.plan import Plan
from lutc.write import write_artifact


def plan_session(plan: Plan, **options: Any) -> Any:
    """A session of the runtime itself, so that its own errors are seen; options: isa, threads, memory_limit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.lut"
        write_artifact(plan, path, target="scalar", report={})
        return _runtime.Session.from_bytes(path.read_bytes(), **options)
