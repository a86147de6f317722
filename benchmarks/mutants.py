"""How many planted faults the tests notice: one small change in the code at a time, put to the tests that run its line.

make coverage                                        (which tests ran which line, and how long they took)
python benchmarks/mutants.py --each 75 --seed 1      (goes on where it was stopped)

Drawn uniformly in each room from all changes that `changes` knows. Left alone: docstrings, type hints, what stands in a
`raise` or a warning, text, and what changes nothing: the order of the arguments of `max` and the like, `strict=` of
`zip`, which says what is so. A change counts as noticed when a test fails that passes without it, or when the tests use
over five times their processor time. Only tests of `--budget` seconds in all are asked, quick ones that run little else
first, so the score is a lower bound.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
SOURCE = Path("src/heatprint")
COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip


SYMMETRIC = ("max", "min", "maximum", "minimum", "promote_types", "equal", "array_equal")


class Change(NamedTuple):
    """One mutant: `kind` of operator, the lines it stands on, the file's text before and after."""

    path: str
    kind: str
    lines: range
    before: str
    after: str

    def diff(self) -> list[str]:
        """The changed lines with one around them."""
        both = difflib.unified_diff(self.before.splitlines(), self.after.splitlines(), n=1, lineterm="")
        return list(both)[2:]


def others(node: ast.AST) -> Iterator[tuple[str, str]]:
    """What may stand in the place of a node: the kind of change, and the text."""
    for kind, made in (*operations(node), *calls(node)):
        yield kind, f"({ast.unparse(made)})"
    match node:
        case ast.Constant(bool() as value):
            yield "constant", str(not value)
        case ast.Constant(int() | float() as value):
            yield "constant", str(value + 1 if isinstance(value, int) or not value else value * 2)
        case ast.Return(value) if value and not (isinstance(value, ast.Constant) and value.value is None):
            yield "return", "return None"
        case ast.Expr(ast.Call()) | ast.AugAssign() | ast.Assign([ast.Attribute() | ast.Subscript()]):
            yield "statement", "pass"
        case ast.Raise() | ast.Continue() | ast.Break():
            yield "statement", "pass"
    if isinstance(node, ast.If | ast.While | ast.IfExp) and isinstance(node.test, ast.Name | ast.Call | ast.Attribute):
        yield "condition", ""


