"""UniDiffuser at the doors: commands, previews, negative prompts, variations, the hub's cache."""

import json
from pathlib import Path

import PIL.Image
import pytest
import torch
from tiny_pipeline import SIDE, save_pipeline, tiny_pipeline

from unigen import media
from unigen.cli import main
from unigen.errors import UsageError
from unigen.interop.unidiffuser.pipeline import load
from unigen.tokens import pick, slerp

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
PROMPT = {"text": "a cab at sea"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of a pipeline."""
    path = tmp_path_factory.mktemp("pipeline")
    save_pipeline(tiny_pipeline(), path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return load(folder)


@pytest.fixture
def photo(tmp_path):
    g = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2 * SIDE, 3 * SIDE, 3), dtype=torch.uint8, generator=g)
    PIL.Image.fromarray(pixels.numpy()).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def command(capsys, *words):
    """Run a command, and return its lines on standard output."""
    assert main(list(map(str, words))) == 0, capsys.readouterr().err
    return capsys.readouterr().out.splitlines()


def test_every_command_takes_the_folder(folder, photo, tmp_path, capsys):
    common = [f"model={folder}", "steps=2", "deterministic=true"]
    (made,) = command(capsys, "generate", "a cab", *common, f"out={tmp_path / 'a'}")
    with PIL.Image.open(made) as picture:
        assert picture.size == (2 * SIDE, 2 * SIDE)
    (said,) = command(capsys, "caption", photo, *common)
    assert isinstance(said, str)
    (half,) = command(capsys, "generate", f"given.image={photo}", "at sea", "want=[image]", *common,
                      "keep.image=0,0,0.5,1", f"out={tmp_path / 'b'}")  # fmt: skip
    (other,) = command(capsys, "generate", f"given.image={photo}", "want=[image]", *common,
                       "through=[text]", f"out={tmp_path / 'c'}")  # fmt: skip
    for file in (made, half, other):
        (again,) = command(capsys, "replay", file, f"model={folder}", f"out={tmp_path / 'again'}")
        assert Path(again).read_bytes() == Path(file).read_bytes()
    weighed = ["generate", "a cab", *common, "guidance.text=3.5", f"out={tmp_path / 'e'}"]
    (file,) = command(capsys, *weighed)
    assert media.read_recipe(file)["guidance"] == {"text": 3.5}
    (points,) = command(capsys, "embed", photo, f"model={folder}", f"out={tmp_path / 'd'}")
    assert len(json.loads(Path(points).read_text())[str(photo)]) == 20


def test_a_picture_varies_by_its_sentence_or_by_its_meaning(model, photo):
    """Through the latents of a sentence, never the sentence; or with CLIP's point standing."""
    with torch.no_grad():
        given = model.encode({"image": model.modality("image").read(photo)[0]})
        *_, words = model.sample(["text"], given, [3], **model.options(steps=2))
        *_, after = model.sample(["image"], words, [3], **model.options(steps=2))
        wanted = model.decode(pick(after, ["image"]))["image"]
    (made,) = model.generate("image", {"image": photo}, through="text", seeds=[3], steps=2)
    assert torch.equal(made["image"], wanted)
    states = []
    model.generate("image", {"image": photo, **PROMPT}, keep={"image": "global"}, steps=2,
                   callback=lambda step, z: states.append(z))  # fmt: skip
    assert torch.equal(states[-1]["image:global"], given["image:global"])
    assert not torch.equal(states[-1]["image"], given["image"])
    (text,) = model.generate("text", PROMPT, through="image", seeds=[3], steps=2)
    assert text.recipe["through"] == ["image"]


def test_previews_are_the_latents_of_every_step_decoded(model):
    seen = []

    def preview(step, latents):
        seen.append((step, model.decode({"image": latents["image"]})["image"]))

    (made,) = model.generate("image", PROMPT, steps=3, callback=preview)
    assert [step for step, _ in seen] == [1, 2, 3]
    assert torch.equal(seen[-1][1], made["image"])
    assert not torch.equal(seen[0][1], seen[1][1])


def test_a_pipeline_is_not_saved_but_converted(model, tmp_path):
    with pytest.raises(UsageError, match="unigen convert FOLDER out=NEW"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_an_exception_of_the_callback_ends_it(model):
    steps = []

    def stop(step, latents):
        steps.append(step)
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.generate("image", PROMPT, steps=5, callback=stop)
    assert steps == [1, 2]


def test_a_negative_prompt_stands_where_noise_would(model):
    """y(C) + (w - 1) (y(C) - y(negative)): with the prompt itself nothing is left of guidance."""
    with torch.no_grad():
        own, other = (model.encode({"text": [words]}) for words in ("a cab", "a sea"))

    def made(**options):
        *_, x = model.sample(["image"], own, [0], **{**model.options(steps=2), **options})
        return x["image"]

    plain = made(guidance=1.0)
    assert torch.allclose(made(guidance=5.0, negative=own), plain, atol=1e-3)
    assert not torch.allclose(made(guidance=5.0, negative=other), plain, atol=1e-3)
    assert not torch.allclose(made(guidance=5.0, negative=other), made(guidance=5.0), atol=1e-3)
    assert torch.equal(made(guidance={"text": 5.0}), made(guidance=5.0))
    with pytest.raises(UsageError, match=r"guidance\.image"):
        model.generate("image", PROMPT, guidance={"image": 2.0}, steps=2)


def test_what_lies_around_a_picture_is_made(model, photo):
    """Outpainting: the middle stays bit for bit, all around it is new."""
    states = []
    model.generate("image", {"image": photo, **PROMPT}, keep={"image": "0.25,0.25,0.75,0.75"},
                   steps=2, callback=lambda step, z: states.append(z["image"]))  # fmt: skip
    image = model.modality("image")
    kept = image.kept("0.25,0.25,0.75,0.75") > 0
    assert kept.sum() == image.tokens / 4
    with torch.no_grad():
        blank = image.blank(image.read(photo)[0], kept.float())
        clean = model.encode({"image": blank})["image"]
    assert torch.equal(states[-1][:, kept], clean[:, kept])
    assert not torch.isclose(states[-1][:, ~kept], clean[:, ~kept]).all(-1).any()


@torch.no_grad()
def test_a_picture_comes_back_from_its_noise(folder, photo):
    """By a network that is mild: one with large random weights is no contraction."""
    model = load(folder)
    for layer in model.denoiser.head_out.values():
        layer.weight.mul_(0.2)
        layer.bias.zero_()
    latents = model.encode({"image": model.modality("image").read(photo)[0]})
    words = model.encode({"text": [PROMPT["text"]]})
    noise = model.invert({"image": photo}, PROMPT, steps=50)
    least = model.flow.sigma(model.flow.times(50)[-2])  # the noise that the way begins with
    for own, comes_back in ((noise, True), ({}, False)):
        *_, x = model.sample(["image"], words, [0], noises=own, steps=50, sampler="euler")
        gaps = [(x[p] - z).square().mean().sqrt() for p, z in latents.items()]
        assert (max(gaps) < 1.2 * least) == comes_back


def test_two_pictures_have_one_between(model, photo, tmp_path):
    with PIL.Image.open(photo) as picture:
        picture.rotate(180).save(tmp_path / "other.png")
    pair = [photo, tmp_path / "other.png"]
    noise = model.invert({"image": pair}, {"text": "a cab"}, steps=4)
    assert noise["image"].shape == (2, *model.shape("image"))
    raw = torch.cat([model.modality("image").read(file)[0] for file in pair])
    same = model.invert({"image": raw}, {"text": ["a cab", "a cab"]}, steps=4)
    assert all(torch.equal(noise[p], same[p]) for p in same)
    ends = [{p: z[i : i + 1] for p, z in noise.items()} for i in (0, 1)]
    way = [slerp(*ends, share) for share in (0.0, 0.5, 1.0)]
    made = [model.generate("image", {"text": "a cab"}, noise=z, sampler="euler", steps=4,
                           guidance=1.0)[0]["image"] for z in way]  # fmt: skip
    assert not any(torch.equal(a, b) for a, b in ((made[0], made[1]), (made[1], made[2])))
    for a, b in zip((way[0], way[2]), ends, strict=True):
        assert all(torch.allclose(a[p], b[p], atol=1e-4) for p in a)


def test_the_network_is_asked_at_the_times_of_the_recipe(folder, monkeypatch):
    """The authors' even, fractional times; those of diffusers are whole and begin at 999."""
    asked = {}
    for recipe in ("original", "diffusers"):
        model, times = load(folder, recipe=recipe), []
        net = model.denoiser
        own = net._time
        monkeypatch.setattr(net, "_time", lambda t, own=own, times=times: times.append(t) or own(t))
        list(model.sample(["text"], {}, [0], **model.options(steps=50)))
        asked[recipe] = 1000 * torch.stack(times)[:, 0, 1]  # the clock of text
    assert torch.allclose(asked["original"][:3], torch.tensor([1000, 980.02, 960.04]))
    assert torch.allclose(asked["original"][-1], torch.tensor(20.98), atol=1e-2)
    steps = torch.tensor([999.0, 979, 959])
    assert torch.allclose(asked["diffusers"][:3], steps, atol=1e-3)
    assert torch.equal(asked["diffusers"], asked["diffusers"].round())


def test_a_snapshot_of_the_hub_s_cache_is_read_through_its_links(folder, model, tmp_path):
    blobs, snapshot = tmp_path / "models--a--b/blobs", tmp_path / "models--a--b/snapshots/0123"
    blobs.mkdir(parents=True)
    for number, file in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        link = snapshot / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        (blobs / f"{number:064x}").write_bytes(file.read_bytes())
        link.symlink_to(blobs / f"{number:064x}")
    assert load(snapshot).hash == model.hash
