"""llama.cpp's server in this process, on loopback: a GGUF file as a backend, fast on a CPU."""

import contextlib
import socket
from pathlib import Path, PurePath

from errors import UserError
from language.endpoint import Endpoint
from paths import as_path, local_copy


class LlamaCpp(Endpoint):
    """An endpoint that serves itself; see open()."""

    def __init__(self, server, url: str, **options):
        self._server = server  # the server lives as long as this does
        super().__init__(url, **options)

    def __reduce__(self):
        raise TypeError("a server of llama.cpp stays in its process; open one in each")

    def close(self) -> None:
        """Ends the connections and the server."""
        super().close()
        self._server = None


def open(
    weights: str | Path,
    *,
    name: str | None = None,
    threads: int = 1,
    slots: int = 4,
    context: int = 2048,
    embeddings: bool = False,
    top_n: int = 100,
) -> LlamaCpp:
    """A GGUF file, served.

    Args:
      weights: the file; one in 16 bits (python -m pretrained.gguf) answers as the weights do.
        llama.cpp rounds activations too where it reads quantised ones, and a small model suffers.
      name: for the cache and for provenance; default: the file's.
      threads: of the computation.
      slots: requests that it answers at once.
      context: tokens of a prompt and its completion, at most.
      embeddings: whether it can embed; costs memory.
      top_n: see Endpoint.

    Raises:
      UserError: no such file, or xllamacpp is not installed or cannot read it.
    """
    try:
        import xllamacpp
    except ImportError:
        raise UserError("llama.cpp needs xllamacpp: pip install -e '.[language]'") from None
    if not as_path(weights).is_file():
        raise UserError(f"{weights} is no file; llama.cpp reads GGUF files")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(local_copy(weights))
    parameters.n_parallel, parameters.n_ctx = slots, slots * context
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.hostnames, parameters.port = ["127.0.0.1"], _free_port()
    if embeddings:
        parameters.embedding = True
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    try:
        server = xllamacpp.Server(parameters)
    except Exception as error:  # of C++, bare
        raise UserError(f"llama.cpp cannot serve {weights}: {error}") from None
    return LlamaCpp(
        server,
        f"http://127.0.0.1:{parameters.port}/v1",
        model=name or PurePath(weights).stem,
        concurrency=slots,
        largest_n=slots,  # each takes a slot, and more are refused
        embedding_model=(name or PurePath(weights).stem) if embeddings else None,
        top_n=top_n,
    )


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
