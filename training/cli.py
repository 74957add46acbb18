"""How a command starts and fails: quiet libraries, and one line for what the user can mend."""

import contextlib
import dataclasses
import difflib
import re
import sys
import traceback
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from keyword import iskeyword
from pathlib import Path
from types import MappingProxyType
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from errors import FileError, UserError, one_line_errors
from options import Options
from training import processes
from training.lock import warn_of_processes_apart

OptionsAt = Callable[[ConfigDict, Sequence[str]], tuple[int, Options] | None]
_HINT = " (--verbosity=1 shows the traceback)"


def run(
    main: Callable[[], None],
    define_flags: Callable[[], None],
    *,
    optional: Container[str] = (),
    options_at: Mapping[str, OptionsAt] = MappingProxyType({}),
    **defaults: Mapping,
) -> None:
    """Runs a command: defines its flags, parses them, and calls its main function.

    Args:
      main: reads flags.FLAGS itself.
      define_flags: called here, so that train.py and eval.py may have flags of the same names
        when one imports the other.
      optional: flags of defaults that need not be given.
      options_at: for a flag by name, (config, keys) -> how many of the keys lead to a section
        that takes the arguments of a function, and which; None for any other keys.
      defaults: a config for each ml_collections flag by name; a flag that is defined without a
        default must be given. A key that is not in it is an option, or an error.
    """
    options = []

    def quiet_main(_):
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax narrates everything it does
        with processes.together(), one_line_errors(_HINT):
            _initialize_distributed()
            main()

    def parse(argv):
        with one_line_errors(_HINT), _errors_of_files():
            arguments = app.parse_flags_with_usage(argv)
            for flag in defaults:  # a file that is not there is told only to who uses it
                getattr(flags.FLAGS[flag].value, "keys", None)
            for option in options:
                option.set(options_at.get(option.flag))
            return arguments

    sys.argv[:], options[:] = take_options(map(_in_its_folder, sys.argv), defaults)
    sys.argv[:] = map(_quote_keywords, sys.argv)
    define_flags()
    needed = (flag for flag in defaults if flag not in optional)
    flags.mark_flags_as_required(f for f in needed if flags.FLAGS[f].default is None)
    _define_distributed_flags()
    app.run(quiet_main, flags_parser=parse)


@dataclasses.dataclass(frozen=True)
class Option:
    """An argument --flag.key.key=text whose keys are not in the flag's defaults."""

    flag: str
    keys: tuple[str, ...]
    text: str

    def set(self, options_at: OptionsAt | None) -> None:
        """Sets it in the flag's config, as the function takes it that it goes to.

        Raises:
          UserError: no such key, and the nearest; or a value that the function does not take.
        """
        config = flags.FLAGS[self.flag].value
        if config is None:
            raise UserError(f"--{self.flag}.{'.'.join(self.keys)} needs --{self.flag}=FILE")
        section = options_at(config, self.keys) if options_at else None
        if section is None:
            raise UserError(_unknown_key(self.flag, config, self.keys))
        depth, takes = section
        value = takes.read(self.keys[depth:], self.text)
        put(config, self.keys, value)
        overrides = config_flags.get_override_values(flags.FLAGS[self.flag])
        overrides[".".join(self.keys)] = value


def put(config: ConfigDict, keys: Sequence[str], value: Any) -> None:
    """Sets a value in a config by its keys, which need not be there, whatever was there before."""
    with config.unlocked():
        for key in keys[:-1]:
            if key not in config:
                config[key] = ConfigDict()
            config = config[key]
        with config.unlocked():
            if keys[-1] in config:
                del config[keys[-1]]  # a reference would take the other end along
            config[keys[-1]] = value


def take_options(
    arguments: Iterable[str], defaults: Mapping[str, Mapping]
) -> tuple[list[str], list[Option]]:
    """Splits the options from the other arguments, which ml_collections can parse."""
    others, options, arguments = [], [], list(arguments)
    while arguments:
        argument = arguments.pop(0)
        match = re.fullmatch(r"--?(\w+)\.([\w.]+)(?:=(.*))?", argument, re.DOTALL)
        flag, keys, text = match.groups() if match else ("", "", None)
        negated = flag.startswith("no") and flag not in defaults
        flag = flag.removeprefix("no") if negated else flag
        keys = tuple(keys.split("."))
        if flag not in defaults or _has(defaults[flag], keys):
            others.append(argument)
            continue
        if text is None:  # --flag.key=text is written --flag.key text, too, and --[no]flag.key
            is_switch = negated or not arguments or re.match(r"--?[A-Za-z]", arguments[0])
            text = str(not negated) if is_switch else arguments.pop(0)
        options.append(Option(flag, keys, text))
    return others, options


def _has(config, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(config, ConfigDict) or key not in config:
            return False
        config = config[key]
    return True


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
    if args.coordinator is None:
        warn_of_processes_apart()


@contextlib.contextmanager
def _errors_of_files() -> Iterator[None]:
    """What ml_collections says of an experiment's file, as one line."""
    try:
        yield
    except (AttributeError, KeyError) as error:
        problem = _unknown_key_in_file(error)
        if problem is None:
            raise
        raise UserError(problem) from error
    except OSError as error:
        if isinstance(error, UserError):
            raise
        reason = str(error).strip().splitlines()[-1]
        raise FileError(f"cannot load the experiment: {reason.strip()}") from None


def _unknown_key_in_file(error: Exception) -> str | None:
    """What is wrong with the experiment's file, if it uses a key that is not there."""
    frames = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    inside = [isinstance(config, ConfigDict) for config in frames]
    key = re.search(r'Key "(\w+)', str(error)) or re.search(r"(\w+)", str(error))
    if not any(inside) or key is None:
        return None
    caller = traceback.extract_tb(error.__traceback__)[inside.index(True) - 1]
    config = frames[len(frames) - 1 - inside[::-1].index(True)]
    return f"{caller.filename}, line {caller.lineno}: {caller.line}: {_no_key(key[1], config)}"


def _unknown_key(flag: str, config: Mapping, keys: Sequence[str]) -> str:
    """What is wrong with the argument --flag.keys, of which one is not there."""
    where = f"--{flag}"
    for key in keys:
        if not hasattr(config, "keys"):
            return f"{where} is a value: it has no key '{key}'"
        if key not in config:
            return f"{where}: {_no_key(key, config)}"
        where, config = f"{where}.{key}", config[key]
    return f"{where} is a section: give one of its keys, {', '.join(config)}"


def _no_key(key: str, config: Mapping) -> str:
    keys = sorted(config.keys())
    nearest = difflib.get_close_matches(key, keys, n=1, cutoff=0)
    hint = f"did you mean '{nearest[0]}'? It has: {', '.join(keys)}" if nearest else "it is empty"
    return f"there is no key '{key}': {hint}"
