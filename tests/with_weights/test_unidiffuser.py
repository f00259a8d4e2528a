"""The published UniDiffuser, for whoever has its weights: against diffusers, and known answers.

    UNIGEN_UNIDIFFUSER=path/to/unidiffuser-v1 pytest tests/with_weights
    UNIGEN_UNIDIFFUSER=unidiffuser-v1:unidiffuser-v0 UNIGEN_ASTRONAUT=photo.jpg pytest ...

The folders are those of diffusers' pipeline, as safetensors (`unigen convert` makes them), both
versions or one. Known answers are those that diffusers tested version 1 with: three steps, guidance
8, seed 0, to 0.1. The photo is the one of those tests, `unidiffuser_example_image.jpg`.
"""

import copy
import os
from pathlib import Path

import pytest
import torch
from einops import rearrange

import unigen

FOLDERS = os.environ.get("UNIGEN_UNIDIFFUSER", "").split(os.pathsep)
PHOTO = os.environ.get("UNIGEN_ASTRONAUT", "")
pytestmark = [
    pytest.mark.skipif(FOLDERS == [""], reason="UNIGEN_UNIDIFFUSER names no folder of weights"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
#: The last 3 x 3 blue values of pictures made with three steps.
ELEPHANT = [0.0242, 0.0103, 0.0022, 0.0129, 0.0, 0.0090, 0.0376, 0.0508, 0.0005]
LIVING_ROOM = [0.2402, 0.2375, 0.2285, 0.2378, 0.2407, 0.2263, 0.2354, 0.2307, 0.2520]


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: Path(folder).name)
def folder(request):
    """Return the folder of a version."""
    return Path(request.param)


@pytest.fixture(scope="module")
def model(folder):
    """Return the model, sampled as diffusers does."""
    return unigen.load(folder, recipe="diffusers")


@pytest.fixture
def first(model):
    """Return the model if it is version 1, of which answers are known."""
    if model.denoiser.kind is None:
        pytest.skip("answers are known of version 1 only")
    return model


@pytest.fixture(scope="module")
def noise(model):
    """Return the noise of those tests: seed 0; sentences, latents, CLIP's point in this order."""
    g = torch.Generator().manual_seed(0)
    (tokens, _), (_, width) = model.shape("text"), model.shape("image:global")
    words = model.modality("text").encoder.config.hidden_size
    grid = 2 * model.modality("image").grid[0]
    text = torch.randn(1, tokens, words, generator=g)
    z = torch.randn(1, model.modality("image").channels // 4, grid, grid, generator=g)
    point = torch.randn(1, 1, width, generator=g)
    with torch.no_grad():
        text = model.modality("text").decoder.encode(text)
    image = rearrange(z, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)
    return {"image": image, "image:global": point, "text": text}


def corner(result):
    """Return the last 3 x 3 blue values of a picture."""
    return result["image"][0, 2, -3:, -3:].flatten()


def test_an_elephant_under_the_sea(first, noise):
    given = {"text": "an elephant under the sea"}
    (made,) = first.generate(["image"], given, steps=3, guidance=8.0, noise=noise)
    assert made["image"].shape == (1, 3, 512, 512)
    assert (corner(made) - torch.tensor(ELEPHANT)).abs().max() < 0.1


@pytest.mark.skipif(not PHOTO, reason="UNIGEN_ASTRONAUT names no photo")
def test_an_astronaut(first, noise):
    (made,) = first.generate(["text"], {"image": PHOTO}, steps=3, guidance=8.0, noise=noise)
    assert made.text.strip().startswith("An astronaut")


def test_a_picture_and_its_caption_from_nothing(first, noise):
    (made,) = first.generate(["image", "text"], steps=3, noise=noise)
    assert (corner(made) - torch.tensor(LIVING_ROOM)).abs().max() < 0.1
    assert made.text.strip().startswith("a living room")


def test_a_prompt_comes_back_from_its_latents(model):
    text = model.modality("text")
    with torch.no_grad():
        (said,) = text.decode(text.encode(["a photo of a cat on a sofa"]))
    assert "cat" in said


@pytest.mark.parametrize("t", [0, 1, 37, 500, 999, 1000])
def test_the_denoiser_is_that_of_diffusers(model, folder, noise, t):
    """In fp32, to 1e-5 of the largest value: products are summed in another order."""
    from diffusers import UniDiffuserModel

    net = UniDiffuserModel.from_pretrained(folder, subfolder="unet").eval()
    grid = model.modality("image").grid[0]
    z = rearrange(noise["image"], "b (h w) (c p q) -> b c (h p) (w q)", h=grid, p=2, q=2)
    with torch.no_grad():
        wanted = net(z, noise["image:global"], noise["text"], t, t)
        clocks = {part: torch.full(x.shape[:2], t / 1000) for part, x in noise.items()}
        made = model.denoiser(noise, clocks)
        half = copy.deepcopy(model.denoiser).bfloat16()(noise, clocks)
    theirs = rearrange(wanted[0], "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)
    pairs = ((made["image"], theirs), (made["image:global"], wanted[1]), (made["text"], wanted[2]))
    for ours, other in pairs:
        assert (ours - other).abs().max() <= 1e-5 * other.abs().max()
    for part, low in half.items():
        assert (low - made[part]).abs().max() <= 0.02 * made[part].abs().max()
