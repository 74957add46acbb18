"""Every key of an experiment, once, with its unit. An experiment's file changes what it needs to.

A config is locked: a misspelt key is an error that names the nearest one.
"""

from pathlib import Path

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from options import modules_that_define

ROOT = Path(__file__).parents[1]
WORLD_WEIGHTS = str(ROOT / "weights" / "world")
MOVING_WEIGHTS = str(ROOT / "weights" / "moving")


def get_config() -> ConfigDict:
    """The defaults; experiments start from them."""
    config = ConfigDict()
    config.seed = 0  # of the initial weights, the data order and the augmentation
    config.batch_size = 256  # images a step, over all devices
    config.microbatches = 1  # parts that a batch is embedded in, one after another; less memory
    config.epochs = placeholder(int)  # length of the run; give epochs or total_steps, 0 takes back
    config.total_steps = placeholder(int)
    config.log_every_steps = 10
    # Compile the step for all shapes of batches before the first, and refuse what does not fit the
    # device; None: on accelerators.
    config.compile_first = placeholder(bool)
    config.log_norms = False  # of every parameter and its gradient, too
    config.track = ()  # further places for what is logged: wandb, mlflow (training/trackers.py)

    config.model = model = ConfigDict()
    # A shape of models/zoo.py, a file of models/ with configure(), whose arguments
    # go here, too, or pretrained: that of init.from.
    model.name = "ViT-B-32-quickgelu"
    # Fields of the named shape that differ: {"embed_dim": 96, "vision": {"width": 96, "heads": 3}}.
    model.overrides = ConfigDict()
    model.image_size = placeholder(int)  # pixels; given, position embeddings are interpolated to it
    model.dtype = "auto"  # of the computation: float32 on CPU, bfloat16 elsewhere; or a dtype
    # What the backward pass recomputes: none, full, dots, dots_no_batch (all but the products with
    # weights, docs/performance.md).
    model.remat = "dots_no_batch"
    model.unroll_layers = False  # no loop over the layers; slower to compile
    # xla, cudnn (NVIDIA GPUs, 16 bits) or pallas (TPUs); auto: cudnn where it can be, else xla
    model.attention = "auto"
    model.logit_scale_init = placeholder(float)  # logarithm; the shape's own where None
    model.logit_bias_init = placeholder(float)  # SigLIP's bias; None for a model without one
    model.video = video = ConfigDict()  # how a model of video sees its frames, models/video.py
    video.window = placeholder(int)  # frames a frame sees to each side; None: a model of images
    video.edge = "released"  # of the neighbours that the ends lack: released (zeros) or masked
    video.residual_heads = True  # between the student's features and the teacher's

    config.init = ConfigDict()
    config.init["from"] = ""  # pretrained weights: a folder or a hub id; empty: random weights

    # Another model as the teacher of a method whose teacher stays as it is, of any shape or family.
    config.teacher = teacher = ConfigDict()
    teacher["from"] = ""  # pretrained weights, as init.from; empty: the method's own teacher
    teacher.tokenizer = ""  # folder or hub id; empty: that of the weights
    teacher.dtype = "float32"  # of its parameters in memory: float32, bfloat16 or int8
    # Of a method that compares with several, by the names that it gives them: the same keys.
    config.teachers = ConfigDict()

    config.train = train = ConfigDict()  # which parameters learn: training/trainable.py
    # Patterns of their paths, such as ("text/*", "!*/bias", "vision/*blocks/*[-2:]"): ! takes back,
    # and the last stands for the last two layers. Empty: all, or with LoRA none beside it.
    train.learn = ()
    # Teachers of the student's size see it through FROSTER's residual heads (models/projection.py).
    train.residual_heads = False
    train.lora = lora = ConfigDict()
    lora.rank = 0  # of the products that learn in the place of matrices; 0: no LoRA
    lora.alpha = placeholder(float)  # the products count alpha / rank; None: 1
    lora.where = ("*blocks/*/kernel",)  # patterns of these matrices

    config.method = method = ConfigDict()
    method.name = "degla"  # a file of methods/
    method.options = ConfigDict()  # the arguments of its make(); see the file

    config.optimizer = optimizer = ConfigDict()
    optimizer.learning_rate = 1e-6  # peak
    optimizer.warmup_steps = 50
    optimizer.warmup_epochs = placeholder(float)  # instead of warmup_steps
    optimizer.init_learning_rate = placeholder(float)  # of step 1; None: peak / warmup_steps
    optimizer.end_learning_rate = 0.0  # that the cosine tends to
    optimizer.b1 = 0.9
    optimizer.b2 = 0.98
    optimizer.eps = 1e-6
    optimizer.weight_decay = 0.1  # on matrices only
    optimizer.grad_clip_norm = 0.0  # global norm; 0: no clipping
    optimizer.mu_dtype = "float32"  # of the first moment in memory: float32 or bfloat16

    config.mesh = mesh = ConfigDict()
    mesh.data = -1  # devices along each axis; -1: what the others leave
    mesh.fsdp = 1
    mesh.tensor = 1

    config.distributed = distributed = ConfigDict()  # of a run of several processes
    distributed.heartbeat_timeout_s = 30.0  # a process not heard of for so long ends all others
    distributed.initialization_timeout_s = 300  # for all of them to have started

    config.data = data = ConfigDict()
    data.source = "captions"  # a source of data/sources.py, or a file of data/
    data.root = ""  # folder or file, see the source
    data.split = "all"  # train, test (the test_size images of smallest hash) or all
    data.test_size = 0  # images
    data.train_size = placeholder(int)  # images; None: all that are not in the test split
    data.options = ConfigDict()  # further arguments of the source
    data.tokenizer = ""  # folder or hub id; empty: init.from's, else one trained on the captions
    data.tokenizer_vocab_size = 4096  # of a tokenizer trained on the captions
    # Rows that a batch's texts are packed into, as shares of the texts: the least that holds all.
    data.text_rows = (0.2, 0.25, 0.3, 0.4, 0.6, 1.0)
    # Tokens, where text_rows is empty: a batch's texts are cut to the shortest that fits.
    data.text_lengths = (16, 24, 32, 48, 77)
    data.max_tokens = 512  # of a prompt and its completion, in sources of texts for language models
    data.crop_scale = (0.9, 1.0)  # area of the random resized crop, as a share of the image
    data.num_negatives = 4  # hard negative captions of each caption, K
    # records: as the source has them; rules: captions/rules.py; or a folder that captions.generate
    # wrote. Several with commas between, each with its weight: "rules=1,OUT=3".
    data.negatives = "records"
    data.negative_types = (  # of captions/types/, or "type=weight"; draws are even without weights
        "reshuffle",
        "swap_nouns",
        "swap_adjectives",
        "replace_adjective",
        "replace_noun",
    )
    data.fill_negatives = True  # a type that does not apply: True: another; False: left out
    data.num_frames = 8  # of a clip; this and the next three are for sources of videos
    data.frame_stride = 16  # frames between a clip's, at 30 frames a second
    data.jitter = (224, 256)  # pixels: shortest and longest short side that a clip is cropped from
    data.flip = True  # mirror half of the clips
    data.workers = 0  # decoding processes; 0: in the main process

    config.checkpoint = checkpoint = ConfigDict()
    checkpoint.every_steps = 500  # also the interval of config.eval.benchmarks
    checkpoint.every_epochs = placeholder(int)  # instead of every_steps
    checkpoint.keep_last = 2
    checkpoint.best_metric = placeholder(str)  # logged, such as retrieval/text_to_image_recall@1:
    checkpoint.best_mode = "max"  # its best checkpoint is kept too; min or max

    config.eval = evaluation = ConfigDict()
    evaluation.benchmarks = ()  # files of benchmarks/; train.py runs them at every checkpoint
    evaluation.quick = ()  # benchmarks run more often, every quick_every_steps; 0: never
    evaluation.quick_every_steps = 0
    evaluation.batch_size = 128
    evaluation.before_and_after = False  # also before the first step; at the end see report/run.py
    for benchmark in modules_that_define("run", ROOT / "benchmarks"):
        evaluation[benchmark] = ConfigDict()  # the arguments of its run(); see the file

    config.lock()
    # What is found by name tells its own keys, so these sections take any until it is found.
    for section in (model, method.options, data.options, *_sections(evaluation)):
        section.unlock()
    return config