def operations(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Another operator."""
    match node:
        case ast.Compare(left, ops, right):
            for i, op in enumerate(ops):
                yield "comparison", ast.Compare(left, [*ops[:i], COMPARE[type(op)](), *ops[i + 1 :]], right)
        case ast.BinOp(left, op, right) if type(op) in ARITHMETIC:
            yield "arithmetic", ast.BinOp(left, ARITHMETIC[type(op)](), right)
        case ast.BoolOp(op, values):
            yield "boolean", ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.Not() | ast.USub() | ast.Invert() as op, operand):
            yield "boolean" if isinstance(op, ast.Not) else "arithmetic", operand


def calls(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """The first two arguments changed for each other."""
    match node:
        case ast.Call(called, [first, second, *rest], keywords) if ast.dump(first) != ast.dump(second):
            if ast.unparse(called).rpartition(".")[2] not in SYMMETRIC and not any(
                isinstance(one, ast.Starred) for one in (first, second)
            ):
                yield "arguments", ast.Call(called, [second, first, *rest], keywords)


def parts(node: ast.AST) -> Iterator[ast.AST]:
    """A node and what stands in it, without hints, text and messages."""
    match node:
        case ast.JoinedStr() | ast.If(ast.Name("TYPE_CHECKING")) | ast.Assign([ast.Name("__all__")]):
            return
        case ast.Call(ast.Attribute(ast.Name("warnings"), "warn")) | ast.Expr(ast.Call(ast.Name("warn"))):
            return
        case ast.BinOp(ast.JoinedStr() | ast.Constant(str())) | ast.BinOp(right=ast.JoinedStr() | ast.Constant(str())):
            return
    yield node
    if isinstance(node, ast.Raise) or (isinstance(node, ast.keyword) and node.arg == "strict"):
        return
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "type_params"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from parts(child)


def changes(path: str, text: str) -> Iterator[Change]:
    """Every change of one file, in the order of the tree."""
    raw = text.encode()
    starts = [0]
    for line in raw.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in parts(ast.parse(text)):
        for kind, made in others(node):
            place = node.test if kind == "condition" else node
            if kind == "condition":
                made = f"(not {ast.unparse(place)})"
            begin = starts[place.lineno - 1] + place.col_offset
            end = starts[place.end_lineno - 1] + place.end_col_offset
            after = (raw[:begin] + made.encode() + raw[end:]).decode()
            yield Change(path, kind, range(place.lineno, place.end_lineno + 1), text, after)


class Reach:
    """Which tests run a line, and how long each takes, from `.coverage` and `.coverage.xml`."""

    def __init__(self, work: Path) -> None:
        """Read what `make coverage` left in a folder."""
        from coverage import CoverageData

        self.data = CoverageData(str(work / ".coverage"))
        self.data.read()
        with contextlib.closing(sqlite3.connect(work / ".coverage")) as base:
            wide = base.execute(
                "select context, count(distinct file_id) from arc join context on context.id = context_id"
                " group by context"
            )
            self.width = {name.rsplit("|", 1)[0]: count for name, count in wide if name.endswith("|run")}
        self.files = {name[name.index(str(SOURCE)) :]: name for name in self.data.measured_files()}
        self.seconds: dict[str, float] = {}
        for case in ElementTree.parse(work / ".coverage.xml").iter("testcase"):
            if "browser" in case.get("classname", ""):
                continue  # slow, and patient for only so long
            if case.find("skipped") is None and case.find("failure") is None and case.find("error") is None:
                test = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
                self.seconds[test] = float(case.get("time", 0))

    def tests(self, change: Change) -> list[str]:
        """The tests that run the lines of a change, the quick ones that run few other files first.

        Where a fixture runs them, the tests of its file, too; where only the import does, those that run the file.
        """
        by_line = self.data.contexts_by_lineno(self.files.get(change.path, change.path))
        contexts = {c for line in change.lines for c in by_line.get(line, ()) if c}
        contexts = contexts or {c for line in by_line.values() for c in line if c}
        own = {c.rsplit("|", 1)[0] for c in contexts if c.endswith("|run")}
        homes = {c.split("::", 1)[0] for c in contexts if not c.endswith("|run")}
        all_ = {test for test in self.seconds if test in own or test.split("::", 1)[0] in homes}
        cost = {test: (self.seconds[test] + 0.01) * self.width.get(test, 1) for test in all_}
        return sorted(all_, key=lambda test: (test not in own, cost[test], test))


class Chosen:
    """A pytest plugin: only the named tests, those of the first named file first; the first that fails is kept.

    It ends when `seconds` of processor time are spent: fixtures cost, too.
    """

    def __init__(self, tests: list[str], told: Path, seconds: float) -> None:
        files = [test.split("::", 1)[0] for test in tests]
        self.order = {test: (files.index(file), i) for i, (test, file) in enumerate(zip(tests, files, strict=True))}
        self.told, self.until = told, time.process_time() + seconds

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Only these, in this order."""
        items[:] = sorted((i for i in items if i.nodeid in self.order), key=lambda i: self.order[i.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Say which one runs."""
        (self.told.parent / "now").write_text(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep the one that fails."""
        if report.failed:
            self.told.write_text(report.nodeid)

    def pytest_runtest_logfinish(self) -> None:
        """End when the time is over."""
        if time.process_time() > self.until:
            sys.modules["pytest"].exit("enough", returncode=0)


def run(work: Path, tests: list[str], seconds: float) -> str:
    """What the tests say in a forked process: "" if all pass, the test that failed, "import", or "time"."""
    told = work / "told"
    told.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        import pytest

        os.setsid()
        os.dup2(os.open(work / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        limit = int(30 + 2 * seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
        sys.path.insert(0, str(work / "src"))
        options = ["-x", "-q", "-n0", "-p", "no:cacheprovider", f"--basetemp={work / 'tmp'}"]
        files = sorted({test.split("::", 1)[0] for test in tests})
        os._exit(int(pytest.main([*options, *files], plugins=[Chosen(tests, told, seconds)])))
    until = time.monotonic() + 60 * seconds  # of a process that waits for ever
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < until:
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(ended[1] if ended[0] else os.waitpid(child, 0)[1])
    if told.exists():
        return told.read_text()
    return "" if code == 0 else "time" if code < 0 else "import"


def judged(work: Path, change: Change, reach: Reach, budget: float, sound: dict[str, bool]) -> dict[str, Any]:
    """Put a change to its tests. A test that fails without it, too, is left out of what it is put to."""
    tests: list[str] = []
    spent = 0.0
    for test in reach.tests(change):
        if spent + reach.seconds[test] <= budget or not tests:
            tests, spent = [*tests, test], spent + reach.seconds[test]
    file = work / change.path
    was = file.stat().st_mtime
    while tests:
        file.write_text(change.after)
        os.utime(file, (was + 1, was + 1))  # another time than the compiled file's, so that this is read
        by = run(work, tests, budget)
        slow = (work / "now").read_text() if by == "time" else ""
        still = by != "time" or run(work, [slow], budget) == "time"  # or was it only late, after all others
        file.write_text(change.before)
        os.utime(file, (was, was))
        test = slow or by
        if test not in sound and test not in ("", "import"):
            sound[test] = run(work, [test], budget) == ""
        if still and sound.get(test, True):
            return {"by": by, "test": test, "tests": len(tests), "seconds": round(spent, 1)}
        tests.remove(test)
    return {"by": "", "test": "", "tests": 0, "seconds": 0.0}


def prepared(root: Path, work: Path) -> None:
    """A copy of sources and tests with everything compiled, and the libraries loaded once."""
    for name in ("src", "tests", "docs", "pyproject.toml", "README.md", "CONTRIBUTING.md"):
        if (root / name).is_dir():
            shutil.rmtree(work / name, ignore_errors=True)  # one that was stopped left its change there
            shutil.copytree(root / name, work / name)
        else:
            shutil.copy2(root / name, work / name)
    os.environ |= {"PYTHONPATH": str(work / "src"), "OMP_NUM_THREADS": "1", "HYPOTHESIS_PROFILE": "fast"}
    os.chdir(work)
    open_ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-m", "compileall", "-q", "src"], check=True, env=open_)
    collect = [sys.executable, "-m", "pytest", "-n0", "-q", "--collect-only"]
    subprocess.run(collect, check=True, env=open_, stdout=subprocess.DEVNULL)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    for library in ("torch", "torchvision", "pytest", "sklearn.cluster", "umap", "skimage.segmentation",
                    "pyarrow.parquet", "matplotlib.pyplot", "plotly.graph_objects", "pydantic"):  # fmt: skip
        __import__(library)


def told(lines: list[dict[str, Any]]) -> str:
    """The table by room, then every survivor as a diff."""
    from scipy.stats import binomtest

    rows = ["| room | mutants | noticed | of them by time | no test | score | 95 % |", "|---|---|---|---|---|---|---|"]
    for room in [*dict.fromkeys(one["room"] for one in lines), "all"]:
        some = [one for one in lines if room in ("all", one["room"])]
        hit, late = sum(bool(one["by"]) for one in some), sum(one["by"] == "time" for one in some)
        span = binomtest(hit, len(some)).proportion_ci(method="wilson")
        bare = sum(not one["tests"] for one in some)
        share = f"{hit / len(some):.1%} | {span.low:.1%} to {span.high:.1%}"
        rows.append(f"| {room} | {len(some)} | {hit} | {late} | {bare} | {share} |")
    for one in lines:
        if not one["by"]:
            rows += ["", f"{one['path']} ({one['kind']}, {one['tests']} tests)", *one["diff"]]
    return "\n".join(rows)


def main() -> None:
    """Draw, judge, tell."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rooms", nargs="+", default=["core", "attacks", "explainers", "signatures"])
    asked.add_argument("--each", type=int, default=75, help="mutants of each room")
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--budget", type=float, default=30, help="seconds of tests for one mutant")
    asked.add_argument("--without", nargs="*", default=[], help="files of a room to leave out")
    asked.add_argument("--root", type=Path, default=ROOT, help="the checkout, with .coverage and .coverage.xml")
    asked.add_argument("--work", type=Path, default=ROOT / "build" / "mutants", help="where the copy is made")
    asked.add_argument("--out", type=Path, default=Path("mutants.jsonl"))
    asked.add_argument("--again", action="store_true", help="judge the survivors of --out again")
    options = asked.parse_args()
    if not (options.root / ".coverage.xml").exists():
        asked.error(f"no .coverage and .coverage.xml in {options.root}: write `make coverage` first")
    out = options.out.resolve()
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    if options.again:
        done = [one for one in done if one["by"]]
        out.write_text("".join(json.dumps(one) + "\n" for one in done))
    known = {(one["path"], tuple(one["diff"])) for one in done}
    root, work = options.root.resolve(), options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    reach = Reach(root)
    prepared(root, work)
    sound: dict[str, bool] = {}
    quick = sorted(reach.seconds, key=lambda test: reach.seconds[test])[:50]
    if by := run(work, quick, options.budget):
        sys.exit(f"Nothing is changed yet, and {by} fails: see {work / 'log'}")
    for room in options.rooms:
        files = sorted(p for p in (work / SOURCE / room).rglob("*.py") if p.name not in options.without)
        every = [c for p in files for c in changes(str(p.relative_to(work)), p.read_text())]
        drawn = random.Random(f"{options.seed} {room}").sample(every, min(options.each, len(every)))
        print(f"{room}: {len(every)} changes, {len(drawn)} drawn", flush=True)
        for change in drawn:
            if (change.path, tuple(change.diff())) not in known:
                found = judged(work, change, reach, options.budget, sound)
                one = {"room": room, "path": change.path, "kind": change.kind, "diff": change.diff(), **found}
                done.append(one)
                with out.open("a") as file:
                    file.write(json.dumps(one) + "\n")
    print(told(done))


if __name__ == "__main__":
    main()
