"""Any optimizer's state as flat named tensors and JSON, and back, exactly and without pickle."""

import math
from typing import Any

from torch import Tensor

from unigen.errors import CheckpointError
from unigen.registry import shown
from unigen.tensorfile import is_key


def flatten_optimizer(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split `optimizer.state_dict()` into tensors by dotted name and a JSON form of the rest.

    Tuples, integer keys and infinite numbers survive; any other type is a `ValueError`. The
    tensors are the optimizer's own, not copies.
    """
    tensors: dict[str, Tensor] = {}

    def encode(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            if path in tensors or not is_key(path):
                raise ValueError(f"{path!r} is no unique tensor name")
            tensors[path] = value
            return {"tensor": path}
        if type(value) is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) in (list, tuple):
            items = [encode(item, f"{path}.{i}") for i, item in enumerate(value)]
            return items if type(value) is list else {"tuple": items}
        if isinstance(value, dict) and all(type(key) in (int, str) for key in value):
            return {"dict": [[key, encode(item, f"{path}.{key}")] for key, item in value.items()]}
        raise ValueError(f"{path} is a {type(value).__name__}, which has no JSON form")

    return tensors, {key: encode(value, key) for key, value in state.items()}


def unflatten_optimizer(tensors: dict[str, Tensor], meta: dict[str, Any]) -> dict[str, Any]:
    """Return the state dict that `flatten_optimizer` split; `CheckpointError` if parts lack."""

    def decode(value: Any) -> Any:
        if isinstance(value, list):
            return [decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        match value:
            case {"tensor": str(name)} if name in tensors:
                return tensors[name]
            case {"float": ("inf" | "-inf" | "nan") as number}:
                return float(number)
            case {"tuple": list(items)}:
                return tuple(decode(item) for item in items)
            case {"dict": list(pairs)}:
                return {key: decode(item) for key, item in pairs}
        raise CheckpointError(
            f"The optimizer state lacks {shown(next(iter(value.values()), None))}."
        )

    return {key: decode(value) for key, value in meta.items()}
