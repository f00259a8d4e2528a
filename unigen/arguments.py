"""The command line, sorted: flags and overrides for Hydra, and the user's own data, untouched.

A prompt or a path is data. It never meets Hydra's grammar, so commas, quotes, brackets, `=`, `$`,
newlines and any script arrive as they were typed. What is an override, and what is data:

* `key=value` is an override where `key` is one the verb knows, or starts with `hydra`, `+` or `~`;
  `guidance.PART=` adds the weight of a given part;
* `given.PART=`, `negative.PART=`, `keep.PART=`, `out=`, `model=` and the paths of a source
  (`data.root=`, `data.index=`, `data.manifest=`, or `validation.root=` and so on), where the verb
  has them, take the rest as data;
* `word=value` with an unknown word and no space is a misspelt key, and is refused;
* everything else is the prompt of `generate`, or a file of `caption`, `embed` and `replay`.
"""

import os
import re
import sys
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from unigen.errors import MediaError, UsageError

WEIGHT = "guidance."  # before the part that a weight of guidance is for
PROMPT = "given.text"  # where a bare argument of `generate` goes
MAX_PROMPT = 4096  # characters

SWITCHES = {"--resolve", "--run", "-r", "--multirun", "-m", "--hydra-help"}
SHOWS = {"--cfg": "job", "-c": "job", "--info": "all", "-i": "all"}  # flag: value when left out
SHOWN = {"job", "hydra", "all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}
VALUED = {"--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"}
VALUED |= {"--shell-completion", "-sc"}  # Hydra reads the word after it as an override

OVERRIDE = re.compile(r"[+~]{0,2}(?P<key>[A-Za-z_][\w./@-]*)=")
_DATA = (
    r"(?:given|negative|keep)\.[^=\s]+|out|model|components"
    r"|(?:data|validation)\.(?:root|index|manifest)"
)
RAW = re.compile(rf"\+{{0,2}}(?P<key>{_DATA})=(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True)
class Verb:
    """One verb: the task it calls, what its bare arguments are, and its keys that hold data."""

    task: str  # module:function
    bare: str | None = None  # "prompt", "files" or none
    raw: tuple[str, ...] = ("out", "model")
    owns: bool = False  # the folder `out` while it runs


VERBS = {
    "generate": Verb(
        "unigen.generate:run", "prompt", ("given", "negative", "keep", "out", "model")
    ),
    "caption": Verb("unigen.generate:caption", "files"),
    "embed": Verb("unigen.generate:embed", "files"),
    "train": Verb("unigen.train:run", None, ("out", "data", "validation"), owns=True),
    "data_check": Verb("unigen.data.doors:check", None, ("out", "data")),
    "data_shard": Verb("unigen.data.doors:shard", None, ("out", "data")),
    "data_encode": Verb("unigen.data.doors:encode", None, ("out", "data", "model")),
    "evaluate": Verb("unigen.evaluate:run"),
    "replay": Verb("unigen.replay:run", "files"),
    "convert": Verb("unigen.interop.convert:run", "files", ("out", "components")),
}


@dataclass
class Command:
    """A sorted command line: `flags` and `overrides` for Hydra, `data` by key path."""

    verb: str
    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    data: dict[tuple[str, ...], str | list[str] | None] = field(default_factory=dict)


def take_verb(argv: list[str]) -> tuple[str, list[str]]:
    """Return the verb, and the arguments after it: `data check` is the verb `data_check`."""
    verb, *rest = argv
    pair = f"{verb}_{rest[0]}" if rest else verb
    if verb not in VERBS and (pair in VERBS or any(v.startswith(f"{verb}_") for v in VERBS)):
        return pair, rest[1:]
    return verb, rest


def spoken(verb: str) -> str:
    """Return a verb as it is typed."""
    return verb.replace("_", " ")


def conf_dir() -> Path:
    """The folder of the YAML files: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    checkout = (package.parent / "pyproject.toml").is_file()
    return package.parent / "conf" if checkout else package / "conf"


def known_keys(verb: str) -> list[str]:
    """The top-level keys and the groups of `verb`, read from its YAML without Hydra.

    A group that is there once more is `group@key`, as Hydra wants it typed.
    """
    text = (conf_dir() / f"{verb}.yaml").read_text(encoding="utf-8")
    keys = re.findall(r"^(\w+):", text, re.MULTILINE)
    groups = re.findall(r"^  - (\w+(?:@\w+)?):", text, re.MULTILINE)
    return [key for key in dict.fromkeys([*keys, *groups]) if key != "defaults"]


def nearest(word: str, known: list[str]) -> str:
    """A closing half sentence: the known word nearest to `word`, or all that have no dot."""
    match = get_close_matches(word, known, 1, 0.5)
    words = ", ".join(each for each in known if "." not in each)
    return f"did you mean {match[0]!r}?" if match else f"known are: {words}"


def sort_arguments(verb: str, argv: list[str]) -> Command:
    """Sort the arguments after the verb. Raises `UsageError` for what is neither key nor data."""
    command, bare = Command(verb), []
    known = [*known_keys(verb), "hydra"]
    known += [key.partition("@")[2] for key in known if "@" in key]  # data@validation
    queue, literal = list(argv), False
    while queue:
        arg = queue.pop(0)
        raw = RAW.fullmatch(arg)
        if literal:
            bare.append(arg)
        elif arg == "--":
            literal = True
        elif arg.startswith("-") and arg != "-" and not re.search(r"\s", arg):
            command.flags += _flag(arg, queue)
        elif raw and raw["key"].split(".")[0] in VERBS[verb].raw:
            _take(command, raw["key"], raw["value"])
        elif _is_override(arg, known, command.flags):
            command.overrides.append(f"+{arg}" if arg.startswith(WEIGHT) else arg)
        elif VERBS[verb].bare == "files" and os.path.lexists(arg):
            bare.append(arg)
        elif (match := OVERRIDE.match(arg)) and not re.search(r"\s", arg):
            word = re.split(r"[./@]", match["key"])[0]
            raise UsageError(
                f"{spoken(verb)} has no key {word!r}; {nearest(word, known)}{_way_out(verb)}"
            )
        else:
            bare.append(arg)
    _place(command, bare, known)
    return command


def check_prompt(text: str) -> str:
    """Return `text` unharmed, or raise `UsageError`: NUL, a lone surrogate, or too long."""
    if len(text) > MAX_PROMPT:
        raise UsageError(
            f"the prompt has {len(text):,} characters, at most {MAX_PROMPT:,} are read; shorten it"
        )
    if "\0" in text:
        raise UsageError(f"the prompt has a NUL at character {text.index(chr(0))}; remove it")
    if lone := re.search("[\ud800-\udfff]", text):
        raise UsageError(
            f"the prompt is not Unicode text at character {lone.start()}; write it as UTF-8"
        )
    return text


def read_prompt(arg: str) -> str:
    """The prompt a bare argument means: itself, `@file`, `-` (standard input), `@@` for one `@`.

    The one newline that ends the last line of a file or of standard input is not part of it.
    """
    if arg.startswith("@@"):
        return arg[1:]
    if arg != "-" and (arg == "@" or not arg.startswith("@")):
        return arg
    limit = 4 * MAX_PROMPT + 2  # bytes: enough to see that a text is too long
    data = b""
    try:
        if arg == "-":
            data = sys.stdin.buffer.read(limit)
        else:
            with Path(arg[1:]).open("rb") as file:
                data = file.read(limit)
        text = data.decode("utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UsageError(f"there is no prompt file {arg[1:]!r}; type @@ for a literal @") from None
    except UnicodeDecodeError as error:
        if len(data) == limit and error.start >= limit - 3:
            raise UsageError(f"the prompt {arg} is longer than {MAX_PROMPT:,} characters") from None
        raise MediaError(f"the prompt {arg} is not UTF-8 text: byte {error.start}") from None
    return text.removesuffix("\n").removesuffix("\r")


def _flag(arg: str, queue: list[str]) -> list[str]:
    """The flag `arg` with its value, taken from `queue`. Raises `UsageError` if unknown."""
    name, _, value = arg.partition("=")
    if name in SWITCHES and not value:
        return [arg]
    if value and name in {*VALUED, *SHOWS}:
        return [name, value]
    if name in SHOWS:
        return [name, queue.pop(0) if queue and queue[0] in SHOWN else SHOWS[name]]
    if name in VALUED:
        if not queue:
            raise UsageError(f"{arg} wants a value after it")
        return [name, queue.pop(0)]
    flags = sorted({*SWITCHES, *SHOWS, *VALUED, "--help"})
    raise UsageError(
        f"unknown flag {arg!r}; {nearest(arg, flags)}; data that starts with - goes after --"
    )


def _is_override(arg: str, known: list[str], flags: list[str]) -> bool:
    """Whether `arg` is for Hydra: a known key, an added or a deleted one, or a foreign config's."""
    if arg.startswith("~") and arg[1:] in known:
        return True
    match = OVERRIDE.match(arg)
    if not match:
        return False
    foreign = any(flag in {"--config-name", "-cn"} for flag in flags)
    return foreign or arg[0] in "+~" or re.split(r"[./@]", match["key"])[0] in known


def _take(command: Command, key: str, value: str) -> None:
    """Put the data `value` at `key` of `command`; `out` and `model` may be null."""
    path = tuple(key.split(".", 1))
    if len(path) == 1 and value == "null":
        command.data[path] = None
        return
    if key.split(":")[0] in (PROMPT, "negative.text"):
        check_prompt(value)
    command.data[path] = value


def _place(command: Command, bare: list[str], known: list[str]) -> None:
    """Put the bare arguments where the verb wants them. Raises `UsageError` if they do not fit."""
    verb, kind = command.verb, VERBS[command.verb].bare
    if not bare:
        return
    if kind == "files":
        command.data["files",] = bare
    elif kind is None:
        word = re.split(r"[=./]", bare[0])[0]
        raise UsageError(
            f"{spoken(verb)} takes key=value only, not {bare[0]!r}; {nearest(word, known)}"
        )
    elif len(bare) > 1:
        raise UsageError(
            f"{verb} takes one prompt, but {len(bare)} came: {bare[0]!r} and {bare[1]!r}; "
            "put the whole prompt in quotes"
        )
    elif tuple(PROMPT.split(".")) in command.data:
        raise UsageError(f"the prompt came twice, as {PROMPT}= and as {bare[0]!r}; give it once")
    else:
        command.data[tuple(PROMPT.split("."))] = check_prompt(read_prompt(bare[0]))


def _way_out(verb: str) -> str:
    """How to type data that looks like a key."""
    if VERBS[verb].bare == "prompt":
        return f"; if it is the prompt, type {PROMPT}=..."
    return "; if it is a file, type ./ before it" if VERBS[verb].bare else ""
