"""The published denoiser: the numbers of diffusers' class, from either layout of files."""

import json

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import save_file

from unigen import layers
from unigen.errors import CheckpointError, UsageError
from unigen.interop.unidiffuser import folder, load_denoiser, network
from unigen.interop.unidiffuser.keys import names, translate

TIMES = (0, 1, 37, 500, 999, 1000)
SIZES = {  # heads, width of a head, layers, side of the latents
    "small": (2, 8, 2, 16),
    "odd": (3, 16, 4, 12),
    "wide": (4, 32, 6, 16),
}


def peer(size: str, version: int, seed: int = 0):
    """Return diffusers' network with random weights."""
    from diffusers import UniDiffuserModel

    heads, head, depth, side = SIZES[size]
    torch.manual_seed(seed)
    net = UniDiffuserModel(
        text_dim=16, clip_img_dim=24, num_text_tokens=11, num_attention_heads=heads,
        attention_head_dim=head, in_channels=4, out_channels=4, num_layers=depth,
        sample_size=side, patch_size=2, activation_fn="gelu", num_embeds_ada_norm=1000,
        use_data_type_embedding=version == 1,
    )  # fmt: skip
    for p in net.parameters():  # norms and biases too, so that none is taken for another
        torch.nn.init.normal_(p, std=0.2)
    with torch.no_grad():
        twin = net.transformer.pos_embed.proj
        twin.load_state_dict(net.vae_img_in.proj.state_dict())
    return net.eval()


def saved(net, path):
    """Write a network as the part of a pipeline folder that it is."""
    net.save_pretrained(path / "unet")
    return path


def original(net) -> dict:
    """Return the weights under the original project's names."""
    depth = len(net.transformer.transformer_in_blocks) * 2 + 1
    kinds, state = net.use_data_type_embedding, net.state_dict()
    theirs = names(depth, "diffusers", kinds)
    made = {there: state[theirs[here]] for here, there in names(depth, "original", kinds).items()
            if here in theirs}  # fmt: skip
    for here, there in names(depth, "original", kinds).items():
        if here.endswith("qkv.weight"):
            each = [theirs[here.replace("qkv", k)] for k in "qkv"]
            made[there] = torch.cat([state[name] for name in each])
    return made


def patches(z):
    return rearrange(z, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)


def inputs(net, b=2, seed=1):
    g = torch.Generator().manual_seed(seed)
    side = net.sample_size
    return (torch.randn(b, 4, side, side, generator=g), torch.randn(b, 1, 24, generator=g),
            torch.randn(b, 11, 16, generator=g))  # fmt: skip


def clocks(x, image, text):
    t = {"image": image, "image:global": image, "text": text}
    return {p: torch.full(z.shape[:2], t[p] / 1000) for p, z in x.items()}


@torch.no_grad()
def compare(net, ours, image, text, peer_time=None, **kind) -> float:
    z, clip, words = inputs(net)
    x = {"image": patches(z), "image:global": clip, "text": words}
    times = (image, text) if peer_time is None else (peer_time, peer_time)
    wanted = net(z, clip, words, *times, **({"data_type": kind["kind"]} if kind else {}))
    made = ours(x, clocks(x, image, text), **kind)
    wanted = dict(zip(("image", "image:global", "text"), (patches(wanted[0]), *wanted[1:]),
                      strict=True))  # fmt: skip
    return max(((made[p] - wanted[p]).abs().max() / wanted[p].abs().max()).item() for p in wanted)


@pytest.fixture
def reference_attention(monkeypatch):
    monkeypatch.setattr(network, "attend", F.scaled_dot_product_attention)


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("size", SIZES)
def test_it_answers_as_the_peer_does(size, version, tmp_path, reference_attention):
    net = peer(size, version)
    ours = load_denoiser(saved(net, tmp_path))
    for image in TIMES:
        for text in (image, 0, 1000):
            assert compare(net, ours, image, text) <= 1e-6, (image, text)


def test_times_between_two_steps_are_the_peer_s(tmp_path, reference_attention):
    """The original's solver asks for 980.02; a clock is a float32, which the peer is given too."""
    net = peer("small", 1)
    ours = load_denoiser(saved(net, tmp_path))
    for time in (980.02, 250.25, 20.98):
        same = torch.tensor(time / 1000, dtype=torch.float32).double() * 1000
        assert compare(net, ours, time, time, peer_time=same.float()) <= 1e-6


