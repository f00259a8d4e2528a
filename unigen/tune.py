"""Which weights learn, in a run that starts from others: all, what is new, or small updates too."""

import copy
import re
from collections.abc import Collection
from typing import Any

from torch import nn

from unigen.errors import UsageError


class All:
    """Every weight of what an objective teaches."""

    def prepare(self, module: nn.Module, loaded: Collection[nn.Parameter]) -> None:
        """Let a module learn. loaded: the weights that the run starts from."""
        module.requires_grad_(True)

    def plain(self, model: Any) -> Any:
        """Return a model of this run in the form that is saved: without what tuning added."""
        return model


class New(All):
    """What no weights were loaded for, such as the layers of one more modality."""

    def prepare(self, module: nn.Module, loaded: Collection[nn.Parameter]) -> None:
        """Let the new weights learn; UsageError where there is none."""
        known = {id(p) for p in loaded}
        new = [p for p in module.parameters() if id(p) not in known]
        if not new:
            raise UsageError(
                "tune=new lets learn what init= does not bring, and it brings everything; type "
                "tune=all or tune=lora, or add a modality."
            )
        for p in new:
            p.requires_grad_(True)


class Lora(All):
    """Small updates of the loaded matrices, W + (alpha / rank) B A, and all that is new.

    Hu et al. 2021 (LoRA), by peft. B starts at 0, so the first step is that of the loaded model.
    """

    def __init__(self, rank: int = 16, alpha: float | None = None, layers: str = ".*"):
        """alpha: scale of the update, 2 * rank if left out. layers: a pattern that the names of
        the linear layers must match.

        Raises UsageError for a rank under 1.
        """
        if rank < 1:
            raise UsageError(f"tune.rank={rank} leaves nothing to learn; type 1 or more, like 16.")
        self.rank, self.alpha = rank, 2.0 * rank if alpha is None else alpha
        self.layers = layers

    def prepare(self, module: nn.Module, loaded: Collection[nn.Parameter]) -> None:
        """Put the updates into a module, in place, and let them and what is new learn."""
        peft = _peft()
        known = {id(p) for p in loaded}
        new = [p for p in module.parameters() if id(p) not in known]
        names = [
            name
            for name, layer in module.named_modules()
            if isinstance(layer, nn.Linear)
            and id(layer.weight) in known
            and re.fullmatch(self.layers, name)
        ]
        if not names:
            raise UsageError(
                f"tune=lora found no linear layer that init= brings and tune.layers={self.layers} "
                "names; start from weights with init=[<folder>], or type tune=all."
            )
        config = peft.LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=names)
        peft.inject_adapter_in_model(config, module)
        for p in new:
            p.requires_grad_(True)

    def plain(self, model: Any) -> Any:
        """Return a copy of a model with the updates added to its matrices."""
        from peft.tuners.lora import LoraLayer

        merged = copy.deepcopy(model)
        for name, layer in list(merged.named_modules()):
            if isinstance(layer, LoraLayer):
                layer.merge()
                merged.set_submodule(name, layer.get_base_layer())
        return merged


def _peft() -> Any:
    """Return the library of the updates, or say how to install it."""
    try:
        import peft
    except ImportError as error:
        raise UsageError("tune=lora needs peft; type pip install 'unigen[lora]'.") from error
    return peft
