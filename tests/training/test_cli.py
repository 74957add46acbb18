"""How commands name experiments."""

import pytest

from training import cli


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("tpu_configs/world/degla.py", "world_degla"),
        ("/a/tpu_configs/b/tpu_configs/quickstart.py", "quickstart"),
        ("mine/degla.py", "degla"),
    ],
)
def test_an_experiments_name_has_its_family_in_front(path, name):
    assert cli.experiment_name(path) == name


def test_an_experiment_is_still_found_by_its_name_before_its_family_had_a_folder(tmp_path):
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "degla_frozen.py").touch()
    old = tmp_path / "world_degla_frozen.py"
    assert cli._in_its_folder(f"--config={old}") == f"--config={tmp_path}/world/degla_frozen.py"
    assert cli._in_its_folder(str(old)) == f"{tmp_path}/world/degla_frozen.py"
    old.touch()
    for argument in (f"--config={old}", f"--config={tmp_path}/world_x.py", "--workdir=a_b", "x"):
        assert cli._in_its_folder(argument) == argument
