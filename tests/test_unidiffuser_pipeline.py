"""UniDiffuser through `want` and `given`: latents and captions of diffusers' own pipeline."""

import json
import shutil

import huggingface_hub
import PIL.Image
import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from tiny_pipeline import SIDE, save_pipeline, tiny_pipeline

import unigen
from unigen import sampling
from unigen.errors import CheckpointError, ResourceError, UsageError
from unigen.interop.codecs import pretrained
from unigen.interop.codecs.text import t5_text
from unigen.interop.unidiffuser.pipeline import RECIPES, load
from unigen.tokens import noise

STEPS, GUIDANCE = 10, 3.0
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def pair(request, tmp_path_factory):
    """Return the pipeline and the model that was loaded from its folder."""
    version = getattr(request, "param", 1)
    folder, pipe = tmp_path_factory.mktemp("pipeline"), tiny_pipeline(version)
    save_pipeline(pipe, folder)
    return pipe, load(folder, recipe="diffusers"), folder


def patches(z):
    return rearrange(z, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)


def grid(tokens):
    return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=SIDE // 2, p=2, q=2)


@pytest.fixture
def draws(pair, monkeypatch):
    """Let both draw the same noise: by the name of the part, and how often it was drawn."""
    from diffusers.pipelines.deprecated.unidiffuser import pipeline_unidiffuser as theirs

    pipe, _, _ = pair
    shapes = {(1, 4, SIDE, SIDE): "image", (1, 1, 20): "image:global", (1, 77, 16): "text"}
    counts: dict[str, int] = {}

    def named(part, number, shape):
        generator = torch.Generator().manual_seed(number * 10 + len(part))
        return torch.randn(shape, generator=generator)

    def own(shape, **options):
        part = shapes[tuple(shape)]
        counts[part] = counts.get(part, -1) + 1
        return named(part, counts[part], shape)

    ours: dict[str, int] = {}

    def mine(part, seeds, shape, dtype=torch.float32):
        name, absent, _ = part.partition("/")
        if not absent:
            return torch.zeros(1, *shape)  # never looked at: the initial noise is given
        ours[name] = ours.get(name, -1) + 1
        made = named(name, ours[name], (1, 4, SIDE, SIDE) if name == "image" else (1, *shape))
        return patches(made) if name == "image" else made

    monkeypatch.setattr(theirs, "randn_tensor", own)
    monkeypatch.setattr(sampling, "noise", mine)
    kl = pytest.importorskip("diffusers.models.autoencoders.vae").DiagonalGaussianDistribution
    monkeypatch.setattr(kl, "sample", lambda self, generator=None: self.mode())
    return pipe


#: Tests that both versions of the weights must pass.
both = pytest.mark.parametrize("pair", [0, 1], indirect=True, ids=["v0", "v1"])


def start():
    g = torch.Generator().manual_seed(7)
    return {"image": torch.randn(1, 4, SIDE, SIDE, generator=g),
            "image:global": torch.randn(1, 1, 20, generator=g),
            "text": torch.randn(1, 77, 24, generator=g)}  # fmt: skip


def noises(pipe, z):
    with torch.no_grad():
        text = pipe.text_decoder.encode(z["text"])
    return {"image": patches(z["image"]), "image:global": z["image:global"], "text": text}


def ours(model, want, given, eps, **options):
    with torch.no_grad():
        tokens = model.encode(given)
    options = {**model.options(steps=STEPS), **options}
    *_, x = model.sample(want, tokens, [0], noises=eps, **options)
    return x


def theirs(pipe, z, mode, guidance=GUIDANCE, **inputs):
    getattr(pipe, f"set_{mode}_mode")()
    return pipe(
        num_inference_steps=STEPS, guidance_scale=guidance, output_type="latent",
        vae_latents=z["image"], clip_latents=z["image:global"], prompt_latents=z["text"], **inputs,
    )  # fmt: skip


def close(a, b):
    assert (a - b).abs().max() <= 1e-4 * b.abs().max()


@both
@pytest.mark.parametrize("guidance", [1.0, GUIDANCE])
def test_text_to_image(pair, draws, guidance):
    pipe, model, _ = pair
    z = start()
    wanted = theirs(pipe, z, "text_to_image", guidance, prompt="a cab at sea").images
    made = ours(model, ["image"], {"text": ["a cab at sea"]}, noises(pipe, z), guidance=guidance)
    close(grid(made["image"]), wanted)


