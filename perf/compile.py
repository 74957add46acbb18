"""Compiles an experiment's training step for a TPU that is not there, and says what it takes.

    pip install -e ".[tpu]"
    python -m perf.compile --config=tpu_configs/froster_vit_b16_k400_b2n.py --topology=v5e:2x4

The real TPU compiler runs on any machine. A step that does not fit the chips' memory fails here as
it would there.
"""

import functools
import os
from importlib.util import find_spec

import jax
import jax.numpy as jnp
from absl import flags
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict, config_flags

import experiment
from errors import UserError
from methods import base as methods
from models import zoo
from models.clip import embedder, init_params
from training import cli
from training import mesh as meshes
from training.optimizer import make_optimizer
from training.state import abstract_state
from training.step import jit_train_step, make_train_step

VOCAB_SIZE, END = 49408, 49407  # CLIP's


def compile_step(config: ConfigDict, topology: str, num_classes: int):
    """The compiled step of a config on that topology, jax.stages.Compiled.

    Args:
      topology: as jax.experimental.topologies names it, such as v5e:2x4.
      num_classes: of a run on videos.

    Raises:
      UserError: the compiler is not installed, or the config and the topology do not fit.
    """
    if find_spec("libtpu") is None:
        raise UserError("the TPU's compiler is not installed: pip install -e '.[tpu]'")
    # There is no TPU to ask, nor one that another process could take away.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", topology)
    devices = topologies.get_topology_desc(topology_name=topology, platform="tpu").devices
    mesh = meshes.make_mesh(**config.mesh, devices=devices)
    meshes.check_batch_size(mesh, config.batch_size)
    method = methods.load(config.method.name, config.method.options)
    _, tx = make_optimizer(**dict(config.optimizer, warmup_epochs=None), total_steps=1_000_000)
    options = dict(config.model)
    if options["dtype"] == "auto":
        options["dtype"] = "bfloat16"
    model = zoo.build(
        **options,
        vocab_size=VOCAB_SIZE,
        eos_token_id=END,
        constrain=meshes.constraint(mesh),
        shards=meshes.batch_shards(mesh),
    )
    abstract = abstract_state(mesh, functools.partial(init_params, model), method, tx)
    embedders = [embedder(network, method.needs) for network in (model, model.teacher())]
    step = make_train_step(*embedders, method, tx)
    batch = abstract_batch(config, model.config, mesh, method, num_classes)
    return jit_train_step(step, abstract).lower(abstract, batch).compile()


def abstract_batch(config: ConfigDict, shape, mesh, method, num_classes: int) -> dict:
    """Shapes and layout of a batch that a method needs, its texts at their full length."""
    n, k, length = config.batch_size, config.data.num_negatives, shape.text.context_length
    image = (shape.vision.image_size, shape.vision.image_size, 3)
    known = {
        "image": ((n, *image), jnp.uint8),
        "text": ((n, length), jnp.int32),
        "negatives": ((n, k, length), jnp.int32),
        "negatives_valid": ((n, k), jnp.bool),
        "video": ((n, config.data.num_frames, *image), jnp.uint8),
        "label": ((n,), jnp.int32),
        "class_text": ((num_classes, 2, length), jnp.int32),
    }
    for texts in method.texts:
        known[f"texts:{texts.role}"] = ((n, *texts.shape, length), jnp.int32)
        known[f"valid:{texts.role}"] = ((n, texts.count), jnp.bool)
    everywhere = NamedSharding(mesh, PartitionSpec())
    rows = meshes.batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct(
            *known[name], sharding=everywhere if name in meshes.REPLICATED else rows
        )
        for name in method.fields
    }


def main() -> None:
    args = flags.FLAGS
    try:
        compiled = compile_step(args.config, args.topology, args.classes)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        first = str(error).splitlines()[0]
        raise UserError(f"the step does not fit the memory of {args.topology}: {first}") from None
    memory = compiled.memory_analysis()
    sizes = {
        "state and batch": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "results that are not the donated state": (
            memory.output_size_in_bytes - memory.alias_size_in_bytes
        ),
        "program": memory.generated_code_size_in_bytes,
    }
    print(f"{args.topology}, batch {args.config.batch_size}, MB per chip:")
    for name, size in (sizes | {"all": sum(sizes.values())}).items():
        print(f"  {name:40}{size / 1e6:10.1f}")


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", help_string="A file of tpu_configs/.")
    flags.DEFINE_string("topology", "v5e:2x4", "Kind and shape of the TPU slice.")
    flags.DEFINE_integer("classes", 200, "Of a run on videos; K400's base classes: 200.")


if __name__ == "__main__":
    cli.run(main, define_flags, **experiment.config_flag())
