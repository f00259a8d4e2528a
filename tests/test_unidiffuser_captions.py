"""The caption decoder: token for token what diffusers' says, for many sentences side by side."""

import pytest
import torch

from unigen.interop.codecs.captions import CaptionDecoder

SIZES = {"vocab_size": 97, "n_positions": 128, "n_embd": 32, "n_layer": 3, "n_head": 4}


@pytest.fixture(scope="module", params=["gelu", "gelu_new"])
def pair(request):
    """Return diffusers' decoder and this one, with the same random weights."""
    from diffusers.pipelines.deprecated.unidiffuser.modeling_text_decoder import (
        UniDiffuserTextDecoder,
    )

    torch.manual_seed(3)
    theirs = UniDiffuserTextDecoder(
        prefix_length=7, prefix_inner_dim=24, prefix_hidden_dim=8,
        activation_function=request.param, **SIZES,
    ).eval()  # fmt: skip
    for name, p in theirs.named_parameters():
        if not name.endswith("ln_f.weight"):
            torch.nn.init.normal_(p, std=0.3)
    ours = CaptionDecoder(7, 24, 8, activation_function=request.param, **SIZES).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


LONGEST = 16


def latents(n=6, seed=5):
    return torch.randn(n, 7, 8, generator=torch.Generator().manual_seed(seed))


def peers(theirs, z, eos):
    """Ask diffusers' decoder one by one: its batches want sentences of equal length."""
    made = []
    for row in z:
        tokens, lengths = theirs.generate_beam(
            input_embeds=theirs.decode_prefix(row[None]), device=z.device, eos_token_id=eos,
            entry_length=LONGEST,
        )  # fmt: skip
        made.append(tokens[0, : int(lengths[0])].tolist())
    return made


def ends(ours, z) -> list[int]:
    """Return a word that ends no sentence, and two that end some of them early."""
    words = torch.cat(ours.decode(z, eos=-1, longest=LONGEST)).bincount(minlength=97)
    return [-1, *words.topk(2).indices.tolist()]


def test_the_tokens_are_the_peer_s(pair):
    theirs, ours = pair
    z, lengths = latents(), set()
    for eos in ends(ours, z):
        wanted = peers(theirs, z, eos)
        assert [row.tolist() for row in ours.decode(z, eos, longest=LONGEST)] == wanted
        lengths |= {len(row) for row in wanted}
    assert len(lengths) > 2  # some end early, some are cut


def test_a_sentence_does_not_see_its_batch(pair):
    _, ours = pair
    z = latents()
    for eos in ends(ours, z):
        together = [row.tolist() for row in ours.decode(z, eos, longest=LONGEST)]
        alone = [ours.decode(row[None], eos, longest=LONGEST)[0].tolist() for row in z]
        assert together == alone


def test_latents_are_the_peer_s(pair):
    theirs, ours = pair
    words = torch.randn(2, 7, 24)
    assert torch.equal(ours.encode(words), theirs.encode(words))
