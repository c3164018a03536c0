"""Checkpoints: the same bits after an interruption, and one sentence for a file that is damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hsref import optim
from hsref.applications import InputError
from hsref.applications._checkpoint import Checkpoint, digest
from hsref.applications._training import Task, fit

TASK = Task("arm", "final", 0, 0.1)
TREE = {"w": np.arange(6.0).reshape(2, 3), "n": (np.float32([0.1]), 3)}


def test_a_tree_comes_back_with_its_bits_and_containers(tmp_path):
    saved = Checkpoint.of(tmp_path / "deep", "problem", TASK)
    rng = np.random.default_rng(5)
    saved.save({"loss": 0.1 + 0.2, "rng": rng.bit_generator.state}, TREE)
    like = {"w": np.zeros((2, 3)), "n": (np.zeros(1, np.float32), 0)}
    meta, tree = saved.load(like)
    assert meta["loss"] == 0.1 + 0.2
    assert meta["rng"] == rng.bit_generator.state
    assert isinstance(tree["n"], tuple)
    assert type(tree["n"][1]) is int
    assert tree["n"][0].dtype == np.float32
    assert tree["w"].tobytes() == TREE["w"].tobytes()


def test_another_problem_or_task_has_another_file(tmp_path):
    others = [("p", TASK), ("q", TASK), ("p", Task("arm", "final", 1, 0.1))]
    assert len({Checkpoint.of(tmp_path, *one).path for one in others}) == 3
    assert Checkpoint.of(tmp_path, "q", TASK).load(TREE) is None
    assert digest(np.float64(0.5)) == digest(0.5)


def test_a_damaged_or_foreign_file_gets_one_sentence(tmp_path):
    saved = Checkpoint.of(tmp_path, "problem", TASK)
    saved.save({}, TREE)
    good = saved.path.read_bytes()
    for bad in (b"", good[: len(good) // 2], b"nonsense"):
        saved.path.write_bytes(bad)
        with pytest.raises(InputError, match=r"^the checkpoint .* delete it to begin that run ane"):
            saved.load(TREE)
    saved.path.write_bytes(good)
    for other in ([1], {"w": np.zeros((3, 2)), "n": (np.zeros(1, np.float32), 0)}):
        with pytest.raises(InputError, match=r"an array has shape|arrays, not"):
            saved.load(other)


def test_no_pickle_is_ever_loaded(tmp_path):
    saved = Checkpoint(tmp_path / "one.npz")
    text = np.frombuffer(json.dumps({"format": 1, "leaves": 1, "meta": {}}).encode(), np.uint8)
    np.savez(saved.path, text=text, leaf0=np.array([object()], dtype=object))
    with pytest.raises(InputError, match="cannot be used"):
        saved.load([np.zeros(1)])


def test_an_interrupted_fit_ends_with_the_same_bits(tmp_path):
    data = np.random.default_rng(0).standard_normal((40, 3))

    def gradient(params, rows):
        return {"w": (data[rows] @ params["w"] - 1.0) @ data[rows] / len(rows)}

    def train(checkpoint=None, stop=None):
        def after(epoch, params):
            if epoch == stop:
                raise KeyboardInterrupt
            return {"epoch": epoch, "norm": float(np.abs(params["w"]).sum())}

        return fit(
            gradient, {"w": np.zeros(3)}, optim.adam(0.1), count=40, batch_size=8, epochs=4,
            rng=np.random.default_rng(1), after_epoch=after, checkpoint=checkpoint,
        )  # fmt: skip

    whole = train()
    saved = Checkpoint.of(tmp_path, "problem", TASK)
    with pytest.raises(KeyboardInterrupt):
        train(saved, stop=3)
    found = train(saved)
    assert found.params["w"].tobytes() == whole.params["w"].tobytes()
    assert found.history == whole.history
    assert found.seconds > 0.0
