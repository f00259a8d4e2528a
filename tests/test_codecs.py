"""Codecs of other libraries are modalities like any other: trained with, saved, loaded."""

import json

import pytest
import torch
from einops import rearrange
from tiny_pipeline import save_pipeline, tiny_pipeline

import unigen
from unigen.cli import main
from unigen.data.world import World
from unigen.errors import CheckpointError, UsageError
from unigen.interop.codecs import pretrained, tokenizer
from unigen.interop.codecs.audio import CodecAudio, MelAudio, fitted
from unigen.interop.codecs.image import CodecImage
from unigen.interop.codecs.network import Network
from unigen.interop.codecs.video import CodecFrames, CodecVideo
from unigen.registry import build
from unigen.tensorfile import read_weights

KL = {
    "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
    "block_out_channels": [8, 8], "latent_channels": 4, "norm_num_groups": 4,
    "scaling_factor": 0.36, "shift_factor": 0.12,
}  # fmt: skip
DC = {
    "latent_channels": 4, "attention_head_dim": 2,
    "encoder_block_types": ["ResBlock", "EfficientViTBlock"],
    "decoder_block_types": ["ResBlock", "EfficientViTBlock"],
    "encoder_block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8],
    "encoder_qkv_multiscales": [[], [5]], "decoder_qkv_multiscales": [[], [5]],
    "encoder_layers_per_block": [1, 1], "decoder_layers_per_block": [1, 1],
    "downsample_block_type": "conv", "upsample_block_type": "interpolate",
    "decoder_norm_types": "rms_norm", "decoder_act_fns": "silu", "scaling_factor": 0.41,
}  # fmt: skip
TINY = {
    "encoder_block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8],
    "num_encoder_blocks": [1, 1], "num_decoder_blocks": [1, 1], "latent_channels": 4,
}  # fmt: skip
LTX = {
    "latent_channels": 8, "block_out_channels": [8, 8, 8, 8],
    "decoder_block_out_channels": [8, 8, 8, 8], "layers_per_block": [1, 1, 1, 1, 1],
    "decoder_layers_per_block": [1, 1, 1, 1, 1], "patch_size": 1, "patch_size_t": 1,
    "spatio_temporal_scaling": [True, True, False, False],
    "decoder_spatio_temporal_scaling": [True, True, False, False],
}  # fmt: skip
LTX_MEAN, LTX_STD = torch.linspace(-0.5, 0.5, 8), torch.linspace(0.5, 2.0, 8)
WAN = {
    "base_dim": 4, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
    "latents_mean": [0.1, -0.2, 0.3, 0.4], "latents_std": [1.5, 2.0, 0.5, 3.0],
}  # fmt: skip
OOBLECK = {
    "encoder_hidden_size": 8, "decoder_channels": 8, "decoder_input_channels": 4,
    "downsampling_ratios": [2, 4, 8], "channel_multiples": [1, 1, 2], "sampling_rate": 8000,
}  # fmt: skip
MEL = {**KL, "in_channels": 1, "out_channels": 1}
HIFIGAN = {
    "model_in_dim": 16, "sampling_rate": 8000, "upsample_initial_channel": 8,
    "upsample_rates": [5, 4, 4], "upsample_kernel_sizes": [11, 8, 8],
    "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3]], "normalize_before": False,
}  # fmt: skip
T5 = {
    "vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2,
    "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
#: Name of the YAML: part, width of a token, sizes of the world, networks by key, overrides.
CASES = {
    "image_kl": ("image", 16, {"size": 32}, {"codec": ("AutoencoderKL", KL)}, ["size=32"]),
    "image_dc": ("image", 4, {"size": 32}, {"codec": ("AutoencoderDC", DC)}, ["size=32"]),
    "image_tiny": ("image", 16, {"size": 32}, {"codec": ("AutoencoderTiny", TINY)}, ["size=32"]),
    "video_kl": ("video", 16, {"size": 32, "frames": 3}, {"codec": ("AutoencoderKL", KL)},
                 ["size=32", "frames=3"]),
    "video_ltx": ("video", 8, {"size": 32, "frames": 9}, {"codec": ("AutoencoderKLLTXVideo", LTX)},
                  ["size=32", "frames=9"]),
    "video_wan": ("video", 16, {"size": 32, "frames": 9}, {"codec": ("AutoencoderKLWan", WAN)},
                  ["size=32", "frames=9"]),
    "audio_mel": ("audio", 4 * 2 * 8, {"rate": 8000},
                  {"codec": ("AutoencoderKL", MEL), "vocoder": ("SpeechT5HifiGan", HIFIGAN)},
                  ["seconds=2.0"]),
    "audio_oobleck": ("audio", 4, {"rate": 8000}, {"codec": ("AutoencoderOobleck", OOBLECK)},
                      ["seconds=2.0"]),
    "text_t5": ("text", 16, {}, {"codec": ("T5ForConditionalGeneration", T5)}, ["tokens=24"]),
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning",
                                        "ignore:.*weight_norm.*")  # fmt: skip


def save_net(kind, config, folder):
    """Write a network with random weights, as its library does."""
    torch.manual_seed(0)
    Network(kind, config).net.save_pretrained(folder)
    return folder


def save_tokenizer(folder):
    """Write a tokenizer of T5's kind: every letter a word."""
    import tokenizers
    import transformers

    letters = {
        w: i for i, w in enumerate(["<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"])
    }
    rules = tokenizers.Tokenizer(tokenizers.models.WordLevel(letters, unk_token="<unk>"))
    rules.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    rules.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=rules, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)


