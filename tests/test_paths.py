"""Paths of a bucket: a run from its first step to its weights, all in a local server's bucket.

The server speaks Google Cloud Storage's protocol, another one S3's, and keep all in memory; they
are no disks.
"""

import errno
import io
import os
import signal
import socket
import tarfile
from pathlib import Path

import jax
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

import eval as evaluation
import paths
from data import sources
from errors import FileError, MissingFileError, UserError
from files import read_json, read_object, write_text
from pretrained import convert
from pretrained.load import load_weights
from tests.data.test_shards import check_records, prepared  # noqa: F401
from tests.test_train import losses, photographs, tiny  # noqa: F401
from train import train
from training.checkpoints import claim_run_directory
from training.logging import MetricLogger

WORLD = Path(__file__).parents[1] / "weights" / "world"


@pytest.fixture(scope="module")
def bucket():
    pytest.importorskip("gcp_storage_emulator")
    from tests import storage

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    running = storage.create_server("localhost", port, in_memory=True, default_bucket="bucket")
    running.start()
    told = {
        "STORAGE_EMULATOR_HOST": f"http://localhost:{port}",
        "TENSORSTORE_GCS_HTTP_URL": f"http://localhost:{port}",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # which asks for credentials
    }
    before = dict(os.environ)
    os.environ.update(told)
    yield "gs://bucket"
    os.environ.clear()
    os.environ.update(before)
    running.stop()


@pytest.fixture(scope="module")
def s3():
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        paths.file_system("s3://bucket").mkdir("bucket")
        yield "s3://bucket"
    server.stop()


def upload(folder, target):
    with paths.whole(target) as copy:
        copy.symlink_to(folder)


def told_to_stop(monkeypatch, step: int):
    """Sends this process SIGTERM, as a preemption does, when it has done so many steps."""
    log = MetricLogger.train

    def train_and_stop(self, done, *arguments):
        log(self, done, *arguments)
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(MetricLogger, "train", train_and_stop)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # of gcsfs' own way
def test_a_run_lives_in_a_bucket(bucket, photographs, tmp_path, monkeypatch, capsys):  # noqa: F811
    data, workdir = f"{bucket}/data", paths.as_path(bucket, "runs/tiny")
    upload(photographs, data)
    train(tiny(photographs, total_steps=4), tmp_path / "disk")
    with monkeypatch.context() as patched:
        told_to_stop(patched, 2)
        train(tiny(data, total_steps=4), workdir)
    assert sorted(losses(workdir)) == [1, 2, 3]
    assert "run.lock" in paths.names_in(workdir) and not paths.read_bytes(workdir / "run.lock")
    train(tiny(data, total_steps=4), workdir)
    assert losses(workdir) == losses(tmp_path / "disk")
    boards = paths.glob(workdir, "tensorboard/*")
    assert len(boards) == 2 and all(map(paths.read_bytes, boards))

    asked = {"benchmarks": ("retrieval",), "retrieval.root": data}
    figures = []
    for source in (workdir, paths.as_path(tmp_path, "disk")):
        evaluation.score(str(source), asked, source / "results.json")
        figures.append(read_object(source / "results.json")["benchmarks"]["retrieval"]["scores"])
    assert figures[0] == figures[1]
    assert {"results.csv", "results.parquet", "report.html"} <= paths.names_in(workdir)

    for layout in ("hf", "tutelage"):  # out of the bucket's run, into the bucket, and from there
        convert.main([str(workdir), f"{bucket}/{layout}", f"--layout={layout}"])
        there = load_weights(f"{bucket}/{layout}").params
        here = load_weights(tmp_path / "disk").params
        jax.tree.map(np.testing.assert_array_equal, there, here)
    assert not Path("gs:").exists()


@pytest.fixture(params=["disk", "bucket", "s3"])
def folder(request, tmp_path):
    """A new folder of each kind."""
    if request.param == "disk":
        return tmp_path
    return paths.as_path(request.getfixturevalue(request.param), tmp_path.name)