def _sections(config: ConfigDict) -> list[ConfigDict]:
    return [value for value in config.values() if isinstance(value, ConfigDict)]


def get_language_config() -> ConfigDict:
    """What experiments share that fine-tune SmolLM2-135M by LoRA."""
    config = get_config()
    config.batch_size = 16
    config.epochs = 1

    config.model.name = "pretrained"
    config.init["from"] = "HuggingFaceTB/SmolLM2-135M-Instruct"
    config.train.lora.rank = 16
    config.train.lora.alpha = 32.0

    config.optimizer.warmup_steps = 10
    config.optimizer.b2 = 0.999
    config.optimizer.eps = 1e-8
    config.optimizer.weight_decay = 0.0
    config.optimizer.grad_clip_norm = 1.0
    return config


def get_coco_config() -> ConfigDict:
    """OpenAI's ViT-B/32 fine-tuned on COCO as the papers do it, in batches of 256 for 5 epochs."""
    config = get_config()
    config.epochs = 5
    config.model.name = "ViT-B-32-quickgelu"
    config.init["from"] = "openai/clip-vit-base-patch32"
    config.optimizer.learning_rate = 1e-6
    config.data.source = "coco"
    config.data.workers = 8
    return config


def get_world_pretrain_config() -> ConfigDict:
    """What the shipped weights were pretrained with, which know words and hardly their order."""
    config = get_config()
    config.batch_size = 256
    config.total_steps = 2000
    config.log_every_steps = 50

    config.model.name = "world"
    config.model.unroll_layers = True  # as it was done, though a loop is faster
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


