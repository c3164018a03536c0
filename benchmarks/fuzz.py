"""Fuzzing: every answer is certified or refused; nothing is silently wrong, crashes or hangs.

``python -m benchmarks.fuzz`` draws problems of every set and every kind of hostile data
(`fuzz_problems.py`), checks each answer from the rows of the set (`fuzz_checks.py`), and writes a
tally. A problem that fails is saved as NPZ (arrays) and JSON (how to make it again), and
``--replay file.json`` judges it anew. A hang ends the process with a traceback; ``current.json``
then names the problem.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import json
import re
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

import hsref

from . import measure
from .fuzz_checks import judge
from .fuzz_problems import FORMS, KINDS, SPECIAL, Batch, build, kinds_of

RESULTS = Path(__file__).parent / "results"
POINTS, SINGLE = 250, 20
"""Points in a batch; and in one whose data contradict, where each costs a proof."""
PATIENCE, HARD = 60.0, 3600.0
"""Seconds of processor time after which a batch is called a hang (compilation apart); and of the
clock after which the process ends, should it wait forever."""
SAVED = 5
"""Problems saved for each set and kind of failure."""
REFUSALS = (ValueError, TypeError, hsref.NotSolvedError)
DTYPES = (np.float64, np.float32)
OUTCOMES = ("certified", "certified empty", "refused", "WRONG", "crash", "hang")


class Tally:
    """Counts by set, kind of data and outcome; reasons; worst residuals of certified answers."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], collections.Counter] = {}
        self.refusals: collections.Counter = collections.Counter()
        self.worst: dict[str, dict[str, float]] = {}
        self.failures: list[dict[str, Any]] = []
        self.compiled: set[str] = set()

    def add(self, form: str, kind: str, outcome: str, count: int = 1) -> None:
        """Count samples."""
        self.counts.setdefault((form, kind), collections.Counter())[outcome] += count

    def measured(self, dtype: str, form: str, residuals: dict[str, np.ndarray]) -> None:
        """Keep the largest residuals."""
        for name, value in residuals.items():
            largest = float(np.nanmax(value, initial=0.0))
            for row in ("all sets", form):
                best = self.worst.setdefault(f"{dtype} {row}", {})
                best[name] = max(best.get(name, 0.0), largest)

    def total(self, outcome: str | None = None) -> int:
        """Return the samples with an outcome, or all."""
        found = self.counts.values()
        return sum(c.total() if outcome is None else c[outcome] for c in found)


def _refusal(problem: BaseException) -> str:
    """Return the kind of a refusal: its type and sentence without numbers."""
    status = getattr(problem, "status", None)
    if status is not None:
        return f"{type(problem).__name__} {status.name}"
    sentence = re.sub(r"[-+(\[]*\d[\d.e+\-, \])]*", "# ", str(problem))
    return f"{type(problem).__name__}: {sentence[:90]}"


def _solve(batch: Batch, dtype: Any) -> tuple[Any, np.ndarray, list[BaseException]]:
    """Return the record of the samples that are answered, their numbers, and the refusals."""
    x = batch.x.astype(dtype).reshape(-1, *batch.C.shape)
    keep = np.arange(len(x))
    refused: list[BaseException] = []
    try:
        return hsref.projection(x, batch.C, on_infeasible="nan", **batch.data), keep, refused
    except hsref.NotSolvedError:
        answered = []
        for i in keep.tolist():
            try:
                data: dict[str, Any] = {k: v[i] for k, v in batch.data.items()}
                hsref.project(x[i], batch.C, on_infeasible="nan", **data)
                answered.append(i)
            except hsref.NotSolvedError as problem:
                refused.append(problem)
        keep = np.array(answered, dtype=int)
    if not len(keep):
        return None, keep, refused
    data = {k: v[keep] for k, v in batch.data.items()}
    return hsref.projection(x[keep], batch.C, on_infeasible="nan", **data), keep, refused


