"""The command `unigen VERB ...`: sort the arguments, compose the configuration, call one task.

Results go to standard output, one a line; everything else goes to standard error. The exit codes
are those of `unigen.errors`, 130 for an interrupt and 143 for a termination. Nothing heavy is
imported before the configuration is known to be good.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from unigen.arguments import (
    VERBS,
    Command,
    conf_dir,
    nearest,
    sort_arguments,
    spoken,
    take_verb,
)
from unigen.errors import UnigenError, UsageError
from unigen.exits import report, termination
from unigen.explain import explain
from unigen.owner import refuse_clock, refuse_owned
from unigen.usage import overview, usage


class _Stop(BaseException):
    """Carries an error of a task through Hydra, which would print it in its own way."""

    def __init__(self, error: Exception):
        self.error = error


def main(argv: list[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a path may hold bytes that are no text
            reconfigure(errors="surrogateescape")
    try:
        with termination():
            return dispatch(argv)
    except (Exception, KeyboardInterrupt) as error:
        return report(error)


def dispatch(argv: list[str]) -> int:
    """Run one command line; errors are raised, not reported."""
    if argv[:1] == ["-sc"] or argv[:1] == ["--shell-completion"]:
        return _complete(argv)
    if not argv or argv[0] in {"-h", "--help"}:
        sys.stdout.write(overview())
        return 0
    if argv[0] == "--version":
        from unigen import __version__

        sys.stdout.write(f"unigen {__version__}\n")
        return 0
    verb, rest = take_verb(argv)
    if verb not in VERBS:
        known = [spoken(each) for each in VERBS]
        raise UsageError(f"unknown verb {spoken(verb)!r}; {nearest(spoken(verb), known)}")
    if {"-h", "--help"} & set(rest[: rest.index("--") if "--" in rest else None]):
        sys.stdout.write(usage(verb))
        return 0
    _run(sort_arguments(verb, rest))
    return 0


def _run(command: Command) -> None:
    """Compose the configuration of `command` with Hydra and call its task, once or as a sweep."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads yield, after a short
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # wait; read when torch loads
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # no remarks of torch's engines
    import hydra
    from hydra.errors import HydraException

    overrides = [*command.overrides, *_store(command), *_unrecorded()]
    decorate = hydra.main(str(conf_dir()), command.verb, version_base="1.3")
    try:
        with _process(["unigen", *command.flags, *overrides]):
            decorate(_task(command))()
    except _Stop as stop:
        failed = stop.error
    except (MemoryError, UnigenError):
        raise
    except Exception as error:  # the task is out of it: Hydra refused the configuration
        if isinstance(error, FileNotFoundError) and error.filename:  # no folder there, as in /proc
            raise UsageError(f"{error.filename} cannot be made; choose another folder.") from error
        if isinstance(error, OSError) and not isinstance(error, HydraException):
            raise
        raise UsageError(explain(error, command)) from error
    else:
        return
    raise failed


def _task(command: Command) -> Callable:
    """The function Hydra calls with each composed configuration."""

    from omegaconf import OmegaConf

    def call(cfg) -> None:
        try:
            plain = _plain(cfg, command)
            if plain.get("plugins") and str(Path.cwd()) not in sys.path:
                sys.path.append(str(Path.cwd()))  # a script does not look into where it is run
            verb = VERBS[command.verb]
            if verb.owns and not plain.get("plan"):
                refuse_clock(str(cast(dict, OmegaConf.to_container(cfg))["out"]))
                refuse_owned(plain["out"])
            module, function = verb.task.split(":")
            lines = getattr(import_module(module), function)(plain)
            for line in [lines] if isinstance(lines, str | Path) else lines or ():
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
        except Exception as error:
            raise _Stop(error) from error

    return call


def _plain(cfg, command: Command) -> dict[str, Any]:
    """The resolved configuration as plain dicts and lists, the user's data in it byte for byte."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    except OmegaConfBaseException as error:
        raise UsageError(explain(error, command)) from error
    for key in sorted(OmegaConf.missing_keys(cfg) - {".".join(path) for path in command.data}):
        raise UsageError(f"{key} is not set; type {key}=...")
    for path, value in command.data.items():
        node = plain
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
    record = HydraConfig.get()
    if record.mode == RunMode.MULTIRUN and plain.get("out") is not None:
        plain["out"] = str(Path(plain["out"]) / str(record.job.num))  # a folder for each job
    if plain.get("files") == []:
        raise UsageError(f"{command.verb} wants a file: unigen {command.verb} FILE ...")
    return plain


def _store(command: Command) -> list[str]:
    """Hand the user's data to Hydra as a config of its own, so that no grammar reads it."""
    if not command.data:
        return []
    from hydra.core.config_store import ConfigStore

    node: dict = {}
    for (*outer, last), value in command.data.items():
        inner = node
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = [_literal(v) for v in value] if isinstance(value, list) else _literal(value)
    ConfigStore.instance().store("here", node, group="typed", package="_global_")
    return ["+typed=here"]


def _unrecorded() -> list[str]:
    """Overrides for the processes of torchrun beside the first, which alone keeps the record."""
    if os.environ.get("RANK", "0") == "0":
        return []
    quiet = ("hydra/job_logging=none", "hydra/hydra_logging=none")
    return [*quiet, "hydra.run.dir=.", "hydra.output_subdir=null"]


def _literal(value: str | None) -> str | None:
    """`value` with each `${` escaped: OmegaConf must not look anything up in it."""
    return value and re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value)


def _complete(argv: list[str]) -> int:
    """Shell completion: a verb first, then what Hydra knows of that verb."""
    words = os.environ.get("COMP_LINE", "").split()
    if not any("query=" in arg for arg in argv) or (len(words) > 1 and words[1] in VERBS):
        verb = words[1] if len(words) > 1 else "train"
        line = os.environ.get("COMP_LINE", "").replace(f" {verb}", "", 1)
        os.environ["COMP_LINE"] = line if line.count(" ") else f"{line} "
        _run(Command(verb, flags=argv))
    else:
        start = words[1] if len(words) > 1 else ""
        sys.stdout.write(" ".join(verb for verb in VERBS if verb.startswith(start)) + "\n")
    return 0


@contextmanager
def _process(argv: list[str]) -> Iterator[None]:
    """Lend Hydra this process: its arguments, and its errors raised to us instead of printed."""
    before, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = argv, "1"
    try:
        yield
    finally:
        sys.argv = before
        os.environ.pop("HYDRA_FULL_ERROR")
        if full is not None:
            os.environ["HYDRA_FULL_ERROR"] = full
