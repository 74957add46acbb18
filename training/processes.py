"""The processes of a run: they start together, stop together, and the end of one is that of all.

A process that waits for a dead one in a collective waits for ever, or aborts with a C++ stack after
minutes. So every process says once a second, through the coordinator's key-value store, that it is
alive, and watches the others.
"""

import atexit
import contextlib
import ctypes
import functools
import itertools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any
from unittest import mock

import jax
from jax._src import distributed  # the key-value store has no public name
from jax.experimental import multihost_utils

ALIVE, ENDED, WORK = "tutelage/alive", "tutelage/ended", "tutelage/work"
FINISHED = "finished"
STOP, GO_ON = "stop", "go on"
_TOLD = "RECEIVED_PREEMPTION_NOTICE"  # where jax.distributed's handler of SIGTERM writes
_LOOK_S = 0.1
FAILED_STATUS = 1
COLLECTIVE_TIMEOUT_S = 3600
_watch = None  # of this process, in a run of several
_left_undone = False  # a thread is at work on what nobody waits for


def initialize(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    heartbeat_timeout_s: float = 30,
    initialization_timeout_s: int = 300,
) -> None:
    """Joins the processes of a run, and watches over them from now on.

    Args:
      coordinator: host:port of the first process, "auto" where JAX knows the cluster, or None for a
        run of one process.
      num_processes, process_id: with host:port.
      heartbeat_timeout_s: a process that is not heard of for so long counts as dead.
      initialization_timeout_s: how long to wait for all of them to start.
    """
    global _watch
    if not coordinator:
        return
    # On CPUs, collectives give up after half a minute by themselves, and compiling may take one
    # process longer than another; the watch is what ends a wait for the dead.
    flag = f"--xla_cpu_collective_timeout_seconds={COLLECTIVE_TIMEOUT_S}"
    os.environ["XLA_FLAGS"] = f"{flag} {os.environ.get('XLA_FLAGS', '')}"
    address = () if coordinator == "auto" else (coordinator, num_processes, process_id)
    with _one_line_where_the_coordinator_is_gone():
        jax.distributed.initialize(
            *address,
            initialization_timeout=initialization_timeout_s,
            # Ours speaks first, and in one line.
            heartbeat_timeout_seconds=int(4 * heartbeat_timeout_s),
        )
    if jax.process_count() > 1:
        client = distributed.global_state.client
        _watch = Watch(client, jax.process_index(), jax.process_count(), heartbeat_timeout_s)
        threading.Thread(target=_watch.run, daemon=True).start()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Runs a program's main part; what ends it here ends it in every process of the run.

    In a run of one process it does nothing, unless work is left behind (unless_told).
    """
    try:
        yield
    except BaseException as error:
        if not _watch:
            raise
        if isinstance(error, jax.errors.JaxRuntimeError):
            # Mostly the echo of another's death: let the watch find out whose, and end this one.
            time.sleep(_watch.timeout_s + 5)
        if isinstance(error, SystemExit):
            reason = str(error.code)
            print(reason, file=sys.stderr)
        else:
            reason = f"{type(error).__name__}: {error}".split("\n")[0]
            traceback.print_exception(error)
        _tell(reason)
        _leave()
    if _watch:
        _watch.finished = True
        _tell(FINISHED)
        # Not by the end of the interpreter: process 0 may be gone in its midst, and _lost() is
        # Python that could not run any more.
        _leave(0)
    if _left_undone:
        _leave(0)  # the interpreter would wait for its thread


def _tell(message: str) -> None:
    # Where the coordinator is gone, the others see that for themselves.
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        client = distributed.global_state.client
        client.key_value_set(f"{ENDED}/{jax.process_index()}", message, allow_overwrite=True)


@contextlib.contextmanager
def _one_line_where_the_coordinator_is_gone() -> Iterator[None]:
    """For a client that connects in it: when the coordinator's socket closes, _lost() is called.

    By itself JAX's client would abort with a C++ stack, sooner than the watch can look. A callback
    in Python takes that over; where jaxlib cannot hand it the status (std::bad_cast) it aborts too,
    and a handler of C, as Python's own would come too late, ends in the same line.
    """
    connect = distributed._jax.get_distributed_runtime_client
    calling_back = functools.partial(connect, missed_heartbeat_callback=lambda *_: _lost(0))
    ctypes.CDLL(None).signal(signal.SIGABRT, _lost)
    with mock.patch.object(distributed._jax, "get_distributed_runtime_client", calling_back):
        yield


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _lost(_) -> None:
    if _watch and _watch.finished:
        os._exit(0)
    line = _gone("process 0, which coordinates the others, cannot be reached, or JAX has aborted")
    os.write(2, f"error: {line}\n".encode())
    os._exit(FAILED_STATUS)


def _leave(status: int = FAILED_STATUS) -> None:
    if status == 0:
        atexit._run_exitfuncs()  # in which jax waits for the others
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: at exit, jax would wait minutes for the processes that are gone.
    os._exit(status)


class Stopped(Exception):
    """The run was told to stop in the middle of something that it need not finish."""


class StopSignal:
    """Whether the run is to save and leave: SIGTERM to any of its processes, as a preemption sends.

    Every process must ask equally often, for they agree on the question at which all are told.
    """

    def __init__(self):
        self._received = threading.Event()
        self._asked = self._works = 0
        # jax.distributed has a handler of its own, which one of ours would replace.
        self._agreed = distributed.global_state.client is not None
        if not self._agreed and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: self._received.set())

    def requested(self) -> bool:
        """The same answer in every process; once it was yes it stays so."""
        self._asked += 1
        if self._agreed and not self._received.is_set():
            if multihost_utils.reached_preemption_sync_point(self._asked):
                self._received.set()
        return self._received.is_set()

    def check(self) -> None:
        """Raises Stopped where the run is to leave."""
        if self.requested():
            raise Stopped

    def unless_told(self, work: Callable[[], Any]) -> Any:
        """What work() returns, once every process has done its own: compiling, which takes minutes.

        Raises:
          Stopped: in every process, where one is told to leave before. A thread of each may still
            be at work on it, for which its end does not wait (together()).
        """
        global _left_undone
        self._works += 1
        done = futures.Future()
        threading.Thread(target=_work, args=(work, done), daemon=True).start()
        while not (verdict := self._verdict(done)):
            if done.done():
                time.sleep(_LOOK_S)  # the others are not
            futures.wait([done], _LOOK_S)
        if verdict == STOP:
            self._received.set()
            _left_undone = _left_undone or not done.done()
            raise Stopped
        return done.result()

    def _verdict(self, done: futures.Future) -> str | None:
        """Whether to stop or go on, the same in every process; None as long as that is open."""
        if done.done():
            done.result()  # what failed fails here
        if not self._agreed:
            return STOP if self._received.is_set() else GO_ON if done.done() else None
        client, folder = distributed.global_state.client, f"{WORK}/{self._works}"
        if done.done():
            client.key_value_set(f"{folder}/done/{jax.process_index()}", "", True)
        if jax.process_index() == 0:
            all_done = len(client.key_value_dir_get(f"{folder}/done")) == jax.process_count()
            if verdict := STOP if _value(client, _TOLD) else GO_ON if all_done else None:
                client.key_value_set(f"{folder}/verdict", verdict, True)
        return _value(client, f"{folder}/verdict")


def _work(work: Callable[[], Any], done: futures.Future) -> None:
    try:
        done.set_result(work())
    except BaseException as error:
        done.set_exception(error)


def _value(client, key: str) -> str | None:
    """What stands in the coordinator's store; None where nothing does."""
    try:
        return client.key_value_try_get(key)
    except jax.errors.JaxRuntimeError:
        return None