@pytest.fixture
def said(pair, monkeypatch):
    """Return the list in which the pipeline's latents of sentences are left."""
    pipe, kept = pair[0], []
    decode = pipe.decode_text_latents
    monkeypatch.setattr(pipe, "decode_text_latents", lambda z, d: kept.append(z) or decode(z, d))
    return kept


@both
@pytest.mark.parametrize("guidance", [1.0, GUIDANCE])
def test_image_to_text(pair, draws, said, guidance):
    pipe, model, _ = pair
    z, pixels = start(), torch.randint(0, 256, (2 * SIDE, 2 * SIDE, 3), dtype=torch.uint8)
    picture = PIL.Image.fromarray(pixels.numpy())
    wanted = theirs(pipe, z, "image_to_text", guidance, image=picture).text
    raw = rearrange(pixels / 255, "h w c -> 1 c h w")
    made = ours(model, ["text"], {"image": raw}, noises(pipe, z), guidance=guidance)
    close(made["text"], said[0])
    with torch.no_grad():
        assert model.decode({"text": made["text"]})["text"] == wanted


@both
@pytest.mark.parametrize("guidance", [1.0, GUIDANCE])
def test_both_at_once(pair, draws, said, guidance):
    pipe, model, _ = pair
    z = start()
    wanted = theirs(pipe, z, "joint", guidance)
    made = ours(model, ["image", "text"], {}, noises(pipe, z), mutual_guidance=guidance)
    close(grid(made["image"]), wanted.images)
    close(made["text"], said[0])


@both
@pytest.mark.parametrize(("part", "mode"), [("image", "image"), ("text", "text")])
def test_one_alone(pair, draws, said, part, mode):
    """The pipeline shows one and the same noise in the place of what is absent."""
    pipe, model, _ = pair
    z = start()
    eps = noises(pipe, z)
    wanted = theirs(pipe, z, mode).images
    made = ours(model, [part], {}, eps)[part]
    close(*((grid(made), wanted) if part == "image" else (made, said[0])))


def test_the_noise_of_sentences_is_that_of_the_recipe(pair):
    """Diffusers draws it as wide as CLIP's tokens, and the prefix encoder makes it narrow."""
    _, model, folder = pair
    wide = noise("text", [5], (77, 24))
    with torch.no_grad():
        assert torch.equal(model.prior("text", [5]), model.modality("text").decoder.encode(wide))
    for recipe in ("original", "unigen"):
        other = load(folder, recipe=recipe)
        assert torch.equal(other.prior("text", [5]), noise("text", [5], (77, 16)))
    assert torch.equal(model.prior("image", [5]), noise("image", [5], model.shape("image")))


def test_what_is_absent_is_new_noise_in_every_call_but_for_diffusers(pair, monkeypatch):
    _, diffusers, folder = pair
    for model, one in ((diffusers, True), (load(folder, recipe="original"), False)):
        seen, ask = [], model.denoise
        monkeypatch.setattr(
            model, "denoise", lambda x, t, ask=ask, seen=seen: seen.append(x) or ask(x, t)
        )
        list(model.sample(["image"], {}, [0], **model.options(steps=3)))
        assert torch.equal(seen[0]["text"], seen[1]["text"]) == one
        assert torch.equal(seen[0]["text"], model.prior("text", [0])) == one


def test_one_call_does_what_neither_implementation_does(pair):
    """Two conditions at once, a kept half, several prompts, an own noise, a weight a part."""
    _, model, _ = pair
    picture = torch.rand(1, 3, 2 * SIDE, 2 * SIDE)
    two = model.generate(
        ["image"], {"text": ["a cab", "a sea"], "image": picture}, seeds=[3, 4], steps=3,
        keep={"image": "0,0,0.5,1"}, guidance={"text": 2.0},
    )  # fmt: skip
    assert [r.recipe["given"]["text"] for r in two] == ["a cab", "a sea"]
    assert not torch.equal(two[0].raw["image"], two[1].raw["image"])
    eps = {"text": torch.randn(1, 77, 16)}
    made = [model.generate(["text"], {"image": picture}, steps=2, noise=eps)[0] for _ in range(2)]
    assert made[0]["text"] == made[1]["text"]
    both = model.generate(["image", "text"], steps=2)[0]
    assert both["image"].shape == picture.shape
    assert isinstance(both["text"], list)


