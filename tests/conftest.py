"""Every test sees eight virtual CPU devices, so that sharding is always exercised."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Many tests and the commands that they run compile the same programs: each is compiled once.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPOSITORY / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import jax  # noqa: E402  (the device count is read when jax is imported)
import pytest  # noqa: E402


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photographs and annotation files, from TUTELAGE_SHARED or ../shared.

    Skips where there is none, or fails if TUTELAGE_REQUIRE_SHARED is set (as .ci/run does).
    """
    folder = Path(os.environ.get("TUTELAGE_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        missing = pytest.fail if os.environ.get("TUTELAGE_REQUIRE_SHARED") else pytest.skip
        missing(f"no test data at {folder}: set TUTELAGE_SHARED")
    return folder


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Drops compiled programs after each module.

    Each holds memory maps, of which Linux gives a process 65,530: beyond them XLA crashes.
    """
    yield
    jax.clear_caches()


def pytest_terminal_summary(terminalreporter):
    """Tells what tests measured and did not judge (record_property), also from other processes."""
    for report in terminalreporter.stats.get("passed", ()):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{report.nodeid}: {name}: {value}")


@pytest.fixture
def strict_ranks():
    """Makes implicit rank promotion an error: in a loss it hides a missing axis."""
    with jax.numpy_rank_promotion("raise"):
        yield