def run_batch(tally: Tally, out: Path, key: dict[str, Any]) -> None:
    """Draw, solve, judge and count the batch of a key of :func:`plan`."""
    form, kind, dtype, count = key["set"], key["kind"], key["dtype"], key["points"]
    rng = _generator(key)
    batch = None
    try:
        with np.errstate(all="ignore"):
            _compile(tally, key)
        with measure.limit(PATIENCE, processor=True), np.errstate(all="ignore"):
            try:
                batch = build(form, kind, count, rng)
                record, keep, refused = _solve(batch, np.dtype(dtype))
            except REFUSALS as problem:
                if _is_internal(problem):
                    raise
                tally.refusals[_refusal(problem)] += count
                return tally.add(form, kind, "refused", count)
            for problem in refused:
                tally.refusals[_refusal(problem)] += 1
            tally.add(form, kind, "refused", len(refused))
            if record is None:
                return None
            # The problem is the one that was solved: data at the call take the dtype of x.
            data = {k: v[keep].astype(dtype) for k, v in batch.data.items()}
            planted = None if batch.z is None else batch.z[keep]
            part = Batch(batch.C, batch.x[keep], data, planted)
            verdict = judge(part, record, kind, rng)
    except TimeoutError:
        tally.add(form, kind, "hang", count)
        _save(tally, out, key, batch, "hang", None, "no answer in time")
        return None
    except Exception as problem:
        tally.add(form, kind, "crash", count)
        detail = "".join(traceback.format_exception(problem))
        _save(tally, out, key, batch, "crash", None, f"{type(problem).__name__}: {problem}", detail)
        return None
    wrong = np.array([bool(r) for r in verdict["reasons"]])
    tally.add(form, kind, "WRONG", int(wrong.sum()))
    tally.add(form, kind, "certified", int((~wrong & ~verdict["empty"]).sum()))
    tally.add(form, kind, "certified empty", int((~wrong & verdict["empty"]).sum()))
    tally.measured(
        dtype, form, {k: np.where(wrong, np.nan, v) for k, v in verdict["residuals"].items()}
    )
    for i in np.flatnonzero(wrong)[:1].tolist():
        _save(tally, out, key, part, "WRONG", i, verdict["reasons"][i])
    return None


def _generator(key: dict[str, Any]) -> np.random.Generator:
    place = [FORMS.index(key["set"]), KINDS.index(key["kind"])]
    return np.random.default_rng([key["seed"], *place, key["number"]])


def _compile(tally: Tally, key: dict[str, Any]) -> None:
    """Compile what a batch needs, once, so that its time is that of the solver."""
    try:
        C = build(key["set"], key["kind"], 1, _generator(key)).C
        label = f"{C.kernel.name} {key['dtype']}"
        if label not in tally.compiled:
            tally.compiled.add(label)
            hsref.warmup([C], [key["dtype"]])
    except REFUSALS:
        pass


def _is_internal(problem: BaseException) -> bool:
    """Tell an error of NumPy's or Python's that escaped from a sentence that the library raised.

    The latter comes from a raise statement; one in the benchmarks themselves is a fault of theirs.
    """
    if isinstance(problem, (hsref.NotSolvedError, hsref.InfeasibleError)):
        return False
    frames = traceback.extract_tb(problem.__traceback__)
    source = frames[-1].line or "" if frames else ""
    return Path(frames[-1].filename).parts[-2:-1] == ("benchmarks",) or "raise" not in _statement(
        frames[-1], source
    )


def _statement(frame: traceback.FrameSummary, line: str) -> str:
    """Return the line of a frame and, where it is part of a longer statement, those before it."""
    try:
        lines = Path(frame.filename).read_text().splitlines()
    except OSError:
        return line
    number = frame.lineno or 1
    return "\n".join(lines[max(0, number - 6) : number + 1])


def _save(
    tally: Tally, out: Path, key: dict[str, Any], batch: Batch | None, outcome: str,
    sample: int | None, reason: str, detail: str = "",
) -> None:  # fmt: skip
    """Write a failing problem, unless enough like it are there."""
    alike = [f for f in tally.failures if f["set"] == key["set"] and f["outcome"] == outcome]
    row = {**key, "outcome": outcome, "sample": sample, "reason": reason, "detail": detail}
    tally.failures.append(row)
    if len(alike) >= SAVED:
        return
    name = re.sub(r"[^a-zA-Z0-9]+", "-", f"{key['set']} {key['kind']} {key['dtype']}")
    path = out / "fuzz-failures" / f"{name}-{key['seed']}-{key['number']}-{outcome.lower()}.json"
    measure.write_json(path, {**row, "C": repr(batch.C) if batch else None})
    if batch is None:
        return
    arrays = {"x": batch.x if sample is None else batch.x[sample]}
    arrays |= {k: v if sample is None else v[sample] for k, v in batch.data.items()}
    arrays |= {f"C_{k}": v for k, v in vars(batch.C).items() if isinstance(v, np.ndarray)}
    arrays |= {f"field_{f.name}": f.value for f in batch.C._fields}
    np.savez(path.with_suffix(".npz"), allow_pickle=False, **arrays)


def plan(problems: int, seed: int, sets: list[str]) -> list[dict[str, Any]]:
    """Return the keys of all batches: every set, kind and dtype in turn, until there are enough."""
    keys: list[dict[str, Any]] = []
    total = number = 0
    while total < problems:
        for form in sets:
            for kind in kinds_of(form):
                for dtype in DTYPES:
                    single = form in SPECIAL and "infeasible" in kind
                    points = min(SINGLE if single else POINTS, problems - total)
                    if points <= 0:
                        return keys
                    keys.append({
                        "set": form, "kind": kind, "dtype": np.dtype(dtype).name, "seed": seed,
                        "number": number, "points": points,
                    })  # fmt: skip
                    total += points
                    number += 1
    return keys


