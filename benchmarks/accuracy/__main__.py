"""Accuracy and time of compiled models beside other runtimes' int8.

    python -m benchmarks.accuracy --task sts|sst2|cifar10|speech[,...] [--isa native,avx2] [--json]
    python -m benchmarks.accuracy --task ... --times        only the times again, of artifacts that are there
    python -m benchmarks.accuracy --task ... --ladder       what each ingredient adds at equal lookups
    python -m benchmarks.accuracy --budgets 20              are random budgets kept?
    python -m benchmarks.accuracy --never-slower            is a selection slower than int8, on any model of the pack?
    python -m benchmarks.accuracy --goals                   what the results say

Results are merged into benchmarks/results/accuracy.json. Artifacts stay in build/benchmarks/accuracy.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence

from benchmarks import command, harness, onnx_pack, result_files, variants
from benchmarks.accuracy import budgets, judge, ladder, methods, never_slower, rivals, tasks, times, verdict
from benchmarks.accuracy.methods import Method, Skipped
from benchmarks.accuracy.tasks import Case

MODULE = "benchmarks.accuracy"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line's options."""
    parser = command.parser("accuracy", __doc__, threads="", only="the names of the methods or of the ladder's rungs")
    parser.add_argument("--task", default=",".join(tasks.NAMES), help="several separated by commas; default: all")
    parser.add_argument("--models", default="", help="regular expression over the models' names")
    parser.add_argument("--folds", type=int, default=0, metavar="N", help="of a cross-validated model only the first N")
    parser.add_argument(
        "--learn", default="", help="also with so many minutes of learning a network; numbers with commas between"
    )
    parser.add_argument("--times", action="store_true", help="only the times, of artifacts that are there")
    parser.add_argument("--no-times", action="store_true", help="compile and judge only")
    parser.add_argument("--seconds", type=float, default=20, help="for the times of each model and ISA")
    parser.add_argument("--ladder", action="store_true", help="what each ingredient adds")
    parser.add_argument("--width", type=int, default=4, help="V of the ladder")
    parser.add_argument("--minutes", default="5,15,60", help="of learning a network, for the ladder")
    parser.add_argument("--budgets", type=int, default=0, metavar="N", help="test N random budgets")
    parser.add_argument("--never-slower", action="store_true", help="selections of the whole ONNX pack against int8")
    parser.add_argument("--presets", default="fast", help="for --never-slower; several separated by commas")
    parser.add_argument("--samples", type=int, default=24, help="likewise, made-up ones of each model")
    parser.add_argument("--goals", action="store_true", help="only print what the results say")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0, or 1 where random budgets were broken or a selection is slower than int8."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(arguments)
    variant = variants.child()
    chosen = [case for case in tasks.cases(options.task, options.folds) if re.search(options.models, case.name)]
    if variant is not None:  # the process that takes the times
        harness.pin(1)
        for case in chosen:
            _time(case, variant[0], options)
        return 0
    isas = [_isa(name) for name in options.isa.split(",")]
    status = 0
    if options.never_slower:
        return max(_never_slower(isa, options) for isa in isas)
    if options.budgets:
        status = _budgets(chosen, isas[0], options)
    elif options.ladder:
        for case in chosen:
            _ladder(case, isas[0], options)
    elif not options.goals:
        if not options.times:
            for case in chosen:
                for isa in isas:
                    _compile_and_judge(case, isa, options)
        if not options.no_times:
            status = variants.run_children(MODULE, ",".join(isas), "1", arguments)
            for case in chosen:
                _judge_rivals(case, options)
    _say(options)
    return status


def _isa(name: str) -> str:
    from lutc import _runtime

    return _runtime.available_isas()[-1] if name == "native" else name


def _methods(options: argparse.Namespace) -> list[Method]:
    found = list(methods.METHODS)
    for minutes in filter(None, options.learn.split(",")):
        found += [method.learned(float(minutes)) for method in methods.METHODS if method.method == "closed form"]
    return [method for method in found if re.search(options.only, method.name)]


def _compile_and_judge(case: Case, isa: str, options: argparse.Namespace) -> None:
    """Every method on one model, each row stored as it is made."""
    for method in _methods(options):
        name = f"our {method.name}, {isa}, on {case}"
        try:
            row = judge.row(case, method, isa, methods.compile_all(case, method, isa, judge.dense_score))
        except (Skipped, FileNotFoundError, ImportError) as reason:
            print(f"{name}: skipped, {reason}", file=sys.stderr, flush=True)
            result_files.merge(options.output, [], {name: str(reason)})
            continue
        print(verdict.line(row), file=sys.stderr, flush=True)
        result_files.merge(options.output, [row], done=[name])  # without times: the old ones were another artifact's


