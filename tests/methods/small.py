"""A linear CLIP, a language model of bigrams, and their batches, made of what a method says that it
needs and of nothing more."""

import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from models import projection
from models.embeddings import Embeddings, Tokens
from training.state import create_state
from training.teacher import each

N, K, LENGTH, SIZE, VOCAB, D, TEACHER_D = 16, 4, 6, 4, 32, 8, 12
T, C = 3, 5  # frames of a clip, classes of the videos


def make_params(size=D, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": jnp.asarray(rng.normal(size=(SIZE * SIZE * 3, size)), jnp.float32),
        "patch": jnp.asarray(rng.normal(size=(SIZE * 3, size)), jnp.float32),
        "text": jnp.asarray(rng.normal(size=(VOCAB, size)), jnp.float32),
        "logit_scale": jnp.float32(math.log(10.0)),
        "logit_bias": jnp.float32(-10.0),
        "head": jnp.asarray(rng.normal(size=(size, size)), jnp.float32),
    }


def make_state(method, tx):
    """The state before the first step; a teacher that is another model has another size."""
    policies = method.teacher
    by_name = policies if isinstance(policies, Mapping) else {"teacher": policies}
    external = {name: TEACHER_D for name, policy in by_name.items() if policy.external}
    params = make_params()
    if external:
        params |= meta.unbox(projection.init_maps(jax.random.key(0), D, external))
    state = create_state(params, method, tx)
    kept = each(
        policies,
        lambda policy, own: make_params(TEACHER_D, seed=1) if policy.external else own,
        state.fixed["teacher"],
    )
    return state.replace(fixed=state.fixed | {"teacher": kept})


def make_batch(method, step=0):
    """The fields that the method asks for; some slots are empty, of a sample even all."""
    rng = np.random.default_rng(100 + step)

    def ids(*shape):
        """Texts of two tokens at least, padded with 0."""
        tokens = rng.integers(1, VOCAB, (*shape, LENGTH)).astype(np.int32)
        return np.where(np.arange(LENGTH) < rng.integers(2, LENGTH + 1, (*shape, 1)), tokens, 0)

    def slots(count):
        valid = rng.random((N, count)) < 0.7
        valid[0], valid[1, 0] = False, True
        return valid

    fields = {
        "image": rng.integers(0, 256, (N, SIZE, SIZE, 3)).astype(np.uint8),
        "text": ids(N),
        "negatives": ids(N, K),
        "negatives_valid": slots(K),
        "video": rng.integers(0, 256, (N, T, SIZE, SIZE, 3)).astype(np.uint8),
        "label": rng.integers(0, C, N).astype(np.int32),
        "class_text": ids(C, 2),
        "preferred": np.tile([True, False], (N, 1)),
    }
    fields["tokens"] = ids(N, 2) if "preferred" in method.fields else ids(N)
    fields["completion"] = (fields["tokens"] > 0) & (np.arange(LENGTH) > 0)
    for texts in method.texts:
        fields[f"texts:{texts.role}"] = ids(N, *texts.shape)
        fields[f"valid:{texts.role}"] = slots(texts.count)
    return {name: fields[name] for name in method.fields}


def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def pixels(images):
    return images.astype(jnp.float32) / 127.5 - 1


def tokens_of(params, ids):
    return Tokens(params["text"][ids], ids > 0)


def embed_texts(params, ids):
    """The mean of the vectors of a text's tokens."""
    tokens = tokens_of(params, ids)
    return unit(jnp.sum(tokens.features * tokens.valid[..., None], axis=-2))


def apply(params, batch, needs):
    """Pixels times a matrix, rows of pixels for patches, and a vector for each token."""
    image, negatives = pixels(batch["image"]), batch.get("negatives")
    roles = {name.partition(":")[2]: batch[name] for name in batch if name.startswith("texts:")}
    has_tokens = "text_tokens" in needs
    return Embeddings(
        image=unit(image.reshape(len(image), -1) @ params["image"]),
        text=embed_texts(params, batch["text"]),
        negatives=None if negatives is None else embed_texts(params, negatives),
        logit_scale=jnp.exp(params["logit_scale"]),
        logit_bias=params["logit_bias"],
        texts={role: embed_texts(params, ids) for role, ids in roles.items()},
        image_tokens=(
            image.reshape(len(image), SIZE, -1) @ params["patch"]
            if "image_tokens" in needs
            else None
        ),
        text_tokens=tokens_of(params, batch["text"]) if has_tokens else None,
        negative_tokens=(
            tokens_of(params, negatives) if has_tokens and negatives is not None else None
        ),
    )


def apply_to_video(params, batch):
    """The same of frames and of classes' texts, with a head of residuals."""
    video = pixels(batch["video"])
    image = unit(video.reshape(len(video), T, -1) @ params["image"])
    text = unit(embed_texts(params, batch["class_text"]).mean(axis=1))
    return Embeddings(
        image=image,
        text=text,
        logit_scale=jnp.exp(params["logit_scale"]),
        image_residual=image + 0.1 * image @ params["head"],
        text_residual=text + 0.1 * text @ params["head"],
    )


def apply_to_tokens(params, batch):
    """Log-probability of each token by the one before it; 0 for the first."""
    table = jax.nn.log_softmax(params["text"] @ params["text"].T)
    tokens = batch["tokens"]
    values = table[tokens[..., :-1], tokens[..., 1:]]
    return jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(1, 0)])


def embedder(method):
    """(params, batch) -> what a model hands out that the method needs."""
    if "tokens" in method.batch_fields:
        return apply_to_tokens
    if "video" in method.batch_fields:
        return apply_to_video
    return projection.mapped(functools.partial(apply, needs=method.needs))


def shuffled(batch, order):
    """The batch with its samples in another order."""
    return {name: rows if name == "class_text" else rows[order] for name, rows in batch.items()}


def with_other_empty_slots(batch, other):
    """The batch with the texts of another in the slots that are empty."""
    changed = dict(batch)
    for name, valid in batch.items():
        kind, _, role = name.partition(":")
        texts = {"negatives_valid": "negatives", "valid": f"texts:{role}"}.get(kind)
        if texts:
            empty = ~valid.reshape(*valid.shape, *[1] * (batch[texts].ndim - valid.ndim))
            changed[texts] = np.where(empty, other[texts], batch[texts])
    return changed


def differentiable(tree):
    """The tree without leaves that have no gradient, such as which tokens are valid."""
    return jax.tree.map(lambda x: None if x.dtype == jax.dtypes.float0 else x, tree)
