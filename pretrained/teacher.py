"""A teacher of any shape or family: pretrained weights that look at the student's batches.

It reads a batch with its own tokenizer, context length and image size where they are not the
student's: such fields of a batch have the teacher's name and a slash in front.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from flax.core import meta

from data.tokenizer import Tokenizer, load_tokenizer
from errors import UserError
from models import parameters, zoo
from models.clip import CLIPConfig, VideoConfig, embedder, init_params
from models.transformer import Compute
from pretrained.find import WeightsSource, find_weights
from pretrained.fingerprint import check_tokenizer
from pretrained.load import load_tokenizer_of, load_weights

DTYPES = ("float32", "bfloat16", "int8")
# Fields of a batch that are texts, or say how they lie; what follows a colon is a role.
_TEXTS = ("text", "negatives", "text_slots", "text_starts", "class_text", "texts")


@dataclasses.dataclass(frozen=True)
class Teacher:
    """Another model beside the student.

    Attributes:
      name: in front of the fields of a batch that are its own.
      source: its weights.
      model: of their shape.
      tokenizer: its own.
      dtype: of its parameters in memory, one of DTYPES.
    """

    name: str
    source: WeightsSource
    model: Any
    tokenizer: Tokenizer
    dtype: str

    def reads(self, student: CLIPConfig, tokenizer_hash: str) -> dict[str, Any]:
        """What a pipeline must make for it beside the student's fields, see data.readers.Reader.

        Args:
          student: the shape of the student.
          tokenizer_hash: of the student's tokenizer.

        Raises:
          UserError: a language model, and its tokenizer is not the student's.
        """
        same_tokenizer = self.tokenizer.fingerprint() == tokenizer_hash
        if not isinstance(self.model.config, CLIPConfig):
            if same_tokenizer:
                return {}
            raise UserError(f"{self.source.name} has another tokenizer than the student")
        text, image_size = self.model.config.text, self.model.config.vision.image_size
        same_text = (
            same_tokenizer
            and text.context_length == student.text.context_length
            and text.pool == student.text.pool
        )
        own_text = dict(
            tokenizer=self.tokenizer,
            context_length=text.context_length,
            causal=text.pool == "end",
        )
        return ({} if same_text else own_text) | (
            {} if image_size == student.vision.image_size else {"image_size": image_size}
        )

    def embedder(self, needs: Sequence[str] = ()) -> Callable[[Any, dict], Any]:
        """(parameters as in parameters(), batch) -> what the teacher makes of it."""
        embed, prefix = embedder(self.model, needs), f"{self.name}/"

        def look(params, batch):
            own = {
                name.removeprefix(prefix): x for name, x in batch.items() if name.startswith(prefix)
            }
            shared = {
                name: x
                for name, x in batch.items()
                if not ("text" in own or "class_text" in own) or name.split(":")[0] not in _TEXTS
            }
            return embed(parameters.whole(params), shared | own)

        return look

    def shapes(self, layout: Callable) -> Any:
        """Shapes and places of its parameters, with nothing read.

        Args:
          layout: a tree of shapes in Linen's boxes -> a tree of shardings.
        """
        shapes = jax.eval_shape(self._compress, self._boxed())
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            meta.unbox(shapes),
            layout(shapes),
        )

    def load(self, layout: Callable) -> Any:
        """Its parameters, read and laid out on the devices; see shapes()."""
        params = load_weights(
            self.source,
            layout(self._boxed()),
            config=self.model.config,
            tokenizer_hash=self.tokenizer.fingerprint(),
        ).params
        if self.dtype == "float32":
            return params
        places = layout(jax.eval_shape(self._compress, self._boxed()))
        return jax.jit(self._compress, out_shardings=places)(params)

    def _boxed(self):
        return jax.eval_shape(functools.partial(init_params, self.model), jax.random.key(0))

    def _compress(self, params):
        return _compress(params, self.dtype, self._boxed())


def open_teacher(name: str, options: Mapping, compute: Compute, video: bool) -> Teacher:
    """Finds a teacher's weights and tokenizer; reads nothing of the weights yet.

    Args:
      name: see Teacher.
      options: config.teacher.
      compute: how it is run.
      video: whether it looks at clips: frame by frame, as CLIP does.

    Raises:
      UserError: no weights or no tokenizer, or an unknown dtype.
    """
    if options["dtype"] not in DTYPES:
        raise UserError(
            f"config.{name}.dtype is '{options['dtype']}'; there are: {', '.join(DTYPES)}"
        )
    source = find_weights(options["from"])
    if source.config is None:
        raise UserError(
            f"{source.name} is a bare state dict, which cannot say its shape: convert it first, "
            "python -m pretrained.convert"
        )
    named = options["tokenizer"]
    tokenizer = load_tokenizer(named) if named else load_tokenizer_of(source)
    if tokenizer is None:
        raise UserError(f"{source.name} brings no tokenizer: name one in config.{name}.tokenizer")
    config = source.config
    if isinstance(config, CLIPConfig):
        check_tokenizer(config, tokenizer, source.name)
    if video:
        config = dataclasses.replace(config, video=VideoConfig(window=0))
    return Teacher(name, source, zoo.make(config, compute), tokenizer, options["dtype"])


def _compress(params, dtype: str, like):
    """Matrices and tables as dtype; vectors and numbers stay as they are.

    int8 is for the kernels that dense layers multiply by; what else would be int8 is bfloat16.

    Args:
      like: the same tree in Linen's boxes.
    """
    boxes, out = traverse_util.flatten_dict(like, sep="/"), {}
    for path, leaf in traverse_util.flatten_dict(params, sep="/").items():
        value, names = meta.unbox(leaf), getattr(boxes[path], "names", ())
        stacked = int(names[:1] == ("layers",))

        def box(array, names, leaf=leaf, value=value):
            return array if leaf is value else leaf.replace(value=array, names=names)

        if dtype == "float32" or value.ndim - stacked < 2:
            out[path] = leaf
        elif dtype == "int8" and path.endswith("/kernel"):
            parts = parameters.quantize(value, stacked)
            scale = parts[parameters.INT8_SCALE]
            axes = [
                name if size > 1 else None for name, size in zip(names, scale.shape, strict=True)
            ]
            out[f"{path}/{parameters.INT8}"] = box(parts[parameters.INT8], names)
            out[f"{path}/{parameters.INT8_SCALE}"] = box(scale, tuple(axes))
        else:
            out[path] = box(value.astype(jnp.bfloat16), names)
    return traverse_util.unflatten_dict(out, sep="/")