def test_all_kinds_do_the_same(folder):
    assert paths.names_in(str(folder / "none")) == set()
    write_text(folder / "a" / "x.json" if paths.is_remote(folder) else folder / "x.json", "{}")
    for name in ("1.txt", "2.txt"):
        write_text(folder / name, name)
    with paths.whole(folder / "new") as new:
        (new / "deep").mkdir(parents=True)
        (new / "deep" / "y.json").write_text("[1]")
    assert read_json(folder / "new" / "deep" / "y.json") == [1]
    assert {"1.txt", "2.txt", "new"} <= paths.names_in(str(folder))
    assert not [name for name in paths.names_in(str(folder)) if name.endswith("tmp")]
    assert [path.name for path in paths.glob(folder, "*.txt")] == ["1.txt", "2.txt"]
    assert folder / "new" / "deep" / "y.json" in paths.glob(folder, "**/*.json")
    assert paths.file_size(folder / "1.txt") == 5
    assert paths.read_range(folder / "1.txt", 1, 3) == b".tx"
    assert paths.read_range(folder / "1.txt", 3, 100) == b"xt"
    with paths.open_binary(folder / "2.txt") as file:
        file.seek(2)
        assert file.read() == b"txt"
    assert (paths.local_copy(folder / "new") / "deep" / "y.json").read_text() == "[1]"
    write_text(folder / "1.txt", "again")
    assert paths.local_copy(folder / "1.txt").read_text() == "again"
    paths.move(folder / "new", folder / "aside" / "it")
    assert read_json(folder / "aside" / "it" / "deep" / "y.json") == [1]
    assert "new" not in paths.names_in(str(folder))
    with pytest.raises(MissingFileError, match="gone.json: no such file"):
        read_json(folder / "gone.json")


