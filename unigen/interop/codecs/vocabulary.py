"""Tokenizers of transformers, kept among the weights of a model."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unigen.disk import named, real_path
from unigen.errors import CheckpointError, UsageError
from unigen.registry import brief, stamp

_MARKS = ("bos_token", "eos_token", "unk_token", "pad_token", "model_max_length")


class Vocabulary(nn.Module):
    """A tokenizer whose JSON is a tensor of bytes, so that it is saved with the weights."""

    written: Tensor

    def __init__(self, size: int):
        """size: bytes of its JSON; they come with the weights."""
        super().__init__()
        self.register_buffer("written", torch.zeros(size, dtype=torch.uint8))

    @classmethod
    def around(cls, tokenizer: Any) -> "Vocabulary":
        """Return a tokenizer of transformers as one of these, with its spec."""
        marks = {key: getattr(tokenizer, key) for key in _MARKS}
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        suffix = rules["model"].get("end_of_word_suffix")
        if suffix:  # CLIP's own class takes it off in Python
            spaces = {"type": "Replace", "pattern": {"String": suffix}, "content": " "}
            steps = [step for step in (rules["decoder"], spaces) if step]
            rules["decoder"] = {"type": "Sequence", "decoders": steps}
        data = json.dumps({"marks": marks, "rules": rules}, sort_keys=True).encode()
        made = cls(len(data))
        made.written.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        return stamp(made, {"class": "Vocabulary", "size": len(data)})

    @cached_property
    def tokenizer(self) -> Any:
        """Return the tokenizer; raises CheckpointError where the bytes are none."""
        import tokenizers
        import transformers

        try:
            data = json.loads(bytes(self.written.cpu().numpy()))
            rules = tokenizers.Tokenizer.from_str(json.dumps(data["rules"]))
        except Exception as error:  # the library raises nothing more special
            raise CheckpointError(
                f"The vocabulary among the weights is damaged: {brief(error)}; load them again."
            ) from error
        marks = {key: data["marks"].get(key) for key in _MARKS}
        return transformers.PreTrainedTokenizerFast(tokenizer_object=rules, **marks)


def tokenizer(folder: str | Path) -> Vocabulary:
    """Read a tokenizer from a folder of transformers; no code of it runs.

    Raises UsageError where there is no folder, CheckpointError for one without a tokenizer.
    """
    import transformers

    root = real_path(folder)
    if not root.is_dir():
        raise UsageError(f"There is no folder {named(root)}; name one that holds a tokenizer.")
    try:
        found = transformers.AutoTokenizer.from_pretrained(
            root, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{named(root)} holds no tokenizer: {brief(error)}.") from error
    return Vocabulary.around(found)
