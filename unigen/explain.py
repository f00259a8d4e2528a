"""What Hydra refused, in one sentence, with the nearest key or option where there is one."""

import os
import re
import traceback
from collections.abc import Iterator
from typing import Any, cast

from unigen.arguments import Command, conf_dir, known_keys, nearest, spoken
from unigen.usage import options


def explain(error: Exception, command: Command) -> str:
    """One sentence for a configuration that Hydra refused."""
    causes: list[BaseException] = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    text = str(error)
    if match := re.search(r"An item is already at '([^']+)'", text):
        return f"{match[1]} is there already; type {match[1]}=..., without +"
    if match := re.search(r"Could not (?:override|append to config|delete)\D*? '([^']+)'", text):
        return _no_key(match[1], command)
    if match := re.search(r"Could not (?:find|load) '([^']+)'", text):
        return _no_option(match[1], text, command)
    lines = [line.strip() for cause in causes for line in str(cause).splitlines()]
    lines = [line for line in dict.fromkeys(lines) if line and not line.startswith("See http")]
    what = getattr(error, "override", None)
    return f"the configuration is wrong{f' at {what[:80]!r}' if what else ''}: {'; '.join(lines)}"


def _no_key(key: str, command: Command) -> str:
    """What to type for a key that does not exist."""
    lacking = f"@{key.partition('.')[0]}"  # data@validation
    for group in (each for each in known_keys(command.verb) if each.endswith(lacking)):
        if not any(o.startswith(f"{group}=") for o in command.overrides):
            return f"{key} is of no source; type {group}=..., too"
    known = [*_all_keys(command, key), *(k for k in known_keys(command.verb) if "@" in k)]
    return f"{spoken(command.verb)} has no key {key!r}; {nearest(key, known)}"


def _no_option(path: str, text: str, command: Command) -> str:
    """What to type for an option that does not exist; Hydra lists none of those in folders."""
    place = re.search(r"Available options in '([^']+)'", text)
    group = place[1] if place else path.partition("/")[0]
    listed = re.findall(r"^\t(\S+)$", text.partition("Config search path")[0], re.MULTILINE)
    ours = options(group) if group in known_keys(command.verb) else []
    option, known = path.removeprefix(f"{group}/"), sorted({*listed, *ours})
    return f"{group} has no option {option!r}; {nearest(option, known)}"


def _all_keys(command: Command, wrong: str) -> list[str]:
    """Every dotted key of the configuration of `command`, less the `wrong` one."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    groups = [o for o in command.overrides if "." not in o.partition("=")[0] and wrong not in o]
    for overrides in (groups, []):
        try:
            with initialize_config_dir(str(conf_dir()), version_base="1.3"):
                cfg = compose(command.verb, overrides, return_hydra_config=wrong[:6] == "hydra.")
                return list(_dotted(cast(dict[str, Any], OmegaConf.to_container(cfg))))
        except Exception as error:  # this only looks for a hint: the first error is the one to tell
            if os.environ.get("UNIGEN_TRACEBACK") == "1":
                traceback.print_exception(error)
    return []


def _dotted(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of a nested dict."""
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")
