"""`unigen convert`: pickles of both layouts become the same model, and nothing of them runs."""

import os
import re
import shutil

import diffusers
import huggingface_hub
import pytest
import torch
from tiny_pipeline import save_pipeline, tiny_pipeline

from unigen.cli import main
from unigen.errors import CheckpointError, UsageError
from unigen.interop.convert import convert
from unigen.interop.unidiffuser import original
from unigen.interop.unidiffuser.keys import names
from unigen.interop.unidiffuser.pipeline import load
from unigen.tensorfile import read_weights

#: What latent diffusion calls the layers of the autoencoder, from the names of diffusers.
OLD_NAMES = (
    (r"(encoder|decoder)\.mid_block\.resnets\.0", r"\1.mid.block_1"),
    (r"(encoder|decoder)\.mid_block\.resnets\.1", r"\1.mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_(q|k|v)", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.0\.resnets\.(\d+)", r"up.1.block.\1"),  # two levels, counted from the other end
    (r"up_blocks\.1\.resnets\.(\d+)", r"up.0.block.\1"),
    (r"up_blocks\.0\.upsamplers\.0", "up.1.upsample"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of a pipeline."""
    path = tmp_path_factory.mktemp("pipeline")
    save_pipeline(tiny_pipeline(), path)
    return path


def tensors_of(path):
    (file,) = path.glob("*.safetensors")
    return read_weights(file, foreign=True)[0]


def same(a, b):
    """Tell whether two model folders are the same model."""
    one, two = (load(path).state_dict() for path in (a, b))
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def old(name):
    for pattern, word in OLD_NAMES:
        name = re.sub(pattern, word, name)
    return name


def save_original(folder, at):
    """Write the networks of a pipeline as the original project names them."""
    at.mkdir()
    theirs, ours = (names(3, layout, True) for layout in ("original", "diffusers"))
    made, unet = {}, tensors_of(folder / "unet")
    for here, name in theirs.items():
        if "qkv" in here:
            block = here.removesuffix("qkv.weight")
            made[name] = torch.cat([unet[ours[f"{block}{k}.weight"]] for k in "qkv"])
        else:
            made[name] = unet[ours[here]]
    torch.save(made, at / "uvit_v1.pth")
    words = tensors_of(folder / "text_decoder")
    words = {f"module.{re.sub('^transformer[.]', 'gpt.', k)}": v for k, v in words.items()}
    words["module.gpt.transformer.h.0.attn.bias"] = torch.ones(1, 1, 4, 4)  # masks of old GPT-2
    words["module.clip.something"] = torch.ones(2)
    torch.save(words, at / "caption_decoder.pth")
    vae = {old(k): v for k, v in tensors_of(folder / "vae").items()}
    vae = {k: v[..., None, None] if "attn_1" in k and v.ndim == 2 else v for k, v in vae.items()}
    torch.save({"state_dict": vae}, at / "autoencoder_kl.pth")


@pytest.mark.slow
def test_a_pipeline_of_pickles_becomes_the_same_model(folder, tmp_path, capsys):
    copy = tmp_path / "pickles"
    shutil.copytree(folder, copy)
    for file in copy.rglob("*.safetensors"):
        name = "pytorch_model" if file.stem == "model" else file.stem
        torch.save(read_weights(file, foreign=True)[0], file.with_name(f"{name}.bin"))
        file.unlink()
    with pytest.raises(CheckpointError, match="unigen convert FOLDER out=NEW"):
        load(copy)
    assert main(["convert", str(copy), f"out={tmp_path / 'new'}"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "new")
    assert not list((tmp_path / "new").rglob("*.bin"))
    assert same(folder, tmp_path / "new")
    assert main(["convert", str(copy), f"out={tmp_path / 'new'}"]) == 2
    assert "exists; choose a new folder" in capsys.readouterr().err


def test_weights_are_cast_and_the_pipeline_runs_in_their_dtype(folder, tmp_path):
    convert(folder, tmp_path / "low", dtype="bfloat16")
    kinds = {
        v.dtype for part in ("unet", "vae") for v in tensors_of(tmp_path / "low" / part).values()
    }
    assert kinds == {torch.bfloat16}
    low, exact = load(tmp_path / "low"), load(folder)
    networks = (low.denoiser, low.modality("image").codec, low.modality("text").decoder)
    assert {p.dtype for net in networks for p in net.parameters()} == {torch.bfloat16}
    assert torch.equal(low.modality("image").std, exact.modality("image").std)
    made, wanted = (m.generate(["image"], {"text": "a cab"}, steps=2)[0] for m in (low, exact))
    assert (made["image"] - wanted["image"]).abs().mean() < 0.02
    assert isinstance(low.generate(["text"], {"image": made["image"]}, steps=2)[0].text, str)
    assert low.embed({"image": made["image"]})["image"].dtype == torch.float32
    with pytest.raises(UsageError, match="dtype=half is unknown; choose one of float32, bfloat16"):
        convert(folder, tmp_path / "other", dtype="half")
    assert main(["convert", str(folder), "dtype=[bfloat16]", f"out={tmp_path / 'other'}"]) == 2


@pytest.mark.slow
def test_the_original_weights_become_the_same_model(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(original, "HEAD", 16)  # of the tiny networks; the published ones have 64
    save_original(folder, tmp_path / "old")
    with pytest.raises(CheckpointError, match="come without text_encoder"):
        convert(tmp_path / "old", tmp_path / "new")
    convert(tmp_path / "old", tmp_path / "new", components=folder)
    assert same(folder, tmp_path / "new")
    for part in original.COMPONENTS:  # under the names of diffusers, too
        a, b = tensors_of(folder / part), tensors_of(tmp_path / "new" / part)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a if ".pos_embed." not in k)  # never used
    made, theirs = (diffusers.DPMSolverMultistepScheduler.from_pretrained(at / "scheduler")
                    for at in (tmp_path / "new", folder))  # fmt: skip
    assert made.config.solver_order == 3
    assert torch.equal(made.alphas_cumprod, theirs.alphas_cumprod)
    picture = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        codecs = (load(at).modality("image") for at in (folder, tmp_path / "new"))
        a, b = (codec.decode(codec.encode(picture)) for codec in codecs)
    assert torch.equal(a, b)
    vae, file = tensors_of(folder / "vae"), tmp_path / "old" / "autoencoder_kl.pth"
    for change, words in (
        (
            {old(k): v.flatten() for k, v in vae.items()},
            r"vae' has \d+ mismatched keys: .*\[8\] for \[",
        ),
        ({old(k): v.sum() for k, v in vae.items()}, "kl.pth' is not the vae that was publ"),
        (vae, r"autoencoder lacks encoder\.down\.0\.block\.0\.conv2\.weight"),
    ):
        torch.save(change, file)
        with pytest.raises(CheckpointError, match=words):
            convert(tmp_path / "old", tmp_path / "newer", components=folder)
    (tmp_path / "old" / "uvit_v0.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match="Of the original weights here are uvit_v0.pth, uvit"):
        convert(tmp_path / "old", tmp_path / "newer", components=folder)


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.reliability
def test_nothing_of_a_pickle_runs_and_a_bad_one_leaves_nothing(folder, tmp_path):
    copy, marker = tmp_path / "copy", tmp_path / "marker"
    shutil.copytree(folder, copy)
    bad = copy / "vae" / "diffusion_pytorch_model.bin"
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    for value, words in (
        ({"x": Hostile(marker)}, "more than tensors"),
        ([torch.ones(1)], "a dict of tensors was wanted"),
    ):
        torch.save(value, bad)
        with pytest.raises(CheckpointError, match=words):
            convert(copy, tmp_path / "new")
        assert not marker.exists()
        assert not (tmp_path / "new").exists()
    bad.write_bytes(bad.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="damaged"):
        convert(copy, tmp_path / "new")
    for source, kind in ((tmp_path / "no", UsageError), (copy / "vae", CheckpointError)):
        with pytest.raises(kind):
            convert(source, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


@pytest.mark.slow
def test_a_pickle_is_read_whatever_its_name_says(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = read_weights(file, foreign=True)[0]
    for old in (False, True):
        torch.save(tensors, file, _use_new_zipfile_serialization=not old)
        with pytest.raises(CheckpointError, match="unigen convert reads"):
            load(copy)
        convert(copy, tmp_path / f"new{old}")
        assert same(folder, tmp_path / f"new{old}")


def test_what_cannot_be_converted_leaves_nothing(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    with pytest.raises(UsageError, match="lies inside"):
        convert(copy, copy / "new")
    tensors = tensors_of(copy / "vae")
    tensors["encoder.conv_in.bias"][0] = torch.nan
    torch.save(tensors, copy / "vae" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"model.safetensors' stopped: tensor encoder.conv_in"
    ):
        convert(copy, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    assert not (copy / "new").exists()


def test_a_repository_is_fetched_with_its_pickles(folder, tmp_path, monkeypatch, capsys):
    asked = []

    def download(repository, allow_patterns, local_dir):
        asked.append((repository, allow_patterns))
        shutil.copytree(folder, local_dir)
        file = local_dir / "unet" / "diffusion_pytorch_model.safetensors"
        torch.save(read_weights(file, foreign=True)[0], file.with_suffix(".bin"))
        file.unlink()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert main(["convert", "owner/name", "download=true", f"out={tmp_path / 'new'}"]) == 0
    assert asked == [("owner/name", ["*.json", "*.safetensors", "*.txt", "*.bin", "*.pth"])]
    assert same(folder, tmp_path / "new")


def test_the_published_sizes_are_read_from_the_tensors():
    """Version 1 as published: 31 blocks of 24 heads of 64, 1,024 patches of 64 x 64 latents."""
    wide, names_ = 1536, names(31, "original", True)
    shapes = {"patch_embed.proj.weight": (wide, 4, 2, 2), "text_embed.weight": (wide, 64),
              "clip_img_embed.weight": (wide, 512), "pos_embed": (1, 1104, wide)}  # fmt: skip
    tensors = {k: torch.empty(shapes.get(k, (3,)), device="meta") for k in names_.values()}
    config, made = original.unet(tensors)
    assert config["num_attention_heads"] == 24
    assert config["num_layers"] == 30
    assert config["sample_size"] == 64
    assert config["use_data_type_embedding"] is True
    assert len(made) == 482  # as many as diffusers' class has
