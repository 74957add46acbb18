"""The Flax language model of models/llama.py as a backend: batched, with a key-value cache."""

import collections
import functools
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

import jax
import jax.numpy as jnp
import numpy as np

from errors import UserError
from language.base import Completion, LanguageModel, ModelError, Sampling, Score, Usage
from models import zoo
from models.generation import Generator, Restrictions, State
from models.llama import Llama, empty_cache, unstack
from pretrained.find import find_weights
from pretrained.load import load_tokenizer_of, load_weights
from training import mesh as meshes

_STEPS = 8  # tokens written between two looks for stop texts
_LEAST_ROOM = 256  # places of a cache
_KEPT_BLOCKS = 64  # of prompts that were read, for those that begin alike


class Local(LanguageModel):
    """A language model in this process; see open().

    Prompts are read one by one, in blocks whose keys and values are kept for the next prompt that
    begins alike; completions are written in batches of one size. So a text's numbers do not depend
    on what is asked beside it.

    Attributes:
      weight_bytes: of the parameters as they are computed with, read once for a token.
      usage: of generate().
    """

    capabilities = frozenset({"generate", "choices", "score", "embed"})

    def __init__(self, config, params, tokenizer, *, name, batch_size, context, block, dtype, mesh):
        if jax.process_count() > 1:
            raise UserError("a local language model runs in one process; give each its own")
        self._mesh = meshes.make_mesh(**mesh)
        meshes.check_batch_size(self._mesh, batch_size)
        compute = zoo.compute(dtype, constrain=meshes.constraint(self._mesh))
        self._config, self._tokenizer = config, tokenizer
        self._generator = Generator(Llama(config, compute, stacked=False))
        self._params = _lay_out(params, self._generator.model, self._mesh)
        self._context, self._block = min(context, config.context_length), block
        self.weight_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self._params))
        self._blocks = collections.OrderedDict()
        self.usage = Usage()
        self.batch_size, self.name = batch_size, f"{name}-{_checksum(params)}"

    def _generate(self, prompts, sampling):
        tokens = self._tokenizer.encode(prompts)
        rows = [
            (i, j, self._begun(ids, prompts[i], sampling.max_tokens))
            for i, ids in enumerate(tokens)
            for j in range(sampling.n)
        ]
        # Of one batch are those that need as much room.
        by_room = collections.defaultdict(list)
        for i, j, ids in rows:
            by_room[_room(len(ids) + sampling.max_tokens)].append((i, j, ids))
        completions = {}
        for room, group in by_room.items():
            for start in range(0, len(group), self.batch_size):
                batch = group[start : start + self.batch_size]
                seeds = [
                    (sampling.seed % 2**32, zlib.crc32(prompts[i].encode()), j) for i, j, _ in batch
                ]
                written = self._write([ids for _, _, ids in batch], seeds, room, sampling)
                completions |= {(i, j): c for (i, j, _), c in zip(batch, written, strict=True)}
        self.usage.requests += len(prompts)
        self.usage.prompt_tokens += sum(len(ids) for _, j, ids in rows if j == 0)
        self.usage.completion_tokens += sum(c.tokens for c in completions.values())
        return [[completions[i, j] for j in range(sampling.n)] for i in range(len(prompts))]

    def _score(self, prompts, continuations):
        before = self._tokenizer.encode(prompts)
        after = self._tokenizer.encode(continuations, begin=False)
        return [
            self._score_one(self._begun(ids, prompt, len(more)), more)
            for prompt, ids, more in zip(prompts, before, after, strict=True)
        ]

    def _score_one(self, prompt: list[int], continuation: list[int]) -> Score:
        if not continuation:
            return Score(0.0, 0)
        first = len(prompt) - 1
        hidden, _ = self._read([*prompt, *continuation], first)
        size = -(-len(continuation) // self._block) * self._block
        hidden = np.pad(hidden[: len(continuation)], ((0, size - len(continuation)), (0, 0)))
        targets = np.pad(continuation, (0, size - len(continuation))).astype(np.int32)
        values = self._generator.score(self._params, hidden, targets)
        total = np.asarray(values, np.float64)[: len(continuation)].sum()
        return Score(float(total), len(continuation))

    def _embed(self, texts):
        vectors = np.zeros((len(texts), self._config.width), np.float32)
        for i, ids in enumerate(self._tokenizer.encode(texts)):
            hidden, _ = self._read(self._begun(ids, texts[i], 0), 0)
            vectors[i] = np.asarray(hidden).mean(axis=0)
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    def _begun(self, ids: list[int], text: str, more: int) -> list[int]:
        """A prompt's tokens, at least one, that leave room for more."""
        ids = ids or [self._tokenizer.start_token_id]
        if len(ids) + more > self._context:
            raise ModelError(
                f"{self.name} takes {self._context} tokens, and {text[:40]!r}... has {len(ids)} "
                f"with {more} to come: open it with a larger context (the model was trained on "
                f"{self._config.context_length})"
            )
        return ids

    def _read(self, ids: list[int], first: int):
        """Reads tokens, of which blocks that were read before are taken from memory.

        Returns:
          the last layer's states of tokens first .. len(ids) - 1, [n, width], and a cache with room
          for all.
        """
        size, model = self._block, self._generator
        cache, room, hidden = None, 0, []
        for at in range(0, len(ids), size):
            # A block's room is a function of its place alone, and so are its numbers.
            if at + size > room:
                room = max(_LEAST_ROOM, 2 * room)
                cache = self._empty_cache(meshes.batch_shards(self._mesh), room, cache)
            key = tuple(ids[: at + size])
            if at + size <= min(first, len(ids)) and key in self._blocks:
                self._blocks.move_to_end(key)
                cache = _put(cache, self._blocks[key], at)
            else:
                block = np.zeros((len(cache[0].keys), size), np.int32)
                block[:, : len(key) - at] = key[at:]
                states, cache = model.read(self._params, block, np.int32(at), cache)
                hidden.append((states, slice(max(0, first - at), len(key) - at)))
                if at + size <= len(ids):
                    self._blocks[key] = _take(cache, at, size)
                    if len(self._blocks) > _KEPT_BLOCKS:
                        self._blocks.popitem(last=False)
        return np.concatenate([np.asarray(states)[0, part] for states, part in hidden]), cache

    def _write(self, prompts, seeds, room: int, sampling: Sampling) -> list[Completion]:
        count, rows = len(prompts), self.batch_size
        cache = self._empty_cache(rows, room)
        logits = np.zeros((rows, self._config.vocab_size), np.float32)
        for i, ids in enumerate(prompts):
            hidden, row = self._read(ids, len(ids) - 1)
            cache = _put_row(cache, row, i)
            logits[i] = self._generator.logits(self._params, hidden[-1])
        state = State(
            cache=cache,
            logits=jnp.array(logits),
            length=jnp.array([*map(len, prompts), *[0] * (rows - count)], jnp.int32),
            done=jnp.arange(rows) >= count,
            keys=_keys(np.array([*seeds, *[(0, 0, 0)] * (rows - count)], np.uint32)),
            step=jnp.int32(0),
        )
        restrictions = Restrictions(
            np.float32(sampling.temperature), np.int32(sampling.top_k), np.float32(sampling.top_p)
        )
        texts = [_Text(self._tokenizer, ids, sampling.stop) for ids in prompts]
        for written in range(0, sampling.max_tokens, _STEPS):
            steps = np.int32(min(_STEPS, sampling.max_tokens - written))
            state, tokens, values = self._generator.write(
                self._params, state, _STEPS, restrictions, steps
            )
            tokens, values, done = map(np.asarray, (tokens, values, state.done))
            for text, *row in zip(texts, tokens, values, strict=False):
                text.add(*(part[:steps] for part in row), self._config.end_token_ids)
            ended = [text.ended for text in texts]
            if all(ended):
                break
            state = state._replace(done=jnp.array([*ended, *done[count:]]))
        return [text.completion() for text in texts]

    def _empty_cache(self, rows: int, room: int, begun=None):
        """Room for rows of tokens, the first of them those of a smaller cache."""
        cache = empty_cache(self._config, rows, room, self._generator.model.compute.dtype)
        if begun is not None:
            cache = _put(cache, begun, 0)
        names = ("batch", None, "kv_heads", None)
        sharding = jax.sharding.NamedSharding(self._mesh, meshes.partition_spec(names))
        return jax.device_put(cache, sharding)


class _Text:
    """A completion that is being written, and where it ends."""

    def __init__(self, tokenizer, prompt: Sequence[int], stop: Sequence[str]):
        self._tokenizer, self._stop = tokenizer, stop
        # Some tokenizers drop the space in front of what they decode, so it is not the first.
        self._context = list(prompt[-4:])
        self._before = len(tokenizer.decode(self._context))
        self._tokens, self._values, self._text = [], [], None

    @property
    def ended(self) -> bool:
        return self._text is not None

    def add(self, tokens, values, ends) -> None:
        """Takes tokens up to the end token or the one that completes a stop text."""
        for token, value in zip(tokens, values, strict=True):
            if self.ended:
                return
            self._values.append(float(value))
            if token in ends:
                self._text = self._decode()
                self._tokens.append(int(token))
                return
            self._tokens.append(int(token))
            if self._stop:
                text = self._decode()
                places = [text.find(stop) for stop in self._stop if stop in text]
                self._text = text[: min(places)] if places else None

    def completion(self) -> Completion:
        reason = "stop" if self.ended else "length"
        text = self._text if self.ended else self._decode()
        return Completion(text, len(self._tokens), reason, float(np.sum(self._values)))

    def _decode(self) -> str:
        return self._tokenizer.decode([*self._context, *self._tokens])[self._before :]


def open(
    weights: str | Path,
    *,
    name: str | None = None,
    batch_size: int = 16,
    context: int = 2048,
    block: int = 32,
    dtype: str = "auto",
    mesh: Mapping[str, int] | None = None,
) -> Local:
    """The language model in a folder of Hugging Face's, a GGUF file, a run or one of its steps.

    Args:
      weights: see pretrained/find.py.
      name: for the cache and for provenance, before a checksum of the weights; default: the file's.
      batch_size: completions that are written at once.
      context: tokens of a prompt and its completion, at most; more take more memory.
      block: tokens of a prompt that are read at once.
      dtype: of the computation; 'auto' is float32 on CPU, bfloat16 elsewhere.
      mesh: devices along each axis, as in config.mesh; default: one device.

    Raises:
      UserError: no weights of a language model, or none with a tokenizer.
    """
    source = find_weights(weights)
    if not hasattr(source.config, "end_token_ids"):
        raise UserError(f"{source.name} holds no language model that can say its shape")
    tokenizer = load_tokenizer_of(source)
    if tokenizer is None:
        raise UserError(f"{source.name} brings no tokenizer; put tokenizer.json beside it")
    loaded = load_weights(source)
    return Local(
        loaded.config,
        loaded.params,
        tokenizer,
        name=name or PurePath(weights).stem,
        batch_size=batch_size,
        context=context,
        block=block,
        dtype=dtype,
        mesh=mesh or {"data": 1, "devices": jax.devices()[:1]},
    )


def _lay_out(params, model: Llama, mesh):
    """Each layer's parameters apart, on the mesh, matrices in the type of the computation."""
    boxed = jax.eval_shape(
        lambda key: model.init(key, jnp.zeros((1, 1), jnp.int32)), jax.random.key(0)
    )
    shardings = meshes.tree_shardings(mesh, boxed["params"])

    def place(path, value, sharding):
        gain = path[-1].key == "scale"
        return jax.device_put(value if gain else value.astype(model.compute.dtype), sharding)

    return jax.tree_util.tree_map_with_path(place, unstack(params), shardings)


@jax.jit
def _bits(value):
    return jnp.sum(jax.lax.bitcast_convert_type(value, jnp.uint32), dtype=jnp.uint32)


def _checksum(params) -> str:
    """Eight hexadecimal digits that other weights have not, the same on any mesh."""
    sums = [int(_bits(leaf)) for leaf in jax.tree.leaves(params)]
    return f"{zlib.crc32(np.array(sums, np.uint32).tobytes()):08x}"


def _room(tokens: int) -> int:
    """Places of the cache for a text: few sizes, since each is compiled for."""
    step = max(_LEAST_ROOM // 2, 2 ** (tokens.bit_length() - 3))
    return -(-tokens // step) * step


@jax.jit
def _keys(seeds):
    """A PRNG key for each row of uint32 [N, 3]: seed, prompt, number of the completion."""

    def key(seed):
        return functools.reduce(jax.random.fold_in, seed[1:], jax.random.key(seed[0]))

    return jax.vmap(key)(seeds)


@jax.jit
def _put(cache, block, at):
    put = jax.lax.dynamic_update_slice_in_dim
    return jax.tree.map(lambda into, new: put(into, new, at, axis=1), cache, block)


@jax.jit
def _put_row(cache, row, index):
    """The first of equal rows, as far as there is room for it."""

    def put(into, new):
        size = min(into.shape[1], new.shape[1])
        return jax.lax.dynamic_update_slice(into, new[:1, :size], (index, 0, 0, 0))

    return jax.tree.map(put, cache, row)


@functools.partial(jax.jit, static_argnums=2)
def _take(cache, at, size: int):
    take = jax.lax.dynamic_slice_in_dim
    return jax.tree.map(lambda x: take(x, at, size, axis=1), cache)
