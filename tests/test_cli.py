"""The command line: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hsref
import hsref.cli as cli


def ended(capsys, *arguments: str) -> tuple[int, str, str]:
    """Run the command and return its status, output and errors."""
    try:
        status = cli.main(list(arguments))
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    rng = np.random.default_rng(0)
    days = np.arange("2001-01-01", "2003-06-01", dtype="datetime64[D]")
    steps = 0.0004 + 0.01 * rng.standard_normal((len(days), 5))
    values = 20.0 * np.exp(np.cumsum(steps, axis=0))
    path = tmp_path_factory.mktemp("data") / "prices.csv"
    lines = ["date,A,B,C,D,E"]
    lines += [f"{day}," + ",".join(f"{v:.6f}" for v in row) for day, row in zip(days, values)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_version(capsys):
    assert ended(capsys, "--version")[:2] == (0, f"hsref {hsref.__version__}\n")


def test_no_command_shows_the_help(capsys):
    status, out, _ = ended(capsys)
    assert status == 0
    for word in ("train", "verify", "bench", "info", "warmup"):
        assert word in out


@pytest.mark.parametrize(
    "arguments", [["dance"], ["train"], ["train", "dance"], ["info", "--loud"]]
)
def test_a_wrong_command_is_refused(capsys, arguments):
    status, _, err = ended(capsys, *arguments)
    assert status == 2
    assert "usage: hsref" in err


def test_info_lists_every_set_and_extra(capsys):
    from hsref.sets import REGISTRY

    status, out, err = ended(capsys, "info")
    assert (status, err) == (0, "")
    for name in (*REGISTRY, "numba", "apps", "torch", "portfolio"):
        assert name in out


def test_bench_starts_what_the_checkout_holds(capfd):
    root = Path(cli.__file__).resolve().parent.parent
    if not (root / "benchmarks" / "workloads.py").exists():
        pytest.skip("this copy comes without the benchmarks")
    for name in cli.BENCHMARKS:
        assert (root / "benchmarks" / f"{name}.py").is_file()
    assert ended(capfd, "bench", "gate", "--help")[0] == 0
    assert cli.main(["bench", "gate", "--dance"]) == 2
    assert "python -m benchmarks.gate" in capfd.readouterr().err


def test_bench_without_a_checkout_says_where_to_go(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "site-packages" / "hsref" / "cli.py"))
    status, out, err = ended(capsys, "bench", "gate")
    assert (status, out) == (2, "")
    assert "run hsref bench in the folder of a checkout." in err
    assert err.count("\n") == 1


def test_warmup_goes_through_every_set(capsys, monkeypatch):
    from hsref.sets import REGISTRY

    seen = []
    monkeypatch.setattr(hsref, "warmup", lambda sets: seen.extend(sets) or ["one"])
    status, out, _ = ended(capsys, "warmup")
    assert status == 0
    assert f"{len(REGISTRY)} routines" in out
    assert {type(one) for one in seen} == set(REGISTRY.values())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--prices", "absent.csv"], "the price file absent.csv does not exist."),
        (["--group", "A,ZZ"], "the group names ZZ, which is not among the tickers"),
        (["--at-least", "1.5"], "at_least must lie in [0, 1]; got 1.5."),
        (["--cap", "0.01"], "no portfolio meets the constraints"),
        (["--sector-cap", "0.3"], "needs the sector of every stock, and prices.csv has none"),
        (["--sectors", "absent.csv"], "the sector file absent.csv does not exist"),
        (["--turnover", "3"], "turnover must lie in (0, 2]; got 3.0."),
        (["--turnover", "1", "--at-least", "0.5"], "--turnover is a mandate of its own"),
        (["--turnover", "1", "--cap", "0.5"], "a turnover bound is a mandate of its own"),
        (["--assets", "40"], "--assets makes a synthetic market with sectors; leave out --prices."),
        (["--seeds", "0"], "--seeds must lie between 1 and 1000; got 0."),
        (["--epochs", "0"], "epochs must be a whole number"),
        (["--workers", "0"], "--workers must lie between 1 and 1024; got 0."),
        (["--out", "FILE"], "is a file, not a folder."),
    ],
)
def test_bad_input_ends_in_one_sentence(capsys, tmp_path, monkeypatch, csv, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    if arguments[1] == "FILE":
        arguments = ["--out", str(csv)]
    if arguments[0] != "--prices":
        arguments = ["--prices", str(csv), *arguments]
    status, out, err = ended(capsys, "train", "portfolio", "--quick", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("hsref: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


ODD = ["two words", "ünïcode ✓", "'quoted' \"twice\"", "$HOME; echo ~ #", "-dash", "a\tb"]


@pytest.mark.parametrize("name", ODD)
def test_odd_paths(capsys, tmp_path, monkeypatch, csv, name):
    monkeypatch.chdir(tmp_path)
    prices = tmp_path / name / f"{name}.csv"
    prices.parent.mkdir()
    prices.write_bytes(csv.read_bytes())
    trained = []

    def train(config, prices, **_):
        trained.append(prices)
        raise hsref.applications.InputError("far enough.")

    monkeypatch.setattr("hsref.applications.portfolio.train", train)
    # as an argument of its own, or after "=" where it looks like an option
    options = [f"--prices={prices}", f"--out={name}/results"]
    status, _, err = ended(capsys, "train", "portfolio", "--quick", "--workers", "1", *options)
    assert (status, err) == (2, "hsref: far enough.\n")
    assert trained[0].tickers == tuple("ABCDE")
    assert trained[0].source == f"{name}.csv"


@pytest.mark.parametrize("application", cli.APPLICATIONS)
@pytest.mark.parametrize("below", ["", "below", "two/below"])
def test_a_file_where_a_folder_is_meant(capsys, csv, application, below):
    out = csv / below if below else csv
    options = ("--quick", "--workers", "1", "--out", str(out))
    status, printed, err = ended(capsys, "train", application, *options)
    assert (status, printed) == (2, "")
    assert err == (
        f"hsref: the results cannot go to {out}, because {csv} is a file, not a folder.\n"
    )


def test_a_missing_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, err = ended(capsys, "train", "portfolio", "--quick")
    assert status == 2
    assert "needs the package matplotlib" in err
    assert "pip install 'hsref[apps]'" in err


def test_an_interruption_has_its_own_status(capsys, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("hsref.applications.portfolio.command.run", interrupt)
    status, _, err = ended(capsys, "train", "portfolio")
    assert (status, err) == (130, "hsref: interrupted; nothing was written.\n")


def test_our_own_faults_are_not_hidden(capsys, monkeypatch):
    def fail(*arguments):
        raise ValueError("a defect of hsref")

    monkeypatch.setattr("hsref.applications.portfolio.command.run", fail)
    with pytest.raises(ValueError, match="a defect"):
        cli.main(["train", "portfolio"])


def test_train_portfolio_writes_a_folder(capsys, tmp_path, monkeypatch, csv):
    monkeypatch.chdir(tmp_path)
    arguments = ("train", "portfolio", "--quick", "--prices", str(csv), "--epochs", "2")
    status, out, err = ended(capsys, *arguments, "--group", "A, B", "--at-least", "0.6")
    assert status == 0
    assert out.strip() == "hsref-portfolio/report.md" or out.strip().endswith("report.md")
    folder = tmp_path / "hsref-portfolio"
    found = json.loads((folder / "results.json").read_text())
    assert found["command"].startswith("hsref train portfolio --quick --prices")
    assert found["arms"]["projection"]["test"]["violation"] <= 1e-12
    assert "weight of {A, B} ≥ 0.6" in (folder / "report.md").read_text(encoding="utf-8")
    assert "runs" in err


def test_the_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "hsref.cli", "info"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hsref ")
