"""Plain CLIP from scratch on the embedded world: the weights that quickstart.py starts from.

    python train.py --config=tpu_configs/world/pretrain.py --workdir=RUN

Hardly ever do two captions of a batch differ in their order alone: nothing teaches the model order,
and it becomes the bag of words that real CLIPs are (Yuksekgonul et al. 2023, arXiv 2210.01936).
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.batch_size = 256
    config.total_steps = 2000
    config.log_every_steps = 50

    config.model.name = "world"
    config.model.unroll_layers = True
    config.method.name = "clip"

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 200
    config.optimizer.grad_clip_norm = 1.0

    config.data.source = "world"
    # Colours and sizes would settle most comparisons within a batch; so things have to.
    config.data.options = ConfigDict(
        dict(
            length=1_000_000,
            size=48,
            pairs=0.5,
            colours=0.15,
            sizes=0.15,
            relations=0.5,
            num_negatives=0,
        )
    )
    config.data.tokenizer_vocab_size = 2048  # every word of the world is a token
    config.data.text_rows = (0.3, 0.4, 1.0)
    config.data.crop_scale = (1.0, 1.0)

    config.checkpoint.every_steps = 250
    config.eval.benchmarks = ("world",)
    config.eval.world.size = 48
    return config
