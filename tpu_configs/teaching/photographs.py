"""Where is a CLIP weak on photographs of yours, what should be bought, and what did it bring?

python teach.py --config=tpu_configs/teaching/photographs.py --config.data.root=DIR --workdir=OUT \\
    --config.init.from=RUN

DIR holds captions.json and images/; RUN is a run directory or weights in any layout. Hard negatives
are written by rule, or --config.teach.options.writer=FOLDER names what captions.generate wrote.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_teaching_config()
    config.model.name = "pretrained"
    config.total_steps = 60
    config.batch_size = 32
    config.optimizer.learning_rate = 1e-5
    config.method.name = "negclip"

    config.data.source = "captions"
    config.data.options = ConfigDict()
    config.data.num_negatives = 1

    config.eval.benchmarks = ("retrieval",)
    config.eval.retrieval.root = config.data.get_ref("root")
    config.eval.retrieval.split = "test"
    config.eval.retrieval.test_size = config.data.get_ref("test_size")
    config.teach.paper = "photographs"
    config.teach.options = ConfigDict(dict(writer="rules", turns=2, budget=640))
    config.teach.baseline = "uniform"
    config.teach.x_label = "turn"
    return config