def get_world_config() -> ConfigDict:
    """What experiments share that fine-tune the shipped weights on the embedded world."""
    config = get_config()
    config.batch_size = 64
    config.total_steps = config.checkpoint.every_steps = 400
    config.log_every_steps = 20

    config.model.name = "world"
    config.init["from"] = WORLD_WEIGHTS

    config.optimizer.learning_rate = 1e-3
    config.optimizer.grad_clip_norm = 1.0

    config.data.source = "world"
    config.data.options = ConfigDict(dict(length=50_000, nouns="seen", size=48, num_negatives=4))
    config.data.text_rows = (0.5, 1.0)  # nearly always the first: the step compiles once or twice
    config.data.crop_scale = (1.0, 1.0)

    config.eval.world.size = 48
    return config


def hold_plain_scenes(config: ConfigDict, nouns: str, told: int, held: int) -> None:
    """Mixes the experiment's scenes with plain ones, without negatives, for a teacher to hold.

    Args:
      nouns: the class split of the plain scenes, which are as in pretraining.
      told, held: shares of the experiment's own scenes and of the plain ones.
    """
    of_world = {
        "told": config.data.options.to_dict() | dict(weight=told),
        "held": get_world_pretrain_config().data.options.to_dict()
        | dict(nouns=nouns, weight=held, negatives=False),
    }
    config.data.source = "mixture"
    config.data.options = ConfigDict(
        dict(sources={name: dict(source="world") | options for name, options in of_world.items()})
    )


def get_world_student_config() -> ConfigDict:
    """A student of 96 dimensions, from random weights under the shipped ones of 128 as its teacher.

    It has a tokenizer of its own.
    """
    config = get_world_config()
    tower = dict(width=96, heads=3, mlp_width=384)
    config.model.overrides = ConfigDict(dict(embed_dim=96, vision=tower, text=tower))
    config.init["from"] = ""
    config.teacher["from"] = WORLD_WEIGHTS
    config.data.tokenizer_vocab_size = 2048
    return config


def get_world_relations_config() -> ConfigDict:
    """Fine-tuning on the embedded world that learns how two things stand to each other.

    Told from either thing alike, neither order nor the word between says where a thing is, only
    both together: a parity, of which no half is of use. So most captions are told from the left or
    upper thing, and the things themselves are swapped in some negatives, which no word gives away.
    """
    config = get_world_config()
    config.batch_size = 32
    config.total_steps = 2400
    config.checkpoint.every_steps = 300
    config.data.options = ConfigDict(
        dict(
            length=200_000,
            nouns="seen",
            size=48,
            pairs=1.0,
            colours=1.0,
            sizes=0.25,
            told_first=0.8,
            num_negatives=4,
            types=(
                *("reshuffle", "swap_nouns", "swap_adjectives", "replace_adjective"),
                *("replace_noun", "replace_relation", "swap_things"),
            ),
        )
    )
    config.data.text_rows = (0.75, 1.0)
    config.eval.benchmarks = ("world",)
    config.eval.world.splits = ("seen", "fresh")
    return config


