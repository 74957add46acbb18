"""Writing in tasks, each a shard of the source: carried by datatrove, restarted where it stopped.

datatrove's executors run a pipeline of steps for each task, on this machine, Slurm or Ray, keep a
log of each and skip the tasks that are done. Within a task the cache of the language model's
answers is what a restart goes on from.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

import files
from captions import writing, written
from captions.writers import Writer

try:
    from datatrove.data import Document
    from datatrove.executor.base import PipelineExecutor
    from datatrove.pipeline.base import PipelineStep
    from datatrove.utils.logging import logger
except ImportError as error:
    raise ImportError(
        f"writing captions needs datatrove ({error}): pip install -e '.[captions]'"
    ) from None

_BATCH = 64  # texts that a writer is handed at once, at least


class ReadItems(PipelineStep):
    """A document for each record of a task's part of a source.

    Args:
      open_items: opens what writing.items() returns, in the process that reads it.
    """

    name, type = "captions of a source", "Reader"

    def __init__(self, open_items: Callable[[], Sequence[list[writing.Item]]]):
        super().__init__()
        self._open = open_items

    def run(self, data=None, rank=0, world_size=1) -> Iterator[Document]:
        items = self._open()
        for i in range(*part(len(items), rank, world_size)):
            yield Document(text="", id=str(i), metadata={"items": items[i]})


class WriteNegatives(PipelineStep):
    """Writes for the captions of the documents, and saves a shard of rows and its tally."""

    name, type = "negatives", "Writer"

    def __init__(
        self,
        folder: Path,
        writer: Writer,
        types: tuple[str, ...],
        limits: writing.Limits,
    ):
        super().__init__()
        self._folder, self._writer, self._types, self._limits = folder, writer, types, limits

    def run(self, data, rank=0, world_size=1) -> None:
        rows, tally = [], writing.Tally()
        for batch in batches(document.metadata["items"] for document in data):
            new, of_batch = writing.write(batch, self._writer, self._types, self._limits)
            rows, tally = rows + new, tally + of_batch
        written.save_shard(self._folder, rank, world_size, rows)
        keys = [written.key(row["image"], row["caption"]) for row in rows]
        tally_file = _tally_file(self._folder, rank)
        tally_file.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(tally_file, {"tally": tally.to_json(), "keys": keys})


def part(length: int, rank: int, world_size: int) -> tuple[int, int]:
    """Where the part of a task begins and ends."""
    return length * rank // world_size, length * (rank + 1) // world_size


def batches(records) -> Iterator[list[writing.Item]]:
    """Whole records together, until there are enough for a batch."""
    batch = []
    for items in records:
        batch += items
        if len(batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def read_tallies(folder: Path, tasks: int) -> list[tuple[writing.Tally, list[int]]]:
    """(tally, keys of the rows) of each task that is done."""
    paths = filter(Path.exists, (_tally_file(folder, rank) for rank in range(tasks)))
    contents = map(files.read_object, paths)
    return [(writing.Tally.from_json(c["tally"]), c["keys"]) for c in contents]


def _tally_file(folder: Path, rank: int) -> Path:
    return folder / "tasks" / "tallies" / f"{rank:05d}.json"


class LocalExecutor(PipelineExecutor):
    """Runs tasks on this machine.

    datatrove's own keeps a process of its own for a queue, which lives on when its parent is
    killed, and waits for ever for a worker that was killed.
    """

    def __init__(self, pipeline, tasks: int, workers: int = 1, logging_dir=None):
        super().__init__(pipeline, logging_dir)
        self._tasks, self._workers = tasks, workers

    @property
    def world_size(self) -> int:
        return self._tasks

    def get_distributed_env(self, node_rank: int = -1) -> dict[str, str]:
        """What datatrove's steps may read from the environment."""
        unlimited = dict.fromkeys(("cpus_per_task", "mem_per_cpu", "gpus_on_node"), "-1")
        about = unlimited | {"node_ips": "localhost", "executor": "LOCAL"}
        return {f"datatrove_{name}": value for name, value in about.items()}

    def run(self) -> None:
        """Runs the tasks that are not done.

        Raises:
          what a task raised, or BrokenProcessPool if one was killed; the others' work is kept.
        """
        ranks = self.get_incomplete_ranks()
        # A bar for people alone.
        with tqdm(
            total=self._tasks, initial=self._tasks - len(ranks), unit="task", disable=None
        ) as bar:
            for _ in map(self._run_task, ranks) if self._workers == 1 else self._in_pool(ranks):
                bar.update()

    def _in_pool(self, ranks: list[int]) -> Iterator[None]:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self._workers, context, _end_with_parent)
        try:
            for future in [pool.submit(self._run_task, rank) for rank in ranks]:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _run_task(self, rank: int) -> None:
        logger.disable("datatrove")  # it narrates, and prints each error before it is raised
        self._run_for_rank(rank)


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, also when that was killed."""

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