def test_passes_of_guidance_go_in_one_batch(pair, monkeypatch):
    """What is absent is noise, so that all passes have the same parts; and nothing else changes."""
    _, model, _ = pair
    ask, sizes = model.denoise, []

    def counted(x, t):
        sizes.append(len(x["image"]))
        return ask(x, t)

    def made(**guidance):
        options = {**model.options(steps=2), **guidance}
        with torch.no_grad():
            text = model.encode({"text": ["a cab", "a sea"]})
        *_, one = model.sample(["image"], text, [0, 1], **options)
        *_, two = model.sample(["image", "text"], {}, [0, 1], **options)
        return one["image"], two["image"], two["text"]

    monkeypatch.setattr(model, "denoise", counted)
    together = made(guidance=3.0, mutual_guidance=3.0)
    assert sizes == [4, 4, 2, 4, 2, 4]  # a picture: with and without; both: joint, then each alone
    monkeypatch.setattr(sampling, "_together", lambda ask, inputs: [ask(*some) for some in inputs])
    for a, b in zip(together, made(guidance=3.0, mutual_guidance=3.0), strict=True):
        close(a, b)


def test_kept_latents_come_back_bit_for_bit(pair):
    _, model, _ = pair
    with torch.no_grad():
        given = model.encode({"image": torch.rand(1, 3, 2 * SIDE, 2 * SIDE)})
    kept = model.modality("image").kept("0,0,1,0.5")
    *_, x = model.sample(["image"], given, [0], keep={"image": kept}, **model.options(steps=3))
    assert torch.equal(x["image"][:, kept > 0], given["image"][:, kept > 0])
    assert not torch.equal(x["image"][:, kept == 0], given["image"][:, kept == 0])


def test_a_picture_is_passed_on_with_the_point_that_it_was_made_with(pair):
    _, model, _ = pair
    with torch.no_grad():  # CLIP looks at pixels: latents do not tell its point
        *_, made = model.sample(["image"], {}, [0], **model.options(steps=3))
    on = sampling.passed_on(model, made)
    assert made.keys() == on.keys() and all(torch.equal(z, on[p]) for p, z in made.items())


def test_kept_latents_are_shown_with_the_noise_of_the_clock(pair, monkeypatch):
    _, model, _ = pair
    with torch.no_grad():
        given = model.encode({"image": torch.rand(1, 3, 2 * SIDE, 2 * SIDE)})
    kept, seen, ask = model.modality("image").kept("0,0,1,0.5"), [], model.denoise
    eps = noises(pair[0], start())

    def denoise(x, t):
        seen.append((x["image"], t["image"]))
        return ask(x, t)

    monkeypatch.setattr(model, "denoise", denoise)
    options = model.options(steps=3, guidance=1.0)
    list(model.sample(["image"], given, [0], keep={"image": kept}, noises=eps, **options))
    for x, t in seen:
        assert (t == t[0, 0]).all()
        noised = model.flow.interpolate(given["image"], eps["image"], t)
        assert torch.equal(x[:, kept > 0], noised[:, kept > 0])


def test_a_picture_of_three_pixels_is_read_from_a_file_alone(pair, tmp_path):
    _, model, _ = pair
    PIL.Image.new("RGB", (3, 3), "red").save(tmp_path / "dot.png")
    made = model.generate(["text"], {"image": str(tmp_path / "dot.png")}, steps=2)[0]
    assert isinstance(made["text"], list)
    assert any("3x3" in note or "3 x 3" in note for note in made.recipe["notes"]), made.recipe[
        "notes"
    ]
    with pytest.raises(
        UsageError, match=r"of shape \[1, 3, 3, 3\]; give a path, or a float tensor"
    ):
        model.generate(["text"], {"image": torch.rand(1, 3, 3, 3)}, steps=2)