def get_teaching_config() -> ConfigDict:
    """What experiments share in which a teacher looks at its student (teach.py).

    The student is trained as get_world_config() has it, `total_steps` at each fit.
    """
    config = get_world_config()
    config.total_steps = 150
    config.optimizer.warmup_steps = 10
    with config.unlocked():
        config.teach = teach = ConfigDict()
        teach.paper = ""  # a file of teaching/ with an experiment
        teach.options = ConfigDict()  # the arguments of its experiment
        teach.baseline = ""  # the series that the others are compared with, by seed
        teach.x_label = ""  # of the figure
        teach.data = ""  # folder of the task's files
        teach.models = ConfigDict()  # name -> options of language.base.load
    config.lock()
    options = (config.model, config.method.options, config.data.options, *_sections(config.eval))
    for section in (*options, teach.options, teach.models):
        section.unlock()
    return config


def get_froster_config() -> ConfigDict:
    """FROSTER's run on ViT-B/16, but for its videos (arXiv 2402.03241, and its released scripts).

    config.data.root is the folder that those scripts call the workspace: a checkout of
    github.com/Visual-AI/FROSTER with the videos beside its lists (docs/video.md).
    """
    config = get_config()
    config.batch_size = 64
    config.model.name = "ViT-B-16-quickgelu"
    config.model.video.window = 1
    config.init["from"] = "openai/clip-vit-base-patch16"

    config.method.name = "froster"
    config.method.options = ConfigDict(dict(distill_weight=2.0))

    # As it stands, whatever the batch: the released code scales it by the number of machines alone.
    config.optimizer.learning_rate = 3.33e-6
    config.optimizer.init_learning_rate = config.optimizer.end_learning_rate = 3.33e-8
    config.optimizer.warmup_epochs = 2
    config.optimizer.weight_decay = 0.01
    config.optimizer.grad_clip_norm = 1.0

    config.data.source = "video"
    config.data.workers = 8

    # Every epoch's weights are kept: python -m training.checkpoint_mean takes their mean.
    config.checkpoint.every_epochs = 1
    config.checkpoint.keep_last = 100
    config.eval.batch_size = 32
    config.eval.video.root = config.data.get_oneway_ref("root")
    return config


def get_froster_b2n_config(lists: str, videos: str) -> ConfigDict:
    """Base to novel: the paper's 12 epochs on a data set's base classes, scored on both halves.

    Args:
      lists, videos: folders of the data set below config.data.root.
    """
    config = get_froster_config()
    config.epochs = 12

    def files(annotations, half):
        classes = f"{lists}/{half}_rephrased.json"
        return dict(annotations=f"{lists}/{annotations}", classes=classes, videos=videos)

    config.data.options = ConfigDict(files("train.csv", "train"))
    config.eval.video.sets = ConfigDict(
        dict(base=files("val.csv", "train"), novel=files("test.csv", "test"))
    )
    return config


def get_moving_config() -> ConfigDict:
    """What experiments share that fine-tune weights/moving on the embedded clips."""
    config = get_config()
    config.batch_size = 16
    config.total_steps = config.checkpoint.every_steps = 150
    config.log_every_steps = 20

    config.model.name = "world"
    config.model.video.window = 1
    config.init["from"] = MOVING_WEIGHTS
    config.method.name = "froster"

    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 20
    config.optimizer.weight_decay = 0.01
    config.optimizer.grad_clip_norm = 1.0

    config.data.source = "moving"
    config.data.options = ConfigDict(dict(nouns="seen", part="train", length=10_000))
    config.data.frame_stride = 1
    config.data.jitter = (48, 48)  # the weights know tiles on a grid only
    config.data.flip = False

    config.eval.benchmarks = ("video",)
    config.eval.video.source = "moving"
    config.eval.video.frame_stride = 1
    config.eval.video.views = 1
    config.eval.video.sets = ConfigDict(
        dict(
            base=dict(nouns="seen", part="test", length=480),
            novel=dict(nouns="unseen", part="test", length=480),
            # As many classes as there are: what was forgotten shows.
            all_novel=dict(nouns="unseen", part="test", length=480, things=154),
        )
    )
    return config


# What may change when a run goes on in the same directory: nothing that the result depends on.
RESUMABLE = (
    "mesh",
    "distributed",
    "microbatches",
    "compile_first",
    "data.workers",
    "log_every_steps",
    "log_norms",
    "track",
    "checkpoint",
    "eval",
    "model.remat",
    "model.unroll_layers",
    "model.attention",
    # Of the fingerprint, which older runs lack: how pictures are cropped for scoring.
    "vision.crop_corner",
    "vision.resize_to",
)