@pytest.fixture(scope="module", params=[*CASES, "text_clip"])
def trained(request, tmp_path_factory):
    """Train one batch with a codec by the command; return its part, the model and raw media."""
    name, at = request.param, tmp_path_factory.mktemp(request.param)
    if name == "text_clip":
        part, width, sizes = "text", 16, {}
        save_pipeline(tiny_pipeline(), at / "pipeline")
        words = [f"modalities.text.pipeline={at / 'pipeline'}"]
    else:
        part, width, sizes, nets, options = CASES[name]
        for key, (kind, config) in nets.items():
            save_net(kind, config, at / key)
        words = [f"modalities.{part}.{key}.folder={at / key}" for key in nets]
        words += [f"modalities.{part}.{option}" for option in options]
        if part == "text":
            save_tokenizer(at / "codec")
        if part == "text":
            words[0] = f"modalities.text.folder={at / 'codec'}"
    words += [f"data.{key}={value}" for key, value in sizes.items()]
    words += [f"modality=[{name}]", f"parts.{part}={width}", "model=small", "trainer.steps=1",
              "trainer.batch=2", "trainer.cache=4", "trainer.preview_every=0",
              f"out={at / 'run'}"]  # fmt: skip
    assert main(["train", *words]) == 0
    raw = World(**sizes).batch(torch.arange(2), [part])[part]
    return part, unigen.load(at / "run" / "model"), raw


@torch.no_grad()
def test_a_codec_trains_saves_loads_and_generates(trained, tmp_path):
    part, model, raw = trained
    modality = model.modality(part)
    z = modality.encode(raw)
    assert z.shape == (2, modality.tokens, modality.channels) == (2, *model.shape(part))
    assert modality.positions().shape == (modality.tokens, 3)
    model.save_pretrained(tmp_path / "again", torch.float32)
    again = unigen.load(tmp_path / "again").modality(part)
    assert torch.equal(again.encode(raw), z)
    made, repeated = modality.decode(z), again.decode(z)
    if part == "text":
        assert made == repeated
        assert len(made) == 2
    else:
        assert made.shape == raw.shape
        assert torch.equal(made, repeated)
        assert -1 <= made.min() <= made.max() <= 1
    (result,) = model.generate([part], seeds=[0], steps=2)
    assert all(path.is_file() for path in result.save(tmp_path / "results"))
    assert model.embed({part: raw})[part].shape == (2, 32)
    region = {"image": "0,0,0.5,1", "video": "0:1.5", "audio": "0:1"}.get(part)
    if region is not None:
        (kept,) = model.generate([part], {part: raw[:1]}, keep={part: region}, seeds=[0], steps=2)
        assert kept[part].shape == raw[:1].shape