def report(tally: Tally, command: str, seconds: float) -> str:
    """Return the tally in Markdown."""
    about = measure.machine()
    total = tally.total()
    lines = [
        "# Fuzzing", "",
        f"`{command}`: {total:,} problems in {seconds:.0f} s on one core, "
        f"{tally.total('WRONG')} wrong answers, "
        f"{tally.total('crash')} crashes, {tally.total('hang')} hangs.", "",
        f"hsref {hsref.__version__}, Python {about['python']}, NumPy {about['numpy']}, "
        f"{about['cpu']}, {about['when']} UTC.", "",
        "*Certified*: optimality conditions and HS-Jacobian elements hold to 1e-9 relative "
        "(float32: 1e-5), recomputed in NumPy from the rows of the set; *certified empty*: the "
        "Farkas vector proves it; *refused*: an error with a sentence, no number.", "",
    ]  # fmt: skip
    for title, place in (("set", 0), ("kind of data", 1)):
        lines += [f"| {title} | " + " | ".join(OUTCOMES) + " |", "|---" + "|---:" * 6 + "|"]
        groups: dict[str, collections.Counter] = {}
        for key, counts in tally.counts.items():
            groups.setdefault(key[place], collections.Counter()).update(counts)
        for name, counts in groups.items():
            lines.append(f"| {name} | " + " | ".join(f"{counts[o]:,}" for o in OUTCOMES) + " |")
        lines.append("")
    names = sorted({k for row in tally.worst.values() for k in row})
    lines += ["Largest residuals of certified answers:", "", "| | " + " | ".join(names) + " |"]
    lines.append("|---" + "|---:" * len(names) + "|")
    for label, row in sorted(tally.worst.items()):
        cells = [f"{row[k]:.0e}" if k in row else "-" for k in names]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    lines += ["", "Refusals, by their sentence without numbers:", "", "| samples | sentence |",
              "|---:|---|"]  # fmt: skip
    for sentence, count in tally.refusals.most_common():
        lines.append(f"| {count:,} | {sentence.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def run(problems: int, seed: int, sets: list[str], out: Path, command: str) -> Tally:
    """Fuzz, write ``fuzz.md`` and ``fuzz.json`` in `out`, and return the tally."""
    tally = Tally()
    keys = plan(problems, seed, sets)
    started = said = time.monotonic()
    for done, key in enumerate(keys, 1):
        measure.write_json(out / "current.json", key)
        faulthandler.dump_traceback_later(HARD, exit=True)
        run_batch(tally, out, key)
        faulthandler.cancel_dump_traceback_later()
        now = time.monotonic()
        if now - said > 10.0 or done == len(keys):
            said = now
            print(
                f"fuzz: {done}/{len(keys)} batches, {tally.total():,} problems, "
                f"{tally.total('WRONG')} wrong, {tally.total('crash')} crashed, "
                f"{now - started:.0f} s", file=sys.stderr,
            )  # fmt: skip
    (out / "current.json").unlink()
    seconds = time.monotonic() - started
    counts = [
        {"set": form, "kind": kind, **counts} for (form, kind), counts in tally.counts.items()
    ]
    measure.write_json(out / "fuzz.json", {
        "command": command, "seconds": seconds, "version": hsref.__version__,
        "machine": measure.machine(), "counts": counts, "refusals": dict(tally.refusals),
        "worst": tally.worst, "failures": tally.failures,
    })  # fmt: skip
    measure.write_atomically(out / "fuzz.md", report(tally, command, seconds))
    return tally


def main(arguments: list[str] | None = None) -> int:
    """Fuzz and write the tally; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--problems", type=int, default=100_000, help="samples in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="*", default=list(FORMS), help="; ".join(FORMS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--replay", type=Path, help="JSON file of a saved problem")
    options = parser.parse_args(arguments)
    if options.replay:
        key = json.loads(options.replay.read_text())
        names = ("set", "kind", "dtype", "seed", "number", "points")
        tally = Tally()
        run_batch(tally, options.out, {k: key[k] for k in names})
        for failure in tally.failures:
            print(failure["outcome"], failure["sample"], failure["reason"], failure["detail"])
        return int(bool(tally.failures))
    for name in options.sets:
        if name not in FORMS:
            raise SystemExit(f"no set {name!r}; there are: {', '.join(FORMS)}")
    command = f"python -m benchmarks.fuzz --problems {options.problems} --seed {options.seed}"
    if options.sets != list(FORMS):
        command += " --sets " + " ".join(f'"{s}"' if " " in s else s for s in options.sets)
    tally = run(options.problems, options.seed, options.sets, options.out, command)
    return int(bool(tally.failures))


if __name__ == "__main__":
    raise SystemExit(main())