def _time(case: Case, isa: str, options: argparse.Namespace) -> None:
    """Times every artifact of a model (of several folds, the first) that the results know: into its row."""
    rows, fold = {}, case.folds[0]
    mine = ("accuracy", case.task, case.model, isa)
    for row in result_files.load(options.output).get("rows", []):
        if (row["bench"], row.get("task"), row.get("model"), row.get("isa")) == mine:
            path = methods.artifact(fold, Method(row["form"], row["method"], (), row["minutes"]), isa)
            if path.exists():
                rows[path.stem] = (row, path)
    if not rows:
        return
    found, opened = times.measure(fold, {name: path for name, (_, path) in rows.items()}, isa, options.seconds)
    skipped = {f"{name} on {case}, {isa}": reason for name, reason in opened.skipped.items()}
    notes = {"avx2": variants.UNLIMITED} if isa == "avx2" else None
    done = [f"{name} on {case}, {isa}" for name in opened.calls]
    result_files.merge(
        options.output, [{**row, **found[name]} for name, (row, _) in rows.items()], skipped, notes, done
    )


def _judge_rivals(case: Case, options: argparse.Namespace) -> None:
    """What int8 elsewhere keeps, in the variants that were timed."""
    rows = result_files.load(options.output).get("rows", [])
    mine = [
        row for row in rows if (row["bench"], row.get("task"), row.get("model")) == ("accuracy", case.task, case.model)
    ]
    for isa in sorted({row["isa"] for row in mine if row.get("peers_us")}):
        timed = next(row for row in mine if row["isa"] == isa and row.get("peers_us"))
        judged, skipped = rivals.judge_all(case, timed["variants"], lambda sessions: judge.judge(case, sessions))
        base = {"bench": "accuracy of peers", "task": case.task, "model": case.model, "isa": isa, "minutes": 0}
        made = [{**base, **row, "us": timed["peers_us"][row["method"]]} for row in judged]
        for row in made:
            print(f"{case} {isa} {row['method']}: {row['after']:.4f}, drop {row['drop']:+.4f}", file=sys.stderr)
        result_files.merge(
            options.output, made, {f"accuracy of {name} on {case}": why for name, why in skipped.items()}
        )


def _ladder(case: Case, isa: str, options: argparse.Namespace) -> None:
    minutes = [float(each) for each in options.minutes.split(",") if each]
    for row, name, reason in ladder.climb(case, isa, options.width, minutes, options.only):
        key = f"ladder V={options.width}: {name} on {case}"
        result_files.merge(options.output, [row] if row else [], {} if row else {key: reason}, done=[key])


def _budgets(cases: Sequence[Case], isa: str, options: argparse.Namespace) -> int:
    """By default on the two smallest models."""
    small = [case for case in cases if case.name in ("resnet20", "res8")] or list(cases)
    rows = []
    for row in budgets.test(small, isa, options.budgets):
        rows.append(row)
        result_files.merge(options.output, [{**row, "at": f"{row['budget']:.5f}"}])
    found = budgets.verdict(rows)
    result_files.merge(options.output, [found])
    print(json.dumps(found), file=sys.stderr)
    return int(bool(found["broken"]))


def _never_slower(isa: str, options: argparse.Namespace) -> int:
    rows = []
    networks = onnx_pack.every_model(options.models)
    for row, name, reason in never_slower.test(networks, isa, options.presets.split(","), options.samples):
        result_files.merge(options.output, [row] if row else [], {} if row else {name: reason}, done=[name])
        if row:
            rows.append(row)
    found = never_slower.verdict(rows, isa)
    if not options.models:
        result_files.merge(options.output, [found])
    print(json.dumps(found), file=sys.stdout if options.json else sys.stderr)
    return int(not found["holds"])


def _say(options: argparse.Namespace) -> None:
    """Renews the verdicts (not where they are only asked for), prints them and the rows."""
    rows = result_files.load(options.output).get("rows", [])
    found = list(verdict.verdicts(rows))
    if not options.goals:
        result_files.merge(options.output, found)
    wanted = set(options.task.split(","))
    shown = [row for row in rows if row.get("task") in wanted]
    if options.json:
        print("\n".join(map(json.dumps, [*shown, *found])), flush=True)
    command.say(options, verdict.table([row for row in shown if row["bench"] == "accuracy"]))
    command.say(options, ladder.table(shown))
    command.say(options, "\n".join(verdict.goal_line(row) for row in found))


if __name__ == "__main__":
    sys.exit(main())
