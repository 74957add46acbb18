"""DeGLA from scratch: a tiny model on captions.json data, in minutes on two CPU cores.

    python train.py --config=tpu_configs/flickr8k_tiny.py --config.data.root=DIR --workdir=RUN

DIR holds captions.json (`[{image, captions}]`) and images/. Hard negatives are written by rule.
100 images are set aside by hash. From random weights the teacher is worth following only when it
follows quickly, hence the low decay.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.batch_size = 32
    config.total_steps = 500
    config.log_every_steps = 20

    config.model.name = "tiny"
    config.method.name = "degla"
    config.method.options = ConfigDict(dict(ema_decay=0.99))

    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 50
    config.optimizer.grad_clip_norm = 1.0

    config.data.source = "captions"
    config.data.negatives = "rules"
    config.data.split = "train"
    config.data.test_size = 100
    config.data.tokenizer_vocab_size = 4096

    config.checkpoint.every_steps = 100
    config.eval.retrieval.root = config.data.get_ref("root")
    config.eval.retrieval.split = "test"
    config.eval.retrieval.test_size = 100
    return config
