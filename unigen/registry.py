"""The closed table of classes that a checkpoint may name, and how a spec becomes an object.

A spec is plain JSON: `{"class": "Image", "size": 64}`. Arguments may hold further specs, in
dicts and lists too. No path of a spec reaches an import: a name is looked up in `CLASSES`, or it
is `module:Class` with the module listed in `plugins` by the person at the keyboard.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from unigen.errors import CheckpointError, ResourceError, UnigenError, UsageError

CLASSES = {
    "Image": "unigen.modalities.image",
    "Text": "unigen.modalities.text",
    "Video": "unigen.modalities.video",
    "Audio": "unigen.modalities.audio",
    "UViT": "unigen.uvit",
    "RectifiedFlow": "unigen.flow",
    "VP": "unigen.flow",
    "UniGen": "unigen.model",
    "Network": "unigen.interop.codecs.network",
    "Vocabulary": "unigen.interop.codecs.vocabulary",
    "CaptionDecoder": "unigen.interop.codecs.captions",
    "CodecImage": "unigen.interop.codecs.image",
    "CodecFrames": "unigen.interop.codecs.video",
    "CodecVideo": "unigen.interop.codecs.video",
    "MelAudio": "unigen.interop.codecs.audio",
    "CodecAudio": "unigen.interop.codecs.audio",
    "ClipText": "unigen.interop.codecs.text",
    "T5Text": "unigen.interop.codecs.text",
}

MAX_DEPTH = 16  # nested dicts and lists
MAX_NODES = 20_000  # values in all
MAX_INTEGER = 2**63

# What a constructor can raise when a foreign value does not fit it.
MISFIT = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)


def build(spec: Any, plugins: Sequence[str] = ()) -> Any:
    """Build the object that a spec describes, nested specs first, and set its `.spec`.

    `plugins` are modules whose classes (`module:Class`, submodules included) may be named too.
    Raises `CheckpointError` for anything but a plain spec of known classes and arguments.
    """
    check_plugins(plugins)
    spec = plain(spec, CheckpointError)
    if not isinstance(spec, dict) or "class" not in spec:
        raise CheckpointError(
            f'A spec is {shown(spec)}, but a dict with a "class" was wanted, such as '
            '{"class": "Image", "size": 64}.'
        )
    return _build(spec, tuple(plugins))


def _build(node: Any, plugins: tuple[str, ...]) -> Any:
    """Turn every spec inside a plain value into its object, inner ones first."""
    if isinstance(node, list):
        return [_build(item, plugins) for item in node]
    if not isinstance(node, dict):
        return node
    arguments = {key: _build(value, plugins) for key, value in node.items() if key != "class"}
    if "class" not in node:
        return arguments
    name, cls = node["class"], resolve(node["class"], plugins)
    check_arguments(cls, arguments, shown(name), CheckpointError)
    try:
        made = cls(**arguments)
    except (CheckpointError, ResourceError):
        raise
    except MemoryError as error:
        raise ResourceError(f"Out of memory while building {shown(name)}.") from error
    except (*MISFIT, RuntimeError, UnigenError) as error:
        raise CheckpointError(
            f"{shown(name)} cannot be built from its spec: {brief(error)}."
        ) from error
    return stamp(made, node)


def resolve(name: Any, plugins: Sequence[str] = ()) -> type:
    """Find the class of a spec: a name of the table, or `module:Class` of a plugin."""
    if not isinstance(name, str):
        raise CheckpointError(f'"class" is {shown(name)}, but a name such as "Image" was wanted.')
    if name in CLASSES:
        return getattr(import_module(CLASSES[name]), name)
    module, colon, attribute = name.partition(":")
    if not colon:
        raise CheckpointError(f"Class {shown(name)} is not known{nearest(name, CLASSES)}.")
    if not is_path(f"{module}.{attribute}") or "." in attribute or not within(module, plugins):
        raise CheckpointError(
            f"Class {shown(name)} is not of this package; if module "
            f"{shown(module)} is your own, name it in plugins=[...]."
        )
    cls = getattr(load_module(module, plugins, CheckpointError), attribute, None)
    if not isinstance(cls, type) or not within(cls.__module__, plugins):
        raise CheckpointError(
            f"{shown(name)} is not a class defined in {shown(module)}; name one that is."
        )
    return cls


def spec_of(thing: Any) -> dict:
    """Return a copy of the spec an object was built from; `UsageError` where it has none."""
    spec = getattr(thing, "spec", None)
    if not isinstance(spec, dict):
        raise UsageError(
            f"This {type(thing).__name__} has no spec, so it cannot be saved; build it with "
            "unigen.registry.build or from a configuration."
        )
    return plain(spec, UsageError)


def name_of(cls: type, plugins: Sequence[str] = ()) -> str | None:
    """Return the name under which a spec may name this class, or None where there is none."""
    if CLASSES.get(cls.__name__) == cls.__module__:
        return cls.__name__
    is_plugin = within(cls.__module__, plugins) and "." not in cls.__qualname__
    return f"{cls.__module__}:{cls.__name__}" if is_plugin else None


def stamp(made: Any, spec: dict) -> Any:
    """Set `made.spec` to a plain copy of `spec`; a class with a `spec` property keeps its own."""
    if not isinstance(getattr(type(made), "spec", None), property):
        object.__setattr__(made, "spec", plain(spec, CheckpointError))  # frozen dataclasses too
    return made


def plain(
    value: Any,
    error: type[UnigenError],
    what: str = "The spec",
    keys: Iterable[str] = (),
    depth: int = MAX_DEPTH,
) -> Any:
    """Return a deep copy of a JSON value, or raise `error` for what JSON cannot hold.

    No key may begin with `_` unless listed in `keys`; depth, number of values and integers are
    bounded, so aliases, cycles and bombs end here.
    """
    allowed, seen = frozenset(keys), 0

    def copy(node: Any, level: int) -> Any:
        nonlocal seen
        seen += 1
        if level > depth or seen > MAX_NODES:
            raise error(
                f"{what} nests deeper than {depth} levels or holds more than {MAX_NODES} values; "
                "make it smaller."
            )
        if type(node) is dict:
            for key in node:
                if type(key) is not str:
                    raise error(f"{what} has a key {shown(key)}; every key must be a string.")
                if key.startswith("_") and key not in allowed:
                    raise error(
                        f"{what} has a key {shown(key)}, and none may begin with an underscore"
                        f"{' but ' + ', '.join(sorted(allowed)) if allowed else ''}; remove it."
                    )
            return {key: copy(item, level + 1) for key, item in node.items()}
        if type(node) is list:
            return [copy(item, level + 1) for item in node]
        if node is None or type(node) in (bool, str):
            return node
        if type(node) is int and abs(node) < MAX_INTEGER:
            return node
        if type(node) is float and math.isfinite(node):
            return node
        raise error(
            f"{what} holds {shown(node)} of type {type(node).__name__}, but only finite plain JSON "
            "values were wanted (lists, not tuples)."
        )

    return copy(value, 0)


def check_arguments(
    target: Callable, arguments: dict, what: str, error: type[UnigenError], partial: bool = False
) -> None:
    """Raise `error`, naming the argument, where `target(**arguments)` would not bind."""
    try:
        signature = inspect.signature(target)
    except ValueError as reason:
        raise error(f"{what} cannot be built from arguments by name.") from reason
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    if inspect.Parameter.VAR_KEYWORD not in kinds.values():
        for name in arguments:
            if name not in kinds:
                raise error(f"{what} takes no argument {shown(name)}{nearest(name, kinds)}.")
    try:
        (signature.bind_partial if partial else signature.bind)(**arguments)
    except TypeError as reason:
        raise error(f"{what} cannot be built: {brief(reason)}.") from reason


def check_plugins(plugins: Sequence[str]) -> None:
    """Refuse anything but a list of importable module paths."""
    if isinstance(plugins, str) or not all(isinstance(p, str) and is_path(p) for p in plugins):
        raise UsageError(
            f"plugins is {shown(plugins)}, but a list of modules was wanted: plugins=[my_module]."
        )


def within(module: Any, allowed: Iterable[str]) -> bool:
    """Tell whether a module path is one of `allowed` or a submodule of one."""
    return isinstance(module, str) and any(
        module == root or module.startswith(f"{root}.") for root in allowed
    )


def is_path(path: str) -> bool:
    """Tell whether a dotted path has only plain names: ASCII, none beginning with `_`."""
    return all(
        part.isidentifier() and part.isascii() and not part.startswith("_")
        for part in path.split(".")
    )


def load_module(module: str, plugins: Sequence[str], error: type[UnigenError]) -> Any:
    """Import an allowed module; a missing plugin is a `UsageError`, a missing part `error`."""
    try:
        return import_module(module)
    except ModuleNotFoundError as reason:
        if reason.name in plugins:
            raise UsageError(
                f"Plugin {shown(reason.name)} was not found; install it, or run from its folder."
            ) from reason
        if reason.name is not None and within(module, [reason.name]):
            raise error(f"There is no module {shown(module)}.") from reason
        raise


def nearest(name: str, known: Iterable[str], most: int = 12) -> str:
    """Return words that name the nearest known name, else at most `most` of them, else nothing."""
    known = [item for item in known if item != "self"]
    close = get_close_matches(str(name)[:100], known, n=1, cutoff=0.5)
    if close:
        return f"; the nearest is {shown(close[0])}"
    return f"; there is {', '.join(known[:most])}" if known and most else ""


def shown(value: Any) -> str:
    """Return a short ASCII form of any value that is safe to print and cheap to make."""
    if isinstance(value, str):
        return f"{value!a}" if len(value) <= 80 else f"{value[:77]!a}..."
    if value is None or isinstance(value, bool | float):
        return str(value)
    if isinstance(value, int) and abs(value) < MAX_INTEGER:
        return str(value)
    return f"a {type(value).__name__}"


def brief(error: Exception) -> str:
    """Return the words of an error in one line, without a final stop."""
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