class Watch:
    """Says that this process is alive, and ends it when another one has died.

    Args:
      client: the coordinator's key-value store.
      process, count: this one's index, and how many there are.
      timeout_s: see initialize().
      leave: what ends this process.
    """

    def __init__(
        self,
        client,
        process: int,
        count: int,
        timeout_s: float,
        leave: Callable[[], None] = _leave,
    ):
        self._client, self._process, self._count = client, process, count
        self.timeout_s, self._leave = timeout_s, leave
        self.finished = False  # the run is done: the coordinator may go
        self._heard = {}  # process -> (its counter, when it last changed)

    def run(self) -> None:
        """Watches until a process has died."""
        for counter in itertools.count():
            if verdict := self.look(counter, time.monotonic()):
                print(f"error: {verdict}", file=sys.stderr)
                return self._leave()
            time.sleep(1)

    def look(self, counter: int, now: float) -> str | None:
        """One round: says that this process is alive; which other one has died, if any has."""
        try:
            self._client.key_value_set(f"{ALIVE}/{self._process}", str(counter), True)
            ended = self._by_process(ENDED)
            alive = self._by_process(ALIVE)
        except jax.errors.JaxRuntimeError:
            if self.finished:
                return None
            return _gone("process 0, which coordinates the others, cannot be reached")
        for process in range(self._count):
            if process == self._process or ended.get(process) == FINISHED:
                continue
            if process in ended:
                return _gone(f"process {process} has ended: {ended[process]}")
            last, since = self._heard.setdefault(process, (None, now))
            if alive.get(process) != last:
                self._heard[process] = (alive.get(process), now)
            elif now - since > self.timeout_s:
                return _gone(
                    f"process {process} has not been heard of for {self.timeout_s:g} s "
                    "(config.distributed.heartbeat_timeout_s)"
                )
        return None

    def _by_process(self, folder: str) -> dict[int, str]:
        entries = self._client.key_value_dir_get(folder)
        return {int(key.rsplit("/", 1)[1]): value for key, value in entries}


def _gone(what: str) -> str:
    return f"{what}; this process leaves too: the same command goes on from the last checkpoint"
