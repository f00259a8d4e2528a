"""Sentences of UniDiffuser: CLIP reads them, GPT-2 says them."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unigen.errors import UsageError
from unigen.interop.unidiffuser.captions import CaptionDecoder
from unigen.modalities.text import Sentences


class PublishedText(Sentences):
    """Text as CLIP's tokens, squeezed to a few channels, and back by beam search."""

    def __init__(self, tokenizer: Any, encoder: Any, decoder: CaptionDecoder, speller: Any):
        """Join the parts of the pipeline.

        tokenizer, encoder: a `CLIPTokenizer` and a `CLIPTextModel`; decoder, speller: the caption
        decoder and the `GPT2Tokenizer` whose last word ends a caption.
        """
        super().__init__(decoder.prefix, decoder.encode_prefix.out_features)
        self.tower = torch.nn.Identity()  # see `embed`
        self.encoder, self.decoder = encoder, decoder
        self.tokenizer, self.speller = tokenizer, speller

    def features(self, raw: list[str]) -> Float[Tensor, "b n c"]:
        """Return the decoder's latents of CLIP's tokens; what is longer than CLIP reads is cut."""
        words = self.tokenizer(
            raw, padding="max_length", max_length=self.tokens, truncation=True, return_tensors="pt"
        ).input_ids
        return self.decoder.encode(self.encoder(words.to(self.mean.device))[0]).float()

    def restore(self, features: Float[Tensor, "b n c"]) -> list[str]:
        """Return the likeliest sentences."""
        dtype = self.decoder.decode_prefix.weight.dtype
        rows = self.decoder.decode(features.to(dtype), self.speller.eos_token_id)
        return [self.speller.decode(row, skip_special_tokens=True) for row in rows]

    def embed(self, z: Float[Tensor, "b n c"]) -> Float[Tensor, "b e"]:
        """Refuse: this text was read by another CLIP than the one that looks at pictures."""
        raise UsageError(
            "the text of this model has no point in a shared space; embed pictures, or use "
            "another model."
        )

    def codec_loss(self, front: list[str], generator: torch.Generator | None) -> Tensor:
        """Refuse: CLIP and GPT-2 are taken as they are."""
        raise UsageError("the codec of this text is published as it is; train another modality's.")

    def positions(self) -> Float[Tensor, "n 3"]:
        """Place the tokens in a row; the network has learned its own places for them."""
        order = torch.arange(self.tokens) / 8
        return torch.stack([torch.zeros_like(order), order, torch.full_like(order, -1)], -1)

    def check(self, raw: list[str]) -> list[str]:
        """Say what CLIP does not get to read."""
        words = self.tokenizer(raw[0], truncation=False).input_ids
        if len(words) <= self.tokens:
            return []
        rest = self.tokenizer.decode(words[self.tokens - 1 : -1], skip_special_tokens=True)
        return [f"cut after {self.tokens} tokens, left out from {rest[:40]!r} on"]
