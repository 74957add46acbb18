"""Do descriptions of confused classes make a frozen CLIP name pictures better? In the world.

python teach.py --config=tpu_configs/teaching/prompts.py --workdir=RUN
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_teaching_config()
    config.teach.paper = "strategies"
    config.teach.options = ConfigDict(dict(per_class=4, rounds=2, most=40, nouns="all"))
    config.teach.baseline = "names alone"
    config.teach.x_label = "frozen CLIP"
    return config
