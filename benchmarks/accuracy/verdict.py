"""What the rows say about the goals: speed against the best int8 elsewhere at a drop of at most 1 % and 3 %."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.peers import limited

Row = Mapping[str, Any]

GOALS = {("avx512", 0.01): 2.0, ("avx512", 0.03): 2.8, ("avx2", 0.01): 3.0}
"""By ISA and share of the metric that may be lost."""


def best_ratio(row: Row) -> float | None:
    """How many times as fast as the fastest int8 peer (that its ISA allows), whatever that peer loses."""
    found = [row["ratio_vs"][name] for name in limited(row["isa"]) if name in row.get("ratio_vs", {})]
    return min(found) if found else None


def lost(row: Row) -> float:
    """The drop as a share of the original's metric."""
    return row["drop"] / row["before"]


def verdicts(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """For every model and goal the fastest artifact that loses no more; `ratio` is None where there is none."""
    measured = [row for row in rows if row.get("bench") == "accuracy" and row.get("ours_us")]
    models = sorted({(row["task"], row["model"]) for row in measured})
    for task, model in models:
        for (isa, share), goal in GOALS.items():
            mine = [row for row in measured if (row["task"], row["model"], row["isa"]) == (task, model, isa)]
            timed = [row for row in mine if best_ratio(row) is not None]
            kept = [row for row in timed if lost(row) <= share]
            if not timed:
                continue
            best = max(kept, key=lambda row: best_ratio(row) or 0.0, default=None)
            ratio = best_ratio(best) if best else None
            yield {
                "bench": "accuracy goal", "task": task, "model": model, "isa": isa, "at": f"{100 * share:g} %",
                "goal": goal, "ratio": ratio, "met": ratio is not None and ratio >= goal,
                "form_chosen": f"{best['form']}, {best['method']}" if best else None,
                "drop": best["drop"] if best else None, "interval": best["interval"]["drop"] if best else None,
                "sure": bool(best and best["interval"]["drop"][1] <= share * best["before"]),
            }  # fmt: skip


def line(row: Row) -> str:
    """A row for people."""
    interval = "[{:+.4f}, {:+.4f}]".format(*row["interval"]["drop"]) if row.get("interval") else "[interval unknown]"
    ratio = best_ratio(row)
    speed = f"  {row['ours_us'] / 1e3:8.3f} ms" if row.get("ours_us") else " " * 13
    against = f"  x best int8 {ratio:5.2f}" if ratio is not None else ""
    same = f"  same {row['agreement']:.3f}" if "agreement" in row else ""
    name = f"{row['form']}, {row['method']}" + (f" {row['minutes']:g} min" if row["minutes"] else "")
    return (
        f"{row['task']:8}{row['model']:9}{row['isa']:7} {name:40} {row['after']:.4f} ({row['before']:.4f})  "
        f"drop {row['drop']:+.4f} {interval}  cos {row['cosine']:.3f}{same}{speed}{against}"
    )


def goal_line(row: Row) -> str:
    """A verdict for people."""
    ratio = "none" if row["ratio"] is None else f"{row['ratio']:.2f}"
    mark = "ok" if row["met"] else "MISSED"
    head = f"{row['task']:8}{row['model']:9}{row['isa']:7} at {row['at']:4}"
    return f"{head} x best int8 {ratio:>5} / {row['goal']:.1f} {mark:6} {row['form_chosen'] or ''}"


def table(rows: Sequence[Row]) -> str:
    """Rows of one task by rising time."""
    order = sorted(rows, key=lambda row: (row["isa"], row.get("ours_us") or float("inf")))
    return "\n".join(line(row) for row in order)
