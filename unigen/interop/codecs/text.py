"""Sentences through networks that others have trained: CLIP and GPT-2, or T5."""

from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from unigen.interop.codecs.captions import CaptionDecoder, load_decoder
from unigen.interop.codecs.network import Network, pretrained
from unigen.interop.codecs.vocabulary import Vocabulary, tokenizer
from unigen.interop.hub import fetched
from unigen.modalities.text import Sentences
from unigen.registry import spec_of, stamp


class CodecSentences(Sentences):
    """Sentences as the latents of so many tokens of a vocabulary."""

    def __init__(self, vocabulary: Vocabulary, tokens: int, channels: int, **common):
        """common: shared, noise_mean: see Modality."""
        super().__init__(tokens, channels, **common)
        self.vocabulary = vocabulary

    def tokenize(self, raw: list[str]) -> dict[str, Int[Tensor, "b n"]]:
        """Return `input_ids` and `attention_mask`; what is longer than `tokens` is cut."""
        words = self.vocabulary.tokenizer(
            raw, padding="max_length", max_length=self.tokens, truncation=True, return_tensors="pt"
        )
        return {key: words[key].to(self.mean.device) for key in ("input_ids", "attention_mask")}

    def positions(self) -> Float[Tensor, "n 3"]:
        """Place the tokens in a row beside the picture: order, no place in the world."""
        order = torch.arange(self.tokens) / 8
        return torch.stack([torch.zeros_like(order), order, torch.full_like(order, -1)], -1)

    def check(self, raw: list[str]) -> list[str]:
        """Say what the encoder does not get to read."""
        tokenizer = self.vocabulary.tokenizer
        words = tokenizer(raw[0], truncation=False, verbose=False).input_ids
        if len(words) <= self.tokens:
            return []
        rest = tokenizer.decode(words[self.tokens - 1 : -1], skip_special_tokens=True)
        return [f"cut after {self.tokens} tokens, left out from {rest[:40]!r} on"]


class ClipText(CodecSentences):
    """Text as UniDiffuser has it: CLIP's tokens, squeezed to a few channels; back by GPT-2."""

    def __init__(
        self,
        encoder: Network,  # a `CLIPTextModel`
        decoder: CaptionDecoder,
        vocabulary: Vocabulary,  # of CLIP
        speller: Vocabulary,  # of GPT-2; its last word ends a caption
        **common,  # shared, noise_mean: see Modality
    ):
        """As many tokens as the decoder's prefix has."""
        channels = decoder.encode_prefix.out_features
        super().__init__(vocabulary, decoder.prefix, channels, **common)
        self.encoder, self.decoder, self.speller = encoder, decoder, speller

    def features(self, raw: list[str]) -> Float[Tensor, "b n c"]:
        """Return the decoder's latents of CLIP's tokens."""
        words = self.tokenize(raw)["input_ids"]
        return self.decoder.encode(self.encoder.net(words)[0]).float()

    def restore(self, features: Float[Tensor, "b n c"]) -> list[str]:
        """Return the likeliest sentences, by beam search."""
        dtype, speller = self.decoder.decode_prefix.weight.dtype, self.speller.tokenizer
        rows = self.decoder.decode(features.to(dtype), speller.eos_token_id)
        return [speller.decode(row, skip_special_tokens=True) for row in rows]


def clip_text(pipeline: str | Path, **common) -> ClipText:
    """Read the text networks of a UniDiffuser pipeline's folder. common: see `Modality`."""
    root = Path(pipeline)
    parts = {
        "encoder": pretrained(root / "text_encoder"),
        "decoder": load_decoder(root / "text_decoder"),
        "vocabulary": tokenizer(root / "clip_tokenizer"),
        "speller": tokenizer(root / "text_tokenizer"),
    }
    specs = {name: spec_of(part) for name, part in parts.items()}
    return stamp(ClipText(**parts, **common), {"class": "ClipText", **specs, **common})


def t5_text(folder: str | Path, download: bool = False, **options) -> "T5Text":
    """Read T5 and its tokenizer from one folder. options: those of `T5Text`."""
    root = fetched(folder) if download else Path(folder)
    parts = {"codec": pretrained(root), "vocabulary": tokenizer(root)}
    specs = {name: spec_of(part) for name, part in parts.items()}
    return stamp(T5Text(**parts, **options), {"class": "T5Text", **specs, **options})


class T5Text(CodecSentences):
    """Text as the states of T5's encoder, back by its decoder (Raffel et al. 2020).

    The published T5 was not taught to say what it has read: train the way back first, with
    `objective=codec objective.modality=text`.
    """

    def __init__(self, codec: Network, vocabulary: Vocabulary, tokens: int = 64, **common):
        """codec: a `T5ForConditionalGeneration`; tokens: the longest sentence."""
        super().__init__(vocabulary, tokens, codec.config.d_model, **common)
        self.codec = codec

    def features(self, raw: list[str]) -> Float[Tensor, "b n c"]:
        """Return the encoder's states, before they are normalized; padding reads as 0."""
        words = self.tokenize(raw)
        states = self.codec.net.get_encoder()(**words).last_hidden_state.float()
        return states * words["attention_mask"][..., None]

    def restore(self, features: Float[Tensor, "b n c"]) -> list[str]:
        """Return the likeliest sentences, word by word."""
        made = self.codec.net.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=features),
            attention_mask=torch.ones_like(features[..., 0]), max_new_tokens=self.tokens,
            do_sample=False, num_beams=1,
        )  # fmt: skip
        return self.vocabulary.tokenizer.batch_decode(made, skip_special_tokens=True)

    def codec_loss(self, front: list[str], generator: torch.Generator | None) -> Tensor:
        """Return the cross entropy of every sentence behind its own states."""
        words, states = self.tokenize(front), self.features(front)
        silent = words["attention_mask"] == 0
        return self.codec.net(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=torch.ones_like(silent, dtype=torch.long),
            labels=words["input_ids"].masked_fill(silent, -100),
        ).loss