def test_photos_and_their_masks_lose_the_same_edges(pair, tmp_path):
    """The middle square is taken, as the authors do; a mask file belongs to the whole photo."""
    image = pair[1].modality("image")
    photo = PIL.Image.new("RGB", (6 * SIDE, 2 * SIDE), "red")
    photo.paste("blue", (2 * SIDE, 0, 3 * SIDE, 2 * SIDE))  # the left half of the middle
    photo.save(tmp_path / "photo.png")
    pixels, notes = image.read(tmp_path / "photo.png")
    blue = (pixels[0, 2] > 0.9).float()
    assert blue[:, :SIDE].all() and not blue[:, SIDE:].any()
    assert notes == [f"took the middle {2 * SIDE}x{2 * SIDE} of {6 * SIDE}x{2 * SIDE}"]
    mask = photo.split()[2]
    mask.save(tmp_path / "mask.png")
    kept = image.kept(str(tmp_path / "mask.png")).reshape(image.grid)
    half = SIDE // 4
    assert kept[:, :half].all() and not kept[:, half:].any()


def test_what_clip_does_not_read_is_said(pair):
    _, model, _ = pair
    text = model.modality("text")
    assert text.check(["a cab at sea"]) == []
    (note,) = text.check(["a " * 70 + "big cab at the end of it"])
    assert note.startswith("cut after 77 tokens, left out from")
    assert "end" in note


def test_the_folder_is_a_model_like_any_other(pair, tmp_path):
    """`unigen.load` and so every door takes the folder; the recipe names the model."""
    _, other, folder = pair
    model = unigen.load(folder)
    assert model.hash != other.hash  # another recipe: what one made is not replayed by the other
    (result,) = model.generate(["image", "text"], seeds=[1], steps=2)
    assert result.recipe["model"] == model.hash != "unsaved"
    assert result.recipe["guidance"] == 8.0
    assert model.embed({"image": result["image"]})["image"].shape == (1, 20)
    with pytest.raises(UsageError, match="has no point in a shared space"):
        model.embed({"text": ["a cab"]})
    assert {path.suffix for path in result.save(tmp_path)} == {".png", ".txt"}
    (folder / "model_index.json").rename(tmp_path / "index")
    index = json.loads((tmp_path / "index").read_text())
    try:
        (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "Other"}))
        with pytest.raises(CheckpointError, match="only UniDiffuserPipeline is read"):
            unigen.load(folder)
    finally:
        (folder / "model_index.json").write_text(json.dumps(index))


def test_pictures_of_another_size(pair, tmp_path):
    """Learned positions are interpolated; the latents of a picture fill its own grid."""
    _, _, folder = pair
    usual, wide = unigen.load(folder), unigen.load(folder, size=[32, 48])
    (made,) = wide.generate(["image", "text"], seeds=[1], steps=2)
    assert made["image"].shape == (1, 3, 32, 48)
    assert wide.modality("image").positions()[:, 2].max() == 1 - 0.5 / 12
    assert wide.hash != usual.hash == unigen.load(folder, size=2 * SIDE).hash
    (again,) = wide.generate(["text"], {"image": made.save(tmp_path)[0]}, steps=2)
    assert again.recipe["notes"] == []
    with pytest.raises(UsageError, match="size=30 is no multiple of 4"):
        unigen.load(folder, size=30)
    for wrong in (0, -4, True, [32]):
        with pytest.raises(UsageError, match="is no size; type pixels a side"):
            unigen.load(folder, size=wrong)
    with pytest.raises(UsageError, match="size=32 is for pipelines"):
        unigen.load(size=32)


def test_every_recipe_is_a_way_to_sample_the_same_weights(pair):
    _, _, folder = pair
    made = {}
    for recipe in RECIPES:
        model = unigen.load(folder, recipe=recipe)
        (result,) = model.generate(["image"], {"text": "a cab"}, seeds=[3], steps=4)
        made[recipe] = result["image"]
        assert result.recipe["sampler"] == RECIPES[recipe]["sampler"]
    a, b, c = made.values()
    assert not (torch.equal(a, b) or torch.equal(b, c) or torch.equal(a, c))
    with pytest.raises(UsageError, match="recipe=original is for pipelines"):
        unigen.load(recipe="original")


