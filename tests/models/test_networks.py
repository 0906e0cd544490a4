"""Networks: refusals, the same bits after a kill, nothing left behind, nothing of the caller's disturbed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from esa_notebooks.models.networks.dense import DenseClassifier, DenseNetwork
from esa_notebooks.models.networks.network import NetworkError, from_bytes, scores_of, to_bytes
from esa_notebooks.models.networks.training import Recipe, train, watched_split

RECIPE = Recipe(epochs=9, patience=9, batch=16, accelerator="cpu")


def problem(n: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 4)).astype(np.float32)
    return X, (X[:, 0] + 0.5 * rng.standard_normal(n) > 0.7).astype(np.float32)


def fit(checkpoint=None, seed=5, recipe=RECIPE, hidden=(8,), X=None, **more):
    inputs, y = problem()
    inputs = inputs if X is None else X
    return train(
        lambda: DenseNetwork(inputs.shape[1], hidden),
        (inputs[:60], y[:60]),
        (inputs[60:], y[60:]),
        recipe,
        seed,
        checkpoint=checkpoint,
        **more,
    )


def killed(path: Path, step: int) -> None:
    """A training in another process that is killed by SIGKILL in the middle of an epoch, at its `step`."""
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_networks as t
loss, calls = t.DenseNetwork.loss, [0]
def deadly(self, *batch):
    calls[0] += 1
    if calls[0] == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(self, *batch)
t.DenseNetwork.loss = deadly
t.fit({str(path)!r})
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def same_bits(one, other) -> bool:
    return to_bytes(one.network) == to_bytes(other.network) and one.history.equals(other.history)


def test_a_killed_training_ends_as_if_it_had_not_been(tmp_path):
    path = tmp_path / "training.ckpt"
    killed(path, step=5 * 4 + 3)  # an epoch is 4 steps and 1 watched: in the middle of the fifth
    resumed = fit(path)
    assert resumed.resumed == 4 and same_bits(resumed, fit())
    assert list(tmp_path.iterdir()) == [], "nothing is left at the end"


@pytest.mark.parametrize(
    "change, named",
    [
        ({"hidden": (9,)}, "hidden is [8], not [9]"),
        ({"seed": 6}, "seed is 5, not 6"),
        ({"recipe": Recipe(epochs=9, patience=9, batch=16, accelerator="cpu", learning_rate=0.5)}, "recipe"),
        ({"X": problem()[0] + 1}, "data"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, change, named):
    path = tmp_path / "training.ckpt"
    with pytest.raises(KeyError):
        fit(path, report=lambda epoch, loss: {}["stop"] if epoch == 2 else None)
    before = path.read_bytes()
    with pytest.raises(NetworkError, match="checkpoint of another training") as refused:
        fit(path, **change)
    assert named in str(refused.value) and path.read_bytes() == before


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"nothing of the kind"]
)
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    path = tmp_path / "training.ckpt"
    with pytest.raises(KeyError):
        fit(path, report=lambda epoch, loss: {}["stop"])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(NetworkError, match="is damaged. Delete it"):
        fit(path)


def test_a_checkpoint_that_would_run_code_is_not_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"callbacks": Evil()}, tmp_path / "training.ckpt")
    with pytest.raises(NetworkError, match="damaged"):
        fit(tmp_path / "training.ckpt")
    assert not (tmp_path / "ran").exists()


def test_training_disturbs_nobody(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(2)
    torch.manual_seed(3)
    expected = torch.rand(2).tolist()
    torch.manual_seed(3)
    handler = signal.getsignal(signal.SIGINT)
    seen = [torch.rand(1).item(), fit(), torch.rand(1).item()]
    assert [seen[0], seen[2]] == expected
    assert torch.get_num_threads() == 2 and not torch.are_deterministic_algorithms_enabled()
    assert signal.getsignal(signal.SIGINT) is handler
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr() == ("", "")


def test_ctrl_c_interrupts_and_the_next_one_still_does(tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(report=lambda epoch, loss: signal.raise_signal(signal.SIGINT))
    assert signal.getsignal(signal.SIGINT) is handler


def test_one_line_an_epoch_when_asked(capsys):
    fit(say=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9 and all(line.startswith(f"epoch {i}: loss ") for i, line in enumerate(lines))


def test_the_seed_decides(tmp_path):
    assert same_bits(fit(), fit()) and not same_bits(fit(), fit(seed=6))


def test_what_is_returned_is_the_best_epoch_on_the_cpu():
    found = fit()
    assert found.device == "cpu" and found.best_loss == found.history.watched_loss.min()
    assert found.history.watched_loss[found.best_epoch] == found.best_loss


def test_a_loss_that_is_no_number_ends_the_training():
    with pytest.raises(NetworkError, match="Lower the learning rate"):
        fit(recipe=Recipe(epochs=9, batch=16, accelerator="cpu", learning_rate=1e30))


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch": -1}, {"learning_rate": float("nan")}, {"watched": 0.9}])
def test_an_impossible_recipe_is_refused(change):
    with pytest.raises(NetworkError, match=f"Recipe: {next(iter(change))}"):
        Recipe(**change)


@pytest.mark.parametrize("groups, y", [(None, np.r_[np.zeros(50, int), 1]), (np.zeros(51, int), None)])
def test_too_few_rows_to_watch(groups, y):
    with pytest.raises(NetworkError, match="too few"):
        watched_split(51, y, groups)


@pytest.mark.parametrize(
    "X, y, said",
    [
        (np.zeros((20, 4)), np.zeros(20), "both must occur"),
        (np.zeros((20, 4)), np.arange(20), "0 or 1 per row"),
        (np.zeros((20, 4)), np.zeros(19), "for 20 rows"),
        (np.zeros(20), np.zeros(20), "several numbers"),
        ([["a"]] * 20, np.zeros(20), "besides numbers"),
        (np.r_[np.zeros((19, 4)), [[0, np.nan, 0, 0]]], np.zeros(20), "first is row 19"),
        (np.r_[np.full((1, 4), np.inf), np.zeros((19, 4))], np.zeros(20), "first is row 0"),
    ],
)
def test_bad_rows_and_labels_are_refused(X, y, said):
    with pytest.raises(NetworkError, match=said):
        DenseClassifier().fit(X, y)


def test_the_dense_classifier_is_kept_whole_and_refuses_what_is_not_it():
    X, y = problem()
    fitted = DenseClassifier(seed=2, hidden=(8,), recipe=RECIPE).fit(X, y)
    data = fitted.to_bytes()
    assert np.array_equal(DenseClassifier.from_bytes(data).score(X), fitted.score(X))
    assert DenseClassifier(seed=2, hidden=(8,), recipe=RECIPE).fit(X, y).to_bytes() == data
    assert fitted.score(X).shape == (80,) and fitted.score(X[:0]).shape == (0,)
    for bad in (
        data[:100],
        b"",
        data[:-40],
        data.replace(b"DenseNetwork", b"ConvNetwork2"),
        data.replace(b"[8, 4]", b"[9, 4]"),
    ):
        with pytest.raises(NetworkError):
            DenseClassifier.from_bytes(bad)
    with pytest.raises(NetworkError, match="Call fit first"):
        DenseClassifier().score(X)
    with pytest.raises(NetworkError, match="Call fit first"):
        DenseClassifier().to_bytes()


def test_long_inputs_are_scored_in_blocks():
    network = from_bytes(DenseNetwork, to_bytes(DenseNetwork(4, (8,))))
    X = np.random.default_rng(0).standard_normal((1000, 4))
    assert np.allclose(scores_of(network, X, block=7), scores_of(network, X), atol=1e-6)
