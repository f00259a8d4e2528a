"""The caption decoder of UniDiffuser: GPT-2 that goes on from a sentence's latents."""

from inspect import signature
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel, GPT2Model

from unigen import checkpoint
from unigen.disk import named, parse_json, reading, real_path
from unigen.errors import CheckpointError
from unigen.interop.hub import MAKE
from unigen.registry import brief, stamp
from unigen.tensorfile import check_finite, read_weights

#: What transformers calls the words before: past_key_values until 5.23, which warns from then on.
CACHE = "cache" if "cache" in signature(GPT2Model.forward).parameters else "past_key_values"
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"


class CaptionDecoder(nn.Module):
    """GPT-2 behind a prefix of latents (Mokady et al. 2021, ClipCap), as UniDiffuser uses it."""

    def __init__(self, prefix: int, inner: int, hidden: int, **gpt: Any):
        """prefix: tokens of it; inner: width of CLIP's text tokens; hidden: of the latents.

        gpt: options of `transformers.GPT2Config`; the published model has vocab_size=50258, one
        more than GPT-2. activation_function is "gelu_new" in the original, "gelu" in diffusers.
        """
        super().__init__()
        self.prefix = prefix
        config = GPT2Config(**gpt)
        self.encode_prefix = nn.Linear(inner, hidden)
        self.decode_prefix = nn.Linear(hidden, config.n_embd)
        self.transformer = GPT2LMHeadModel(config)

    def encode(self, words: Float[Tensor, "b n d"]) -> Float[Tensor, "b n c"]:
        """Return the latents of a sentence from CLIP's text tokens."""
        return self.encode_prefix(words)

    @torch.no_grad()
    def decode(
        self, z: Float[Tensor, "b n c"], eos: int, beams: int = 5, longest: int = 67
    ) -> list[Int[Tensor, " k"]]:
        """Return every sentence's tokens by beam search, the last one `eos` unless cut.

        Beams are ranked by mean log-probability at every step; one that has ended stays as it is.
        That is not the length penalty of `transformers.generate`, which ranks ended beams only.
        All sentences run side by side and leave as they end; keys and values are kept.
        """
        prefix = self.decode_prefix(z)
        cache = DynamicCache()
        likely = self._next(cache, inputs_embeds=prefix)
        cache.batch_repeat_interleave(beams)
        scores, tokens = likely.topk(beams)  # b k
        tokens, ended = tokens[..., None], tokens == eos
        lengths, who = torch.ones_like(scores), torch.arange(len(z), device=z.device)
        sentences: list[Tensor] = [tokens.new_empty(0)] * len(z)
        for step in range(1, longest + 1):
            done = ended.all(1) | (step == longest)
            for i in done.nonzero()[:, 0].tolist():
                best = (scores[i] / lengths[i]).argmax()
                sentences[int(who[i])] = tokens[i, best, : int(lengths[i, best])]
            if done.all():
                break
            if done.any():
                rows = (~done).nonzero()[:, 0]
                kept = (rows[:, None] * beams + torch.arange(beams, device=rows.device)).flatten()
                cache.batch_select_indices(kept)
                scores, tokens, ended, lengths, who = (
                    value[rows] for value in (scores, tokens, ended, lengths, who)
                )
            last = tokens[..., -1].reshape(-1, 1)
            likely = self._next(cache, input_ids=last).unflatten(0, (-1, beams))  # b k words
            nothing = torch.full_like(likely[0, 0], -torch.inf)
            nothing[0] = 0  # what has ended goes on with word 0 at no cost
            likely = torch.where(ended[..., None], nothing, likely)
            lengths = lengths + ~ended
            means = (scores[..., None] + likely) / lengths[..., None]
            means, pick = means.flatten(1).topk(beams)
            source, word = pick // likely.shape[-1], pick % likely.shape[-1]
            lengths, scores = lengths.gather(1, source), means * lengths.gather(1, source)
            tokens = tokens.gather(1, source[..., None].expand_as(tokens))
            tokens = torch.cat([tokens, word[..., None]], -1)
            ended = ended.gather(1, source) | (word == eos)
            first = torch.arange(len(source), device=source.device)[:, None] * beams
            cache.batch_select_indices((first + source).flatten())
        return sentences

    def _next(self, cache: DynamicCache, **given: Tensor) -> Float[Tensor, "b words"]:
        """Return the log-probabilities of the next word; the cache grows by what is given.

        Words stand left in the product: a CPU has few rows of h and reads 50,258 rows once.
        Minus infinity where a probability is too small for its dtype.
        """
        gpt, words = self.transformer.transformer, self.transformer.lm_head.weight
        h = gpt(**given, **{CACHE: cache}, use_cache=True).last_hidden_state[:, -1]
        return (words @ h.mT).mT.contiguous().softmax(-1).log()


def load_decoder(folder: str | Path, activation: str = "gelu_new") -> CaptionDecoder:
    """Load the folder `text_decoder` of a pipeline, whatever activation its file names.

    Raises CheckpointError for another network's folder, or one without safetensors.
    """
    folder = real_path(folder)
    with reading(folder / CONFIG, folder.parent, checkpoint.MAX_CONFIG) as (file, _):
        config = parse_json(file.read(), named(folder / CONFIG))
    known = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner",
             "layer_norm_epsilon")  # fmt: skip
    sizes = {key: config[key] for key in known if config.get(key) is not None}
    missing = [k for k in ("prefix_length", "prefix_inner_dim", "prefix_hidden_dim")
               if type(config.get(k)) is not int]  # fmt: skip
    if missing:
        raise CheckpointError(f"{named(folder / CONFIG)} lacks {', '.join(missing)}.")
    options = {"prefix": config["prefix_length"], "inner": config["prefix_inner_dim"],
               "hidden": config["prefix_hidden_dim"], "activation_function": activation,
               **sizes}  # fmt: skip
    try:
        decoder = stamp(CaptionDecoder(**options), {"class": "CaptionDecoder", **options})
    except (ValueError, TypeError, RuntimeError) as error:
        where = named(folder / CONFIG)
        raise CheckpointError(f"{where} describes no decoder: {brief(error)}.") from error
    if not (folder / WEIGHTS).exists():
        raise CheckpointError(f"{named(folder)} lacks {WEIGHTS}; {MAKE}.")
    tensors, _ = read_weights(folder / WEIGHTS, folder.parent, foreign=True)
    head, words = "transformer.lm_head.weight", "transformer.transformer.wte.weight"
    tied = {head: tensors[words]} if words in tensors else {}
    unused = (".attn.bias", ".attn.masked_bias")  # masks that older files hold
    tensors = {k: v for k, v in tensors.items() if not k.endswith(unused)}
    check_finite(tensors, f"Loading {named(folder)}", CheckpointError)
    checkpoint.match(decoder, {**tied, **tensors}, named(folder / WEIGHTS), most=None)
    return decoder.eval()