@torch.no_grad()
@pytest.mark.parametrize("kind, config, shape, undo", [
    ("AutoencoderKL", KL, (2, 3, 32, 32), lambda z: z / 0.36 + 0.12),
    ("AutoencoderDC", DC, (2, 3, 32, 32), lambda z: z / 0.41),
    ("AutoencoderTiny", TINY, (2, 3, 32, 32), lambda z: z),
    ("AutoencoderKLWan", WAN, (2, 5, 3, 32, 32), lambda z: z
     * torch.tensor(WAN["latents_std"])[:, None, None, None]
     + torch.tensor(WAN["latents_mean"])[:, None, None, None]),
    ("AutoencoderKLLTXVideo", {**LTX, "scaling_factor": 0.7}, (2, 9, 3, 32, 32),
     lambda z: z * LTX_STD[:, None, None, None] / 0.7 + LTX_MEAN[:, None, None, None]),
])  # fmt: skip
def test_latents_are_those_of_the_library_with_its_statistics_taken_off(kind, config, shape, undo):
    """The pipelines of diffusers decode z * std + mean; so what we call z must be theirs."""
    torch.manual_seed(0)
    codec, raw = Network(kind, config), torch.rand(shape)
    for name, value in dict(codec.net.named_buffers()).items():  # LTX has them in its weights
        if name in ("latents_mean", "latents_std"):
            value.copy_(LTX_MEAN if name == "latents_mean" else LTX_STD)
    if len(shape) == 5:
        modality = CodecVideo(codec, shape[1], 1, size=32)
        frames = (raw * 2 - 1).transpose(1, 2)
        theirs = codec.net.encode(frames).latent_dist.mode()
        back = codec.net.decode(theirs).sample.transpose(1, 2)
        z = modality.encode(raw).transpose(1, 2).reshape(theirs.shape)
    else:
        modality = CodecImage(codec, 32, 1)
        theirs = codec.encode(raw * 2 - 1)
        back = codec.net.decode(theirs).sample
        z = modality.encode(raw).transpose(1, 2).reshape(theirs.shape)
    assert torch.allclose(undo(z), theirs, atol=1e-5)
    made = modality.decode(modality.encode(raw))
    assert torch.allclose(made, ((back + 1) / 2).clamp(0, 1), atol=1e-4)


@torch.no_grad()
def test_latents_of_frames_and_of_sounds_are_those_of_the_library():
    """Frame by frame, of mel spectra and of waves: what the other codecs' statistics do."""
    torch.manual_seed(0)
    frames, clip = Network("AutoencoderKL", KL), torch.rand(2, 3, 3, 32, 32)
    video = CodecFrames(frames, frames=3, patch=1, size=32)
    theirs = frames.net.encode(clip.flatten(0, 1) * 2 - 1).latent_dist.mode()
    z = rearrange(video.encode(clip), "b (f h w) c -> (b f) c h w", f=3, h=16)
    assert torch.allclose(z / 0.36 + 0.12, theirs, atol=1e-5)
    back = (frames.net.decode(theirs).sample.unflatten(0, (2, 3)) + 1) / 2
    assert torch.allclose(video.decode(video.encode(clip)), back.clamp(0, 1), atol=1e-4)

    mels, voice = Network("AutoencoderKL", MEL), Network("SpeechT5HifiGan", HIFIGAN)
    wave = 0.1 * torch.randn(2, 16_000)
    sound = MelAudio(mels, voice, seconds=2.0)
    theirs = mels.net.encode(sound.mel(wave)[:, None]).latent_dist.mode()
    z = rearrange(sound.encode(wave), "b n (c p m) -> b c (n p) m", p=sound.patch, m=sound.height)
    assert torch.allclose(z / 0.36 + 0.12, theirs, atol=1e-5)
    back = voice.net(mels.net.decode(theirs).sample[:, 0])[:, :16_000]
    made = sound.decode(sound.encode(wave))
    assert torch.allclose(made[:, : back.shape[1]], back.clamp(-1, 1), atol=1e-4)

    waves = Network("AutoencoderOobleck", OOBLECK)
    sound = CodecAudio(waves, seconds=2.0)
    padded = fitted(wave, sound.tokens * 64)[:, None].expand(-1, 2, -1)
    theirs = waves.net.encode(padded).latent_dist.mode()
    assert torch.allclose(sound.encode(wave).transpose(1, 2), theirs, atol=1e-5)
    back = waves.net.decode(theirs).sample.mean(1)[:, :16_000].clamp(-1, 1)
    assert torch.allclose(sound.decode(sound.encode(wave)), back, atol=1e-4)


@torch.no_grad()
def test_a_decoder_that_asks_for_a_clock_is_told_that_latents_are_clean():
    torch.manual_seed(0)
    codec = Network("AutoencoderKLLTXVideo", {**LTX, "timestep_conditioning": True})
    modality, raw = CodecVideo(codec, 9, 1, size=32), torch.rand(2, 9, 3, 32, 32)
    theirs = codec.net.encode((raw * 2 - 1).transpose(1, 2)).latent_dist.mode()
    back = codec.net.decode(theirs, torch.zeros(2)).sample.transpose(1, 2)
    made = modality.decode(modality.encode(raw))
    assert torch.allclose(made, ((back + 1) / 2).clamp(0, 1), atol=1e-4)


