"""DPO (arXiv 2305.18290) of SmolLM2-135M on better and worse completions, by LoRA.

    python train.py --config=tpu_configs/smollm2_dpo.py --config.data.root=DATA --workdir=RUN

DATA holds train.jsonl, {"prompt": .., "chosen": .., "rejected": ..} a line. It starts from what
config.init.from names, such as the run of smollm2_sft.py, and that is the reference.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_language_config()
    config.method.name = "dpo"
    config.method.options = ConfigDict(dict(beta=0.1, nll_weight=0.0))
    config.optimizer.learning_rate = 5e-5
    config.data.source = "preferences"
    return config
