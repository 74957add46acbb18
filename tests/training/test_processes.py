"""The watch over a run's processes, and the signal to stop, without any other process."""

import os
import signal
import threading
import time

import jax
import pytest

from training import processes
from training.processes import ALIVE, ENDED, FINISHED, Stopped, StopSignal, Watch


class Store:
    """The coordinator's key-value store; `gone` makes it fail as when that process is dead."""

    def __init__(self):
        self.values, self.gone = {}, False

    def key_value_set(self, key, value, allow_overwrite=False):
        if self.gone:
            raise jax.errors.JaxRuntimeError("UNAVAILABLE")
        assert allow_overwrite
        self.values[key] = value

    def key_value_try_get(self, key):
        if key not in self.values:
            raise jax.errors.JaxRuntimeError("NOT_FOUND")
        return self.values[key]

    def key_value_dir_get(self, folder):
        return [(key, v) for key, v in self.values.items() if key.startswith(f"{folder}/")]


def test_a_silent_process_is_found_out_after_the_limit_and_not_before():
    store = Store()
    watch = Watch(store, 0, 3, timeout_s=10)
    for second in range(60):
        store.values[f"{ALIVE}/1"] = str(second)
        if second < 20:
            store.values[f"{ALIVE}/2"] = str(second)
        verdict = watch.look(second, second)
        if verdict:
            break
    assert second == 30 and "process 2 has not been heard of for 10 s" in verdict
    assert store.values[f"{ALIVE}/0"] == "30"


def test_a_process_that_never_spoke_counts_from_the_first_look():
    watch = Watch(Store(), 0, 2, timeout_s=10)
    assert watch.look(0, 100) is None and watch.look(1, 110) is None
    assert "process 1" in watch.look(2, 111)


def test_a_process_that_failed_is_named_with_its_reason_and_one_that_finished_may_be_silent():
    store = Store()
    watch = Watch(store, 0, 3, timeout_s=10)
    store.values |= {f"{ENDED}/1": FINISHED, f"{ALIVE}/2": "0"}
    assert watch.look(0, 0) is None
    store.values[f"{ALIVE}/2"] = "1"
    assert watch.look(1, 99) is None
    store.values[f"{ENDED}/2"] = "error: no such file: x.json"
    verdict = watch.look(2, 100)
    assert "process 2 has ended: error: no such file: x.json" in verdict and "\n" not in verdict


def test_without_its_coordinator_a_process_leaves_unless_it_is_done():
    store, left = Store(), []
    watch = Watch(store, 1, 2, timeout_s=10, leave=lambda: left.append(True))
    store.gone = True
    watch.run()
    assert left == [True]
    watch.finished = True
    assert watch.look(1, 1) is None


def test_the_signal_is_heard_and_stays():
    before = signal.getsignal(signal.SIGTERM)
    try:
        stop = StopSignal()
        assert not stop.requested()
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested() and stop.requested()
        with pytest.raises(Stopped):
            stop.check()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def stop(monkeypatch):
    monkeypatch.setattr(processes, "_left_undone", False)
    before = signal.getsignal(signal.SIGTERM)
    yield StopSignal()
    signal.signal(signal.SIGTERM, before)


def test_work_is_done_unless_the_signal_comes(stop):
    assert stop.unless_told(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        stop.unless_told(lambda: 1 / 0)
    free, started = threading.Event(), time.monotonic()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(Stopped):
        stop.unless_told(lambda: free.wait(60))
    free.set()
    assert time.monotonic() - started < 10 and stop.requested() and processes._left_undone


@pytest.mark.parametrize(("told", "verdict"), [(False, "go on"), (True, "stop")])
def test_process_0_decides_whether_work_is_waited_for(told, verdict, stop, monkeypatch):
    """Process 1 is done with its own at once, and waits for the other's."""
    store, index = Store(), threading.local()
    monkeypatch.setattr(processes.distributed.global_state, "client", store)
    monkeypatch.setattr(processes.jax, "process_index", lambda: index.value)
    monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
    free, ends = threading.Event(), {}

    def run(process, work):
        index.value = process
        try:
            ends[process] = StopSignal().unless_told(work)
        except Stopped:
            ends[process] = "stopped"

    threads = [
        threading.Thread(target=run, args=(process, work))
        for process, work in enumerate((lambda: free.wait(60), lambda: True))
    ]
    for thread in threads:
        thread.start()
    threads[1].join(0.5)
    assert threads[1].is_alive() and not ends
    if told:
        store.values["RECEIVED_PREEMPTION_NOTICE"] = "now"
    else:
        free.set()
    for thread in threads:
        thread.join(30)
    free.set()
    assert ends == ({0: "stopped", 1: "stopped"} if told else {0: True, 1: True})
    assert store.values["tutelage/work/1/verdict"] == verdict


def test_several_processes_agree_on_the_question_at_which_they_stop(monkeypatch):
    """Where jax.distributed runs, it is asked, and its own handler of SIGTERM stays."""
    asked = []

    def reached(number):
        asked.append(number)
        return number == 3

    monkeypatch.setattr(processes.distributed.global_state, "client", Store())
    monkeypatch.setattr(processes.multihost_utils, "reached_preemption_sync_point", reached)
    before = signal.getsignal(signal.SIGTERM)
    stop = StopSignal()
    assert signal.getsignal(signal.SIGTERM) is before
    assert [stop.requested() for _ in range(5)] == [False, False, True, True, True]
    assert asked == [1, 2, 3]