def test_the_first_frame_of_a_clip_stands_alone():
    """Wan and LTX join frames behind the first one; places in time follow them."""
    clip = CodecVideo(Network("AutoencoderKLWan", WAN), 9, 1, size=32, seconds=1.8)
    seconds = clip.positions()[:: clip.grid**2, 0]
    assert torch.allclose(seconds, torch.tensor([0.1, 0.6, 1.4]))
    assert clip.kept("0:1").reshape(3, -1).amin(1).tolist() == [1, 1, 0]
    raw = torch.rand(1, 9, 3, 32, 32)
    held = clip.blank(raw, clip.kept("0:1"))
    assert torch.equal(held[:, :5], raw[:, :5])
    assert torch.equal(held[:, 5:], raw[:, 4:5].expand(-1, 4, -1, -1, -1))


def test_t5_is_taught_to_say_what_it_has_read(tmp_path):
    save_net("T5ForConditionalGeneration", T5, tmp_path / "t5")
    save_tokenizer(tmp_path / "t5")
    words = [f"modalities.text.folder={tmp_path / 't5'}", "modalities.text.tokens=24",
             "modality=[text_t5]", "parts.text=16", "model=small", "objective=codec",
             "objective.modality=text", "trainer.steps=30", "trainer.batch=8", "trainer.warmup=1",
             "trainer.log_every=10", "trainer.preview_every=0"]  # fmt: skip
    assert main(["train", *words, f"out={tmp_path / 'run'}"]) == 0
    lines = (tmp_path / "run" / "losses.jsonl").read_text().splitlines()
    first, *_, last = (json.loads(each)["text"] for each in lines)
    assert last < first
    assert unigen.load(tmp_path / "run" / "model").modality("text").std.ne(1).all()  # measured


def test_a_tokenizer_is_the_same_from_its_bytes(tmp_path):
    save_pipeline(tiny_pipeline(), tmp_path)
    import transformers

    for folder in ("clip_tokenizer", "text_tokenizer"):
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / folder)
        ours = tokenizer(tmp_path / folder).tokenizer
        for sentence in ("a red ball", "zebra, x!", ""):
            assert ours(sentence).input_ids == theirs(sentence).input_ids
            ids = theirs(sentence).input_ids
            said = [t.decode(ids, skip_special_tokens=True).strip() for t in (ours, theirs)]
            assert said[0] == said[1]


def test_no_configuration_chooses_a_kernel_of_the_hub(tmp_path):
    hostile = {"attn_implementation": "owner/kernel"}
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
             "num_attention_heads": 2, "vocab_size": 40}  # fmt: skip
    net = Network("CLIPTextModel", {**small, **hostile}).net
    assert net.config._attn_implementation == "eager"
    net.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    hostile = {**hostile, "_attn_implementation": "owner/kernel"}
    (tmp_path / "config.json").write_text(json.dumps({**config, **hostile}))
    assert pretrained(tmp_path).net.config._attn_implementation == "eager"
    stolen = {"class": "Network", "kind": "os.system", "config": {}}
    with pytest.raises(CheckpointError, match="'os.system', and that is not known"):
        build(stolen)


def test_what_does_not_fit_is_one_sentence(tmp_path):
    folder = save_net("AutoencoderKL", KL, tmp_path / "vae")
    (weights,) = folder.glob("*.safetensors")
    codec = pretrained(folder)
    with pytest.raises(UsageError, match="size=30 is no multiple of 4"):
        CodecImage(codec, 30)
    with pytest.raises(UsageError, match="frames=8 does not fit this autoencoder.*set it to 5"):
        CodecVideo(Network("AutoencoderKLWan", WAN), 8, 1, size=32)
    with pytest.raises(UsageError, match="There is no folder"):
        pretrained(tmp_path / "nowhere")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_class_name": "Anything"}))
    with pytest.raises(CheckpointError, match="is a 'Anything', and that is not known"):
        pretrained(folder)
    (folder / "config.json").write_text(json.dumps({**config, "latent_channels": 8}))
    with pytest.raises(CheckpointError, match="vae"):
        pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = read_weights(weights, foreign=True)[0]
    torch.save(tensors, weights.with_suffix(".bin"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="no safetensors file, or a cut one"):
        pretrained(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match="unigen convert FOLDER out=NEW"):
        pretrained(folder)
    assert main(["convert", str(folder), f"out={tmp_path / 'new'}"]) == 0
    ours, same = pretrained(tmp_path / "new").net.state_dict(), codec.net.state_dict()
    assert all(torch.equal(ours[k], same[k]) for k in same)
