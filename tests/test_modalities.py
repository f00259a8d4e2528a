"""Every modality encodes, decodes, places and keeps; none sees another's data."""

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from tiny import NAMES, raw_batch, tiny_model, words

from unigen import media
from unigen.data.world import World
from unigen.errors import UsageError
from unigen.modalities.audio import Audio
from unigen.modalities.image import Image
from unigen.modalities.text import END, UNKNOWN, Text
from unigen.modalities.video import Video

RAW = raw_batch(24)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def text():
    return Text(words())


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_latents_have_unit_variance_after_calibration(model, name):
    modality = tiny_model().modality(name)
    modality.calibrate(RAW[name])
    z = modality.encode(RAW[name])
    assert z.shape == (24, modality.tokens, modality.channels)
    assert torch.allclose(z.mean((0, 1)), torch.zeros(8), atol=1e-4)
    assert torch.allclose(z.std((0, 1)), torch.ones(8), atol=1e-4)
    assert torch.allclose(z * modality.std + modality.mean, modality.features(RAW[name]), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_decoding_gives_raw_media(model, name):
    modality = model.modality(name)
    made = modality.decode(modality.encode(RAW[name]))
    if name == "text":
        assert len(made) == 24
        assert all(isinstance(s, str) for s in made)
    else:
        assert made.shape == RAW[name].shape
        assert made.isfinite().all()
        assert -(name == "audio") <= made.min() <= made.max() <= 1


def test_patches_lose_nothing(model):
    image, audio, video = (model.modality(n) for n in ("image", "audio", "video"))
    assert torch.allclose(image._pixels(image._patches(RAW["image"])), RAW["image"], atol=1e-6)
    spectrum, stills = audio.front(RAW["audio"]), video.front(RAW["video"])
    assert torch.equal(audio._spectrum(audio._patches(spectrum)), spectrum)
    assert torch.equal(video._unfold(video._fold(stills)), stills)


def test_a_video_sees_each_frame_as_the_image_does(model):
    with torch.no_grad():
        stills = model.modality("video").front(RAW["video"])
        for i in (0, 3):
            frame = model.modality("image").encode(RAW["video"][:, i])
            assert torch.allclose(stills[:, i], frame, atol=1e-5)
    own = {n for n, _ in model.modality("video").named_parameters()}
    assert not any("still" in n for n in own)
    with pytest.raises(UsageError, match="'image'"):
        Video().attach({})


@pytest.mark.parametrize("change", [{"size": 96}, {"channels": 16}, {"merge": 1}])
def test_a_video_refuses_stills_that_are_not_its_frames(change):
    with pytest.raises(UsageError, match="set size, grid and channels of modalities.video"):
        Video().attach({"image": Image(**change)})
    Video(size=96, grid=6).attach({"image": Image(size=96)})


@pytest.mark.parametrize(("kind", "argument", "sentence"), [
    (Video, {"frames": 18}, "frames=18 is no multiple of span=4"),
    (Image, {"size": 72}, "size=72 is no multiple"),
    (Audio, {"hop": 256}, "125 windows of hop=256, no multiple of"),
])  # fmt: skip
def test_what_is_not_made_of_whole_tokens_is_refused(kind, argument, sentence):
    with pytest.raises(UsageError, match=sentence):
        kind(**argument)


def middles(change):
    """Return the middle of what changed along every axis, from 0 to 1."""
    change = (change.abs() > 1e-6).double()
    found = []
    for axis, length in enumerate(change.shape):
        weight = change.sum([i for i in range(change.ndim) if i != axis])
        found.append(float((weight * (torch.arange(length) + 0.5)).sum() / weight.sum() / length))
    return found


def test_a_token_is_where_its_position_says(model):
    """What changes with one token's patches lies around the position of that token."""
    image, audio, video = (model.modality(n) for n in ("image", "audio", "video"))
    pixels, spectrum = RAW["image"][:1], audio.front(RAW["audio"][:1])
    stills = torch.randn(1, 4, 4, 8)

    def change(modality, patches, back, token):
        fine = patches.shape[1] // modality.tokens
        marked = patches.clone()
        marked[:, token * fine : (token + 1) * fine] += 1
        return (back(marked) - back(patches))[0]

    for token, (_, row, column) in enumerate(image.positions().tolist()):
        moved = change(image, image._patches(pixels), image._pixels, token)
        assert middles(moved.sum(0)) == pytest.approx([row, column])
    for token, (second, _, _) in enumerate(audio.positions().tolist()):
        moved = change(audio, audio._patches(spectrum), audio._spectrum, token)
        assert middles(moved)[0] * audio.seconds == pytest.approx(second)
    for token, (second, row, column) in enumerate(video.positions().tolist()):
        moved = change(video, video._fold(stills), video._unfold, token)  # f p c
        time, y, x = middles(moved.sum(-1).unflatten(1, (2, 2)))
        assert (time * video.seconds, y, x) == pytest.approx((second, row, column))


@pytest.mark.parametrize("name", NAMES)
def test_positions_are_physical(model, name):
    modality = model.modality(name)
    positions = modality.positions()
    assert positions.shape == (modality.tokens, 3)
    assert len({tuple(p) for p in positions.tolist()}) == modality.tokens
    second, space = positions[:, 0], positions[:, 1:]
    if name in ("audio", "video"):
        assert ((second > 0) & (second < modality.seconds)).all()
        assert second.mean() == pytest.approx(modality.seconds / 2)
    else:
        assert (second == 0).all()
    if name == "text":
        assert (space[:, 1] == -1).all()
    else:
        assert ((space > 0) & (space < 1)).all()


def test_the_defaults_are_those_of_the_embedded_model():
    shapes = {m.name: (m.tokens, m.channels) for m in (Image(), Video(), Audio(), Text())}
    assert shapes == {"image": (16, 32), "video": (64, 32), "audio": (16, 32), "text": (32, 8)}


@pytest.mark.parametrize("name", NAMES)
def test_embedding_lies_on_the_sphere_of_unit_variance(model, name):
    modality = model.modality(name)
    e = modality.embed(torch.randn(5, modality.tokens, 8))
    assert torch.allclose(e.square().sum(1), torch.full((5,), 8.0), rtol=1e-4)


@pytest.mark.parametrize("name", ["image", "video", "audio"])
def test_the_codec_loss_comes_from_its_generator_and_reaches_its_weights(model, name):
    modality = model.modality(name)
    raw = RAW[name][:4]
    front = modality.front(raw)
    a, b, c = (modality.codec_loss(front, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert a == b != c
    a.backward()
    moved = {n for n, p in modality.named_parameters() if p.grad is not None}
    still = {n for n, _ in modality.named_parameters()} - moved
    modality.zero_grad()
    assert all(n.startswith("tower.") for n in still), still


def test_an_encoder_never_sees_another_modality(model):
    with torch.no_grad():
        together = model.encode(RAW)
        for name in NAMES:
            alone = model.encode({name: RAW[name]})
            assert set(alone) == {name, f"{name}:global"}
            assert all(torch.equal(alone[p], together[p]) for p in alone)


# ---- regions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "region", "seconds"),
    [
        ("audio", "0:1", [0.25, 0.75]),
        ("audio", ":0.5", [0.25]),
        ("audio", "0.9:", [1.25, 1.75]),
        ("video", "0:1", [0.5]),
        ("video", "1:", [1.5]),
        ("video", "0.5:2", [1.5]),  # whole tokens only
    ],
)
def test_a_stretch_keeps_the_tokens_inside(model, name, region, seconds):
    modality = model.modality(name)
    kept = modality.kept(region)
    assert set(kept.tolist()) <= {0.0, 1.0}
    assert modality.positions()[kept > 0, 0].unique().tolist() == pytest.approx(seconds)


def test_a_box_keeps_the_tokens_inside(model):
    assert model.modality("image").kept("0,0,0.5,1").tolist() == [1, 0, 1, 0]
    assert model.modality("image").kept("[0, 0, 1, 0.5]").tolist() == [1, 1, 0, 0]
    assert model.modality("video").kept("0.5,0.5,1,1").tolist() == [0, 0, 0, 1] * 2


def test_a_mask_keeps_what_is_white(model, tmp_path):
    pixels = np.zeros((40, 40), np.uint8)
    pixels[20:, :20] = 255
    Picture.fromarray(pixels).save(tmp_path / "mask.png")
    assert model.modality("image").kept(str(tmp_path / "mask.png")).tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("name", "region", "words"),
    [
        ("audio", "1:0", "no stretch"),
        ("audio", "a:b", "no stretch"),
        ("audio", "nan:1", "no stretch"),
        ("audio", "1", "no stretch"),
        ("audio", "0:0.1", "keeps nothing"),
        ("video", "5:6", "keeps nothing"),
        ("image", "0.5,0,0.5,1", "no box"),
        ("image", "0,0,1", "no box"),
        ("image", "0,0,nan,1", "no box"),
        ("image", "0.3,0.3,0.4,0.4", "no token"),
        ("image", "missing.png", "missing.png"),
        ("text", "0:1", "no regions"),
    ],
)
def test_a_region_that_keeps_nothing_is_an_error(model, name, region, words):
    with pytest.raises(UsageError, match=words):
        model.modality(name).kept(region)


@pytest.mark.parametrize(
    ("name", "region"),
    [
        ("audio", "0:1"),
        ("audio", "0.5:1.5"),
        ("video", "0:1"),
        ("video", "1:2"),
        ("video", "0,0,0.5,1"),
        ("image", "0,0,0.5,1"),
        ("image", "0,0.5,1,1"),
    ],
)
@torch.no_grad()
def test_what_is_not_kept_tells_nothing(model, name, region):
    modality, raw = model.modality(name), RAW[name][:2]
    kept = modality.kept(region)
    inside = pixels_of(modality, kept)
    other = torch.where(inside, raw, torch.rand_like(raw))
    blanked = modality.blank(raw, kept)
    assert blanked.shape == raw.shape
    assert torch.equal(blanked[inside.expand_as(raw)], raw[inside.expand_as(raw)])
    assert torch.equal(modality.encode(blanked), modality.encode(modality.blank(other, kept)))
    assert not torch.equal(modality.encode(raw), modality.encode(other))


def pixels_of(modality, kept):
    """Return which raw values the kept tokens stand for."""
    if modality.name == "audio":
        return kept.repeat_interleave(int(modality.seconds * modality.rate) // modality.tokens) > 0
    rows = modality.grid[0] if modality.name == "image" else modality.grid
    cells = kept.reshape(-1, 1, rows, rows)
    side = modality.size // rows
    cells = cells.repeat_interleave(side, 2).repeat_interleave(side, 3) > 0
    return cells.repeat_interleave(modality.span, 0)[None] if modality.name == "video" else cells


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16", "CMYK", "F"])
def test_a_pil_image_is_taken_as_its_file_is_read(tmp_path, mode):
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    given = Picture.fromarray(noise)
    given = given.convert("I").convert(mode) if mode == "I;16" else given.convert(mode)
    path = tmp_path / "a.png"
    (given.convert("RGB") if mode in ("CMYK", "F") else given).save(path)
    expected, notes = Image().read(path)
    pixels, said = Image().take(given)
    assert torch.equal(pixels, expected) and said == notes
    assert pixels.shape == (1, 3, 64, 64)


# ---- text ---------------------------------------------------------------------------------------


def test_the_captions_of_the_world_come_back():
    sentences = World(split="all").batch(torch.arange(800), ["text"])["text"]
    text = Text()
    text.prepare(sentences)
    assert text.detokenize(text.tokenize(sentences)) == sentences
    known = list(text.words)
    assert known == sorted(known)
    text.prepare(["something else", "a pink circle"])
    assert text.words == [*known, "else", "pink", "something"]
    assert text.detokenize(text.tokenize(sentences)) == sentences


def test_a_vocabulary_that_was_given_learns_no_word():
    text = Text(["red", "circle"])
    text.prepare(["a pink circle"])
    assert text.words == ["red", "circle"]
    text.adopt({"words": ["circle", "blue"]})
    assert text.words == ["circle", "blue", "red"]


def test_ids_end_and_are_unknown(text):
    ids = text.tokenize(["A Red circle", "xyzzy red", ""])
    assert ids.shape == (3, 32)
    assert (ids[0, 3:] == END).all()
    assert ids[1, 0] == UNKNOWN
    assert (ids[2] == END).all()
    assert text.detokenize(ids) == ["a red circle", "red", ""]


def test_remarks_name_unknown_words_and_what_is_cut(text):
    assert text.check(["a red circle"]) == []
    (unknown,) = text.check(["a plaid Xyzzy circle plaid"])
    assert "'plaid' 'xyzzy'" in unknown
    (cut,) = text.check([" ".join(["red"] * 32 + ["circle", "a"])])
    assert "32" in cut
    assert "'circle'" in cut
    assert text.take("a plaid circle") == (["a plaid circle"], text.check(["a plaid circle"]))


@pytest.mark.parametrize(
    "prompt", ["", "a, 'b' [c]=$d\n{e}", "\u0645\u0631\u062d\u0628\u0627", "\U0001f600" * 50]
)
@torch.no_grad()
def test_any_prompt_can_be_encoded(text, prompt):
    raw, _ = text.take(prompt)
    assert text.encode(raw).isfinite().all()


def test_there_is_nothing_to_learn_in_the_codec_of_text(text):
    with pytest.raises(UsageError, match="nothing to learn"):
        text.codec_loss(["a red circle"], None)


@torch.no_grad()
def test_sentences_come_back_from_noisy_latents(text):
    sentences = World().batch(torch.arange(200), ["text"])["text"]
    text = Text(text.words)
    text.calibrate(sentences)
    z = text.encode(sentences)
    assert text.decode(z) == sentences
    noisy = text.decode(z + 0.05 * torch.randn(z.shape, generator=torch.Generator().manual_seed(0)))
    assert noisy == sentences


def test_too_many_words_are_an_error():
    with pytest.raises(UsageError, match=r"9 words.*capacity=10"):
        Text([f"w{i}" for i in range(9)], capacity=10)


# ---- audio --------------------------------------------------------------------------------------


def test_the_spectrum_knows_silence_and_full_scale():
    audio = Audio(depth=(1, 1), width=(32, 32))
    t = torch.arange(32_000) / 16_000
    tone = (2 * torch.pi * 1000 * t).sin()[None]
    assert (audio.front(torch.zeros(1, 32_000)) == 0).all()
    assert audio.front(tone).shape == (1, 128, 513)
    assert audio.front(tone)[0, 64].argmax() == 64  # 1000 Hz in bins of 15.625 Hz
    assert 1.9 < audio.front(tone).max() < 2.3


def test_a_wave_has_the_spectrum_it_was_made_from():
    audio = Audio(depth=(1, 1), width=(32, 32))
    t = torch.arange(32_000) / 16_000
    tones = [(2 * torch.pi * f * t).sin() * a for f, a in ((300, 0.3), (720.5, 0.1), (3200, 0.05))]
    wave = torch.stack([*tones, sum(tones)])
    spectrum = audio.front(wave)
    again = audio.front(audio.wave(spectrum))
    inner = slice(4, -4)  # the edges see half a window
    loud = spectrum[:, inner] > 1.0
    assert ((again - spectrum)[:, inner][loud]).abs().mean() < 0.05  # a factor of 1.2
    drift = again[:3, inner].argmax(2) - spectrum[:3, inner].argmax(2)
    assert drift.abs().max() <= 1  # of one bin, for a single tone


@pytest.mark.parametrize(("loudest", "said"), [(0.0, True), (5e-4, True), (0.01, False)])
def test_a_silent_sound_is_read_and_said_to_be_silent(tmp_path, loudest, said):
    tone = loudest * np.sin(np.arange(32_000) * 0.3)
    path = media.write_audio(tmp_path / "sound.wav", tone, 16_000, {})
    wave, notes = Audio(depth=(1, 1), width=(32, 32)).read(path)
    assert wave.shape == (1, 32_000)
    assert [note.startswith("silent") for note in notes] == [True] * said
