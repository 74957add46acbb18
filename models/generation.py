"""Running a language model on its own words: reading a prompt in blocks, then token by token."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from models.llama import Llama


class Restrictions(NamedTuple):
    """How a token is drawn; arrays [], so that other values compile nothing anew.

    Attributes:
      temperature: 0 takes the likeliest.
      top_k: among that many likeliest tokens; 0 is all.
      top_p: among the likeliest of these that together have this probability.
    """

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array


class State(NamedTuple):
    """N texts that are being written.

    Attributes:
      cache: keys and values of all tokens so far.
      logits: float32 [N, vocab_size], of the next token.
      length: int32 [N], tokens so far.
      done: bool [N], texts that have ended, and are not gone on with.
      keys: PRNG keys [N], one for each text.
      step: int32 [], tokens written so far.
    """

    cache: tuple
    logits: jax.Array
    length: jax.Array
    done: jax.Array
    keys: jax.Array
    step: jax.Array


@dataclasses.dataclass(frozen=True)
class Generator:
    """The compiled parts of a language model whose layers lie apart (models/llama.py)."""

    model: Llama

    @functools.partial(jax.jit, static_argnums=0)
    def read(self, params, tokens, start, cache):
        """Hidden states [N, L, width] of tokens [N, L] from place start [] on, and the cache."""
        positions = jnp.broadcast_to(start + jnp.arange(tokens.shape[1]), tokens.shape)
        apply = functools.partial(self.model.apply, {"params": params}, method="hidden")
        return apply(tokens, positions, cache=cache)

    @functools.partial(jax.jit, static_argnums=0)
    def logits(self, params, hidden):
        """Of the tokens after hidden states [..., width], float32 [..., vocab_size]."""
        return self.model.apply({"params": params}, hidden, method="logits")

    @functools.partial(jax.jit, static_argnums=0)
    def score(self, params, hidden, tokens):
        """Log-probability of each token [L] after the hidden state [L, width] before it."""
        logits = self.model.apply({"params": params}, hidden, method="logits")
        picked = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
        return picked - jax.nn.logsumexp(logits, axis=-1)

    @functools.partial(jax.jit, static_argnums=(0, 3), donate_argnums=2)
    def write(self, params, state: State, count: int, restrictions: Restrictions, steps):
        """Writes on by steps [] <= count tokens, or until all texts have ended.

        Returns:
          state, int32 tokens [N, count] and their float32 log-probabilities under the model itself;
          after a text's end both are 0.
        """
        ends = jnp.array(self.model.config.end_token_ids, jnp.int32)

        def unfinished(loop):
            state, _, _, i = loop
            return (i < steps) & ~state.done.all()

        def body(loop):
            state, tokens, values, i = loop
            drawn = draw(state.logits, state.keys, state.step, restrictions)
            value = jnp.take_along_axis(state.logits, drawn[:, None], 1)[:, 0]
            value -= jax.nn.logsumexp(state.logits, axis=-1)
            tokens = tokens.at[:, i].set(jnp.where(state.done, 0, drawn))
            values = values.at[:, i].set(jnp.where(state.done, 0, value))
            hidden, cache = self.model.apply(
                {"params": params},
                drawn[:, None],
                state.length[:, None],
                cache=state.cache,
                method="hidden",
            )
            state = State(
                cache=cache,
                logits=self.model.apply({"params": params}, hidden[:, 0], method="logits"),
                # A text that has ended is written over and over in one place.
                length=state.length + ~state.done,
                done=state.done | (drawn[:, None] == ends).any(axis=1),
                keys=state.keys,
                step=state.step + 1,
            )
            return state, tokens, values, i + 1

        rows = len(state.length)
        empty = jnp.zeros((rows, count), jnp.int32), jnp.zeros((rows, count), jnp.float32)
        state, tokens, values, _ = jax.lax.while_loop(unfinished, body, (state, *empty, 0))
        return state, tokens, values


def draw(logits, keys, step, restrictions: Restrictions):
    """A token for each row of logits [N, vocab_size], int32 [N].

    Row i draws with fold_in(keys[i], step), so that it does not depend on the rows beside it.
    """

    def at_random():
        scaled = logits / restrictions.temperature
        whole = (restrictions.top_k == 0) & (restrictions.top_p >= 1)
        kept = jax.lax.cond(whole, lambda: scaled, lambda: restrict(scaled, restrictions))
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
        return jax.vmap(jax.random.categorical)(step_keys, kept).astype(jnp.int32)

    def likeliest():
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)

    return jax.lax.cond(restrictions.temperature > 0, at_random, likeliest)


def restrict(logits, restrictions: Restrictions):
    """Logits [N, V] with -inf for what top_k, then top_p, leave out; ties stay in."""
    ordered = jnp.sort(logits, axis=-1, descending=True)
    rank = jnp.arange(logits.shape[-1])
    top_k = jnp.where(restrictions.top_k == 0, len(rank), restrictions.top_k)
    kept = jnp.where(rank < top_k, ordered, -jnp.inf)
    probability = jax.nn.softmax(kept, axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability
    kept = (rank < top_k) & ((before < restrictions.top_p) | (rank == 0))
    least = jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= least, logits, -jnp.inf)
