"""One generative model over image, text, video and audio: any subset from any subset."""

__version__ = "0.1.0"

_PUBLIC = {"UniGen": "unigen.model", "load": "unigen.model"}


def __getattr__(name: str):
    """Import the heavy modules only when a name of theirs is first used."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'unigen' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return ["__version__", *_PUBLIC]
