"""The small language model that the tests of language/ share."""

from tests.language.conftest import local_smollm2, smollm2  # noqa: F401