def test_both_kinds_of_data(tmp_path, reference_attention):
    net = peer("small", 1)
    ours = load_denoiser(saved(net, tmp_path))
    assert compare(net, ours, 37, 500, kind=0) <= 1e-6
    assert compare(net, ours, 37, 500, kind=1) <= 1e-6


def test_this_package_s_attention_differs_by_rounding_alone(tmp_path):
    net = peer("wide", 1)
    assert network.attend is layers.attend
    assert compare(net, load_denoiser(saved(net, tmp_path)), 500, 500) <= 1e-5


def test_bfloat16_is_within_a_hundredth(tmp_path):
    net = peer("wide", 1)
    assert 0 < compare(net, load_denoiser(saved(net, tmp_path)).bfloat16(), 500, 500) <= 0.01


@pytest.mark.parametrize("version", [0, 1])
def test_both_layouts_make_the_same_network(version, tmp_path):
    net = peer("odd", version)
    ours = load_denoiser(saved(net, tmp_path)).state_dict()
    counts = {"text": 11, "image:global": 1, "image": 36}
    theirs = translate(original(net), 5, counts, version == 1, "The file")
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def test_learned_positions_are_kept_where_they_were_learned_and_shared_between(tmp_path):
    ours = load_denoiser(saved(peer("small", 0), tmp_path))
    place, side = ours.place["image"], 8

    def grid(h, w):
        rows, columns = (torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w
        return torch.cartesian_prod(rows, columns)

    assert ours._between(place, grid(side, side)) is place
    wide = ours._between(place, grid(side, 2 * side))
    image = rearrange(place, "(h w) d -> 1 d h w", h=side)
    expected = F.interpolate(image, (side, 2 * side), mode="bilinear", align_corners=False)
    assert torch.allclose(wide, rearrange(expected, "1 d h w -> (h w) d"), atol=1e-5)


def test_a_fault_of_the_files_is_named(tmp_path):
    net = peer("small", 1)
    with pytest.raises(UsageError, match="no folder"):
        load_denoiser(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no folder unet"):
        load_denoiser(tmp_path)
    saved(net, tmp_path)
    config, file = (tmp_path / "unet" / name for name in (folder.CONFIG, folder.WEIGHTS))
    good, state = json.loads(config.read_text()), net.state_dict()

    def damaged(match, change=None, **keys):
        config.write_text(json.dumps({**good, **keys}))
        save_file({k: v.contiguous() for k, v in (change or state).items()}, file)
        with pytest.raises(CheckpointError, match=match):
            load_denoiser(tmp_path)

    lost = "transformer.transformer_mid_block.norm3.bias"
    damaged(lost, {k: v for k, v in state.items() if k != lost})
    damaged("holds unknown 1 tensors: more", {**state, "more": torch.ones(1)})
    other = {k: v for k, v in state.items() if "mid_block" not in k} | {"a": torch.ones(1)}
    lost = sorted(set(state) - set(other))
    damaged(
        f"unet' lacks {len(lost)} tensors: {', '.join(lost)} and holds unknown 1 tensors: a,", other
    )
    wide = {k: torch.cat([v, v]) if "mid_block" in k else v for k, v in state.items()}
    damaged(r"misfits in blocks.1.qkv.weight \[96, 16\] .*norm1.bias.*norm2.bias.*ffn.2.bias", wide)
    damaged("head_out.text.bias", {**state, "text_out.bias": torch.ones(3)})
    damaged("neither patch_embed", {"a": torch.ones(1)})
    older = {k: v for k, v in state.items() if "data_type" not in k}
    damaged("lacks 2 tensors: data_type.*of version 1", older)
    damaged("data_type", {**state}, use_data_type_embedding=False)
    damaged("positions", num_text_tokens=12)
    damaged("pre_layer_norm = True", pre_layer_norm=True)
    damaged("num_layers", num_layers="two")
    holes = {k: v.clone() for k, v in state.items()}
    holes["text_out.bias"][3] = torch.nan
    damaged("tensor head_out.text.bias holds NaN", holes)
    damaged("holds torch.int64; wanted is float32", {k: v.long() for k, v in state.items()})
    config.write_text(json.dumps(good))
    save_file(state, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is truncated|ends|bytes"):
        load_denoiser(tmp_path)
    file.unlink()
    (tmp_path / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="only safetensors"):
        load_denoiser(tmp_path)