def test_data_and_weights_come_from_s3_and_runs_do_not_live_there(s3, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (("0.jpg", b"image"), ("0.txt", b"words")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    upload(tmp_path, f"{s3}/shards")
    record = sources.load("webdataset", f"{s3}/shards")[0]
    assert record["image"] == b"image" and record["captions"] == ["words"]

    upload(WORLD, f"{s3}/world")
    convert.main([f"{s3}/world", f"{s3}/hf", "--layout=hf"])
    there, here = (load_weights(source).params for source in (f"{s3}/hf", WORLD))
    jax.tree.map(np.testing.assert_array_equal, there, here)

    with pytest.raises(UserError, match=f"{s3}/run: a run directory must be on a disk or in a"):
        claim_run_directory(f"{s3}/run", {}, {})
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "fingerprint.json").write_text("{}")
    (tmp_path / "run" / "checkpoints" / "1").write_text("")
    upload(tmp_path / "run", f"{s3}/run")
    with pytest.raises(UserError, match=f"{s3}/run: a run directory must be on a disk or in a"):
        load_weights(f"{s3}/run")


@pytest.mark.parametrize(
    ("image", "reads", "share"), [(150_000, 6, 0.15), (500, 1, 1.0)], ids=["large", "small"]
)
def test_an_index_of_shards_reads_headers_and_what_comes_with_them(
    bucket, tmp_path, monkeypatch, image, reads, share
):
    """Not the content of large members; small ones all at once, as a request costs time, too."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i in range(6):
            for name, size in ((f"{i}.jpg", image), (f"{i}.txt", 5)):
                member = tarfile.TarInfo(name)
                member.size = size
                tar.addfile(member, io.BytesIO(b"x" * size))
    root = f"{bucket}/shards_{image}"
    upload(tmp_path, root)
    gcsfs = pytest.importorskip("gcsfs")
    fetch, fetched = gcsfs.core.GCSFile._fetch_range, []

    def counting(self, start=None, end=None):
        content = fetch(self, start, end)
        fetched.append(len(content))
        return content

    monkeypatch.setattr(gcsfs.core.GCSFile, "_fetch_range", counting)
    monkeypatch.setattr(paths, "_READ_AHEAD", 2**14)
    source = sources.load("webdataset", root)
    assert len(source) == 6
    assert reads <= len(fetched) <= 2 * reads + 1
    assert sum(fetched) <= share * paths.file_size(tmp_path / "a.tar")


def test_parquet_is_read_where_it_lies(folder):
    encoded = [f"picture {i}, encoded".encode() for i in range(5)]
    column = [{"bytes": each, "path": None} for each in encoded]
    table = pyarrow.table({"image": column, "text": [f"picture {i}" for i in range(5)]})
    parquet.write_table(table, file := io.BytesIO(), row_group_size=2)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x.parquet").write_bytes(file.getvalue())
    records = [*sources.load("parquet", folder)]
    assert [record["captions"] for record in records] == [[f"picture {i}"] for i in range(5)]
    assert [record["image"] for record in records] == encoded


def test_a_data_set_of_tfds_is_copied_once(bucket, prepared, tmp_path, monkeypatch):  # noqa: F811
    root, copy = f"{bucket}/tfds", str(tmp_path / "copy")
    upload(prepared, root)
    one = f"{root}/pictures/1.0.0"
    with pytest.raises(UserError, match=f"{one} is in a bucket.*set data.options.copy"):
        sources.load("tfds", one)
    check_records(sources.load("tfds", one, copy=copy))
    check_records(sources.load("tfds", root, dataset="pictures", copy=str(tmp_path / "other")))
    monkeypatch.delattr("data.tfds.download")
    check_records(sources.load("tfds", one, copy=copy))


def test_a_file_grows(folder):
    for text in (b"one\n", b"two\n"):
        file = paths.Growing(folder / "log")
        file.write(text)
        file.flush()
        file.close()
    assert paths.read_bytes(folder / "log") == b"one\ntwo\n"


def test_a_part_with_a_scheme_starts_anew(bucket):
    assert str(paths.as_path("/data", f"{bucket}/images", "1.jpg")) == f"{bucket}/images/1.jpg"
    assert paths.as_path("runs", "a") == Path("runs/a")
    for name in ("memory://x", "https://example.org/run", "az://container/run"):
        with pytest.raises(UserError, match="there are gs://, s3://$"):
            paths.as_path(name)
    with pytest.raises(UserError, match=f"{bucket}/kept: answers must be on a disk"):
        paths.on_disk(bucket, "kept", what="answers")


class Flaky(Exception):
    """As a server's: with HTTP's code."""

    def __init__(self, code):
        super().__init__(f"code {code}")
        self.code = code


@pytest.mark.parametrize(
    "error, tries",
    [
        (OSError(errno.EIO, "Input/output error"), 3),
        (OSError(errno.ESTALE, "Stale file handle"), 3),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), 3),
        (TimeoutError("the server took too long"), 3),
        (Flaky(503), 3),
        (Flaky(429), 3),
        (Flaky(401), 1),
        (PermissionError(errno.EACCES, "Permission denied"), 1),
        (OSError("Forbidden: bucket/x"), 1),
    ],
)
def test_what_may_pass_is_tried_again_and_then_named(bucket, monkeypatch, error, tries):
    waited = []
    monkeypatch.setattr(paths.time, "sleep", waited.append)
    name = f"{bucket}/flaky/x"
    failures = [error] * 2

    def read():
        if failures:
            raise failures.pop()
        return b"content"

    if tries > 1:
        assert paths.retried(name, read) == b"content" and waited == [1, 4]
    failures = [error] * 9
    with pytest.raises(FileError, match=f"cannot read {name}: "):
        paths.retried(name, read)
    assert len(failures) == 9 - tries


def test_a_server_that_fails_twice_is_read_all_the_same(bucket, monkeypatch):
    """Through the library that asks it, as it comes."""
    write_text(f"{bucket}/x.json", "[7]")
    system, answers = paths.file_system(bucket), []
    cat_file = system.cat_file

    def failing(*arguments, **options):
        answers.append(None)
        if len(answers) < 3:
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        return cat_file(*arguments, **options)

    monkeypatch.setattr(system, "cat_file", failing)
    monkeypatch.setattr(paths.time, "sleep", lambda _: None)
    assert read_json(f"{bucket}/x.json") == [7] and len(answers) == 3
