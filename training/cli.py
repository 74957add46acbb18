"""How a command starts and fails: quiet libraries, and one line for what the user can mend."""

import contextlib
import difflib
import re
import runpy
import sys
from collections.abc import Callable, Container, Iterator, Mapping
from keyword import iskeyword
from pathlib import Path

from absl import app, flags, logging

from errors import FileError, one_line_errors
from training import processes

_HINT = " (--verbosity=1 shows the traceback)"


def run(
    main: Callable[[], None],
    define_flags: Callable[[], None],
    *,
    optional: Container[str] = (),
    **defaults: Mapping,
) -> None:
    """Runs a command: defines its flags, parses them, and calls its main function.

    Args:
      main: reads flags.FLAGS itself.
      define_flags: called here, so that train.py and eval.py may have flags of the same names
        when one imports the other.
      optional: flags of defaults that need not be given.
      defaults: a config for each ml_collections flag by name, whose keys an error can list; a
        flag that is defined without a default must be given.
    """

    def quiet_main(_):
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax narrates everything it does
        with processes.together(), one_line_errors(_HINT):
            _initialize_distributed()
            main()

    def parse(argv):
        with one_line_errors(_HINT), _unknown_keys_named(defaults):
            return app.parse_flags_with_usage(argv)

    sys.argv[:] = map(_quote_keywords, map(_in_its_folder, sys.argv))
    with _unknown_keys_named(defaults):
        define_flags()
        needed = (flag for flag in defaults if flag not in optional)
        flags.mark_flags_as_required(f for f in needed if flags.FLAGS[f].default is None)
        _define_distributed_flags()
    app.run(quiet_main, flags_parser=parse)


def experiment_name(path: str | Path) -> str:
    """The experiment's name: world_degla of tpu_configs/world/degla.py, and x of any other x.py."""
    parts = Path(path).with_suffix("").parts
    start = len(parts) - parts[::-1].index("tpu_configs") if "tpu_configs" in parts else -1
    return "_".join(parts[start:])


def _in_its_folder(argument: str) -> str:
    """--config=x/world_degla.py as --config=x/world/degla.py, where only that file is there."""
    flag, equals, value = argument.rpartition("=")
    path = Path(value)
    family, _, name = path.name.partition("_")
    inside = path.parent / family / name
    is_old = path.suffix == ".py" and name and not path.exists() and inside.is_file()
    return flag + equals + str(inside if is_old else value)


def _quote_keywords(argument: str) -> str:
    """--config.init.from=X as --config.init["from"]=X: ml_collections parses keys as Python."""
    flag, equals, value = argument.partition("=")
    if flag.startswith("--"):
        words = (f'["{word}"]' if iskeyword(word) else f".{word}" for word in flag.split("."))
        flag = "".join(words).removeprefix(".")
    return flag + equals + value


def _define_distributed_flags() -> None:
    flags.DEFINE_string(
        "coordinator", None, "Several processes: host:port of the first, or auto (Slurm, TPU, ...)."
    )
    flags.DEFINE_integer("num_processes", None, "With --coordinator=host:port.")
    flags.DEFINE_integer("process_id", None, "With --coordinator=host:port.")


def _initialize_distributed() -> None:
    args = flags.FLAGS
    limits = args.config.distributed if "config" in args and args.config else {}
    processes.initialize(args.coordinator, args.num_processes, args.process_id, **limits)


@contextlib.contextmanager
def _unknown_keys_named(defaults: Mapping) -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        # ml_collections raises these for a key that the config does not have.
        problem = _unknown_key_in_file(error) or next(
            filter(None, (_unknown_key(defaults, argument) for argument in sys.argv)), None
        )
        if problem is None:
            raise
        raise SystemExit(f"error: {problem}") from error
    except OSError as error:  # its own, of the experiment's file
        raise FileError(str(error)) from None


def _unknown_key_in_file(error: Exception) -> str | None:
    """What is wrong with the experiment's file, if it sets a key that is not there."""
    match = re.search(r'cannot be added.*Did you mean "(\w+)" instead of "(\w+)"', str(error))
    return match and f"the experiment's file sets '{match[2]}': did you mean '{match[1]}'?"


def _unknown_key(defaults: Mapping, argument: str) -> str | None:
    """What is wrong with the argument --flag.section.key=value, if the key is not there."""
    match = re.match(r"--(\w+)\.([\w.]+)", argument)
    if not match or match[1] not in defaults:
        return None
    where, section = match[1], _experiment(match[1]) or defaults[match[1]]
    for key in match[2].split("."):
        if not hasattr(section, "keys"):
            return f"--{where} is a value: it has no key '{key}'"
        keys = list(section.keys())
        if key not in keys:
            nearest = difflib.get_close_matches(key, keys, n=1, cutoff=0)
            hint = "it is empty, and the experiment's file is where it gets keys"
            if nearest:
                hint = f"did you mean '{nearest[0]}'? It has: {', '.join(keys)}"
            return f"--{where} has no key '{key}': {hint}"
        where, section = f"{where}.{key}", section[key]
    return None


def _experiment(flag: str) -> Mapping | None:
    """The config in the file that the command line gives for a flag, if it gives one."""
    given = (argument.partition("=") for argument in sys.argv)
    files = [value for name, _, value in given if name == f"--{flag}" and value]
    return runpy.run_path(files[-1])["get_config"]() if files else None