def test_a_fault_of_the_folder_is_named(pair, tmp_path):
    _, _, folder = pair
    with pytest.raises(UsageError, match="recipe=best is unknown; choose one of diffusers, orig"):
        load(folder, recipe="best")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "vae")
    with pytest.raises(CheckpointError, match="lacks the component vae"):
        load(copy)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("clip_image_processor/preprocessor_config.json", lambda b: b"{", "cannot be read"),
        ("text_encoder/model.safetensors", lambda b: b[:-64], "copy it again"),
        ("text_decoder/config.json", lambda b: b.replace(b'"n_head": ', b'"n_head": 7'), "no dec"),
        (
            "text_decoder/config.json",
            lambda b: b.replace(b'"prefix_length": 77', b'"prefix_length": 30'),
            "prefix_length = 30",
        ),
        (
            "vae/config.json",
            lambda b: b.replace(b'"latent_channels": 4', b'"latent_channels": 2'),
            r"decoder.conv_in.weight \[8, 4, 3, 3\] for \[8, 2, 3, 3\]",
        ),
        ("vae/diffusion_pytorch_model.safetensors", lambda b: b[:-64], "copy it again"),
        ("vae/diffusion_pytorch_model.safetensors", lambda b: b"PK\x03\x04" + b, "unigen convert"),
        ("vae/diffusion_pytorch_model.safetensors", lambda b: b.replace(b"F32", b"I32"), "int32"),
        ("vae/diffusion_pytorch_model.safetensors", lambda b: b[:-4] + b"\0\0\xc0\x7f", "NaN"),
        (
            "text_decoder/diffusion_pytorch_model.safetensors",
            lambda b: b[:-4] + b"\0\0\xc0\x7f",
            "NaN",
        ),
        ("text_decoder/diffusion_pytorch_model.safetensors", None, "unigen convert"),
        ("unet/diffusion_pytorch_model.safetensors", None, "unigen convert"),
    ],
)
def test_a_fault_of_a_component_is_named(pair, tmp_path, file, change, words):
    copy = tmp_path / "copy"
    shutil.copytree(pair[2], copy)
    if change is None:
        (copy / file).rename((copy / file).with_suffix(".bin"))
    else:
        before = (copy / file).read_bytes()
        (copy / file).write_bytes(change(before))
        assert (copy / file).read_bytes() != before
    with pytest.raises(CheckpointError, match=words) as caught:
        load(copy)
    assert file.split("/")[0] in str(caught.value)
    assert ". " not in str(caught.value)


def test_the_other_version_s_configuration_is_one_sentence(pair, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(pair[2], copy)
    config = json.loads((copy / "unet/config.json").read_text())
    config["use_data_type_embedding"] = False
    (copy / "unet/config.json").write_text(json.dumps(config))
    with pytest.raises(
        CheckpointError, match=r"unet' holds unknown 2 tensors: data_type"
    ) as caught:
        load(copy)
    assert ". " not in str(caught.value) and "of version 0; use the one" in str(caught.value)


def test_a_pipeline_of_the_hub_is_fetched_as_plain_files(pair, tmp_path, monkeypatch):
    _, model, folder = pair
    asked = []

    def download(repository, allow_patterns, local_dir):
        asked.append((repository, allow_patterns))
        shutil.copytree(folder, local_dir)

    def refuse(*args, **options):
        raise OSError("no network. Please check it.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    fetched = unigen.load("owner/name", recipe="diffusers", download=True)
    assert asked == [("owner/name", ["*.json", "*.safetensors", "*.txt"])]
    assert fetched.hash == model.hash
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ResourceError, match=r"cannot be fetched from the hub: no network\.$"):
        unigen.load("owner/name", download=True)
    with pytest.raises(UsageError, match="'owner/name'; check the path, or type download=true"):
        unigen.load("owner/name")
    for wrong in ("owner", "../name", "owner/../name", "/owner/name"):
        for door in (unigen.load, pretrained, t5_text):
            with pytest.raises(UsageError, match="is no repository"):
                door(wrong, download=True)


def test_another_component_is_another_model(pair, tmp_path):
    _, model, folder = pair
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert load(copy, recipe="diffusers").hash == model.hash
    file = copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["decoder.conv_out.bias"] += 0.5
    save_file(weights, file)
    assert load(copy, recipe="diffusers").hash != model.hash


def test_the_older_index_is_read(pair, tmp_path):
    _, model, folder = pair
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "clip_image_processor").rename(copy / "image_processor")
    index = json.loads((copy / "model_index.json").read_text())
    index["image_processor"] = index.pop("clip_image_processor")
    (copy / "model_index.json").write_text(json.dumps(index))
    picture = torch.rand(1, 3, 2 * SIDE, 2 * SIDE)
    with torch.no_grad():
        a, b = (m.encode({"image": picture}) for m in (model, load(copy, recipe="diffusers")))
    assert all(torch.equal(a[part], b[part]) for part in a)
