"""Metrics as Weights & Biases and MLflow keep them, with no network."""

import sys
import time

import pytest

from errors import UserError
from training.logging import MetricLogger
from training.trackers import open_trackers

CONFIG = {"seed": 3, "optimizer": {"b1": 0.9}}


class FakeWandb:
    """Remembers what it was told."""

    def __init__(self):
        self.options, self.rows, self.finished = [], [], 0

    def init(self, **options):
        self.options.append(options)
        return self

    def log(self, metrics, step):
        self.rows.append((step, metrics))

    def finish(self):
        self.finished += 1


def test_the_logger_hands_everything_on_and_a_run_that_goes_on_is_the_same(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for start in (0, 1):
        logger = MetricLogger(
            tmp_path,
            start_step=start,
            total_steps=2,
            batch_size=4,
            trackers=("wandb",),
            config=CONFIG,
        )
        logger.write(start + 1, {"loss": 0.5})
        logger.close()
    first, second = fake.options
    assert first["id"] == second["id"] and first["config"] == CONFIG
    assert fake.rows == [(1, {"loss": 0.5}), (2, {"loss": 0.5})] and fake.finished == 2


def test_another_directory_of_the_same_name_is_another_run(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for folder in (tmp_path / "a" / "run", tmp_path / "b" / "run"):
        folder.mkdir(parents=True)
        open_trackers(["wandb"], folder, CONFIG)
    assert fake.options[0]["id"] != fake.options[1]["id"]


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tracker,) = open_trackers(["wandb"], tmp_path, CONFIG)
    tracker.log(1, {"loss": 0.5, "retrieval/recall@1": 12.0})
    tracker.close()
    (log,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    for _ in range(100):  # a process of its own writes it
        if b"retrieval/recall@1" in log.read_bytes():
            break
        time.sleep(0.1)
    assert b"retrieval/recall@1" in log.read_bytes() and b"loss" in log.read_bytes()


def test_mlflow_in_a_folder(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    mlflow.set_tracking_uri(f"file:{tmp_path / 'mlruns'}")
    for step in (1, 2):
        (tracker,) = open_trackers(["mlflow"], tmp_path, CONFIG)
        tracker.log(step, {"loss": 0.5, "retrieval/recall@1": 12.0})
        tracker.close()
    client = mlflow.tracking.MlflowClient()
    experiment = client.get_experiment_by_name("tutelage")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["optimizer.b1"] == "0.9"
    assert run.data.metrics["retrieval/recall_at_1"] == 12.0
    assert [m.step for m in client.get_metric_history(run.info.run_id, "loss")] == [1, 2]


def test_wrong_names_say_what_there_is(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"'wandbb' \(nearest: wandb\); there are: wandb, mlflow"):
        open_trackers(["mlflow,wandbb"], tmp_path, CONFIG)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match=r"mlflow, which is not installed: pip install .*mlflow"):
        open_trackers(["mlflow"], tmp_path, CONFIG)
    assert open_trackers([""], tmp_path, CONFIG) == ()
