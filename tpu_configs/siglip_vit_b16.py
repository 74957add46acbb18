"""SigLIP (arXiv 2303.15343) from scratch: ViT-B/16 at 224 pixels, 9 billion examples.

    python train.py --config=tpu_configs/siglip_vit_b16.py --config.data.root=DIR \\
        --config.data.tokenizer=TOKENIZER --workdir=RUN

DIR holds captions.json (`[{image, captions}]`) and images/. The towers are CLIP's; the loss, its
temperature and bias, and the optimizer are the paper's.
"""

import math

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.batch_size = 32_768
    config.total_steps = 9_000_000_000 // 32_768

    config.model.name = "ViT-B-16"
    config.model.remat = "full"
    config.model.logit_scale_init = math.log(10.0)
    config.model.logit_bias_init = -10.0
    config.method.name = "siglip"

    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 20_000
    config.optimizer.b2 = 0.95
    config.optimizer.eps = 1e-8
    config.optimizer.weight_decay = 1e-4
    config.optimizer.grad_clip_norm = 1.0

    config.data.source = "captions"
    config.data.tokenizer = "openai/clip-vit-base-patch16"
    config.data.workers = 8
    return config
