"""Configuration becomes objects: `_target_` in YAML that the user's command chose.

A target resolves only inside `unigen.` or a module named in `plugins=[...]`, and only to a class
or a function defined there. Modules that read, write or run things are closed to it.
"""

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unigen.errors import UsageError
from unigen.plugins import import_plugins
from unigen.registry import (
    CLASSES,
    MISFIT,
    brief,
    check_arguments,
    is_path,
    load_module,
    name_of,
    nearest,
    plain,
    shown,
    stamp,
    within,
)

_CLOSED = tuple(
    f"unigen.{name}"
    for name in (
        *(
            "arguments",
            "cli",
            "configure",
            "evaluate",
            "exits",
            "explain",
            "gates",
            "generate",
            "replay",
            "usage",
            "web",
        ),
        *("checkpoint", "disk", "media", "owner", "registry", "runs", "state", "tensorfile"),
    )
)  # doors, not parts
_TASK = {"cfg", "plugins"}  # whoever takes these would choose targets of its own
_TARGET, _PARTIAL = "_target_", "_partial_"
_DEPTH = 32


def build(node: Any, plugins: Sequence[str] = ()) -> Any:
    """Build what a configuration describes: dicts with `_target_` become objects, inner first.

    The other keys are constructor arguments; `_partial_: true` gives a `functools.partial`. An
    object whose class a checkpoint may name gets its `.spec`. Raises `UsageError` for any target,
    key or argument that is not allowed, naming it.
    """
    import_plugins(plugins)
    if OmegaConf.is_config(node):
        try:
            node = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise UsageError(f"The configuration is incomplete: {brief(error)}.") from error
    node = plain(node, UsageError, "The configuration", keys=(_TARGET, _PARTIAL), depth=_DEPTH)
    return _build(node, tuple(plugins))


def find(target: Any, plugins: Sequence[str] = ()) -> Callable:
    """Return the class or function that a target names, or raise `UsageError`."""
    if not isinstance(target, str):
        raise UsageError(f"{_TARGET} is {shown(target)}; wanted a path such as {_known()[0]}.")
    module, _, name = target.rpartition(".")
    allowed = ("unigen", *plugins)
    if not is_path(target) or not within(module, allowed) or within(module, _CLOSED):
        raise UsageError(
            f"{_TARGET} {shown(target)} is refused: a target lies inside unigen or a module named "
            f"in plugins=[...]{nearest(target, _known(), most=0)}."
        )
    place = load_module(module, plugins, UsageError)
    found = getattr(place, name, None)
    home = getattr(found, "__module__", None)
    if found is None:
        names = [key for key, value in vars(place).items() if isinstance(value, type)]
        raise UsageError(f"{_TARGET} {shown(target)} does not exist{nearest(name, names, most=0)}.")
    if not isinstance(found, type) and not inspect.isfunction(found):
        raise UsageError(f"{_TARGET} {shown(target)} is no class and no function; name one.")
    if not within(home, allowed) or within(home, _CLOSED):
        raise UsageError(f"{_TARGET} {shown(target)} is refused: it is defined in {shown(home)}.")
    if within(home, ["unigen"]) and _TASK & _parameters(found):
        raise UsageError(f"{_TARGET} {shown(target)} is refused: it is a task, not a part.")
    return found


def _build(node: Any, plugins: tuple[str, ...]) -> Any:
    """Build a plain value, inner parts first."""
    if isinstance(node, list):
        return [_build(item, plugins) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _build(value, plugins) for key, value in node.items()}
    if _TARGET not in node:
        if _PARTIAL in node:
            raise UsageError(f"{_PARTIAL} stands without {_TARGET}; add one or remove it.")
        return made
    target, later = made.pop(_TARGET), made.pop(_PARTIAL, False)
    if not isinstance(later, bool):
        raise UsageError(
            f"{_PARTIAL} of {shown(target)} is {shown(later)}; true or false was wanted."
        )
    found = find(target, plugins)
    check_arguments(found, made, target, UsageError, partial=later)
    if later:
        return partial(found, **made)
    try:
        result = found(**made)
    except MISFIT as error:
        raise UsageError(f"{target} cannot be built: {brief(error)}.") from error
    name = name_of(found, plugins) if isinstance(found, type) else None
    if name is not None:
        with suppress(_NoSpec):  # it works, but cannot be saved, and spec_of says so
            stamp(result, {"class": name, **{key: _plain(value) for key, value in made.items()}})
    return result


class _NoSpec(Exception):
    """An argument has no plain form."""


def _plain(value: Any) -> Any:
    """Turn a built argument back into the plain form that a spec holds."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if value is None or type(value) in (bool, int, float, str):
        return value
    spec = getattr(value, "spec", None)
    if not isinstance(spec, dict):
        raise _NoSpec
    return spec


def _parameters(found: Callable) -> set[str]:
    """Return the names of a callable's parameters, none where Python cannot tell."""
    with suppress(ValueError):
        return set(inspect.signature(found).parameters)
    return set()


def _known() -> list[str]:
    """Return the full paths of the classes that a checkpoint may name."""
    return [f"{module}.{name}" for name, module in CLASSES.items()]
