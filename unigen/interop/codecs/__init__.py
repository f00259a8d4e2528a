"""Codecs that others have trained, as modalities: diffusers' and transformers' own classes.

`pretrained` reads one from a folder; `conf/modality/image_kl.yaml` and its neighbors say how.
"""

from unigen.interop.codecs.network import pretrained
from unigen.interop.codecs.vocabulary import tokenizer

__all__ = ["pretrained", "tokenizer"]
