"""Modules of the user's own: what plugins=[...] names is imported, or refused by its name."""

from collections.abc import Sequence

from unigen.errors import UnigenError, UsageError
from unigen.registry import brief, check_plugins, load_module, shown


def import_plugins(plugins: Sequence[str]) -> None:
    """Import the modules that the user's command names, whether a class of theirs is used or not.

    Raises UsageError for one that is not there or cannot be imported.
    """
    check_plugins(plugins)
    for name in plugins:
        try:
            load_module(name, plugins, UsageError)
        except UnigenError:
            raise
        except Exception as error:  # a module may do anything while it is imported
            raise UsageError(
                f"Plugin {shown(name)} cannot be imported ({type(error).__name__}: "
                f"{brief(error)}); mend it, or leave it out of plugins=[...]."
            ) from error
