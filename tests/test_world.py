"""The world: a scene is a function of (seed, index), seen and heard at the same moments."""

import dataclasses
from itertools import pairwise

import pytest
import torch

from unigen.data.world import World
from unigen.data.world import vocabulary as v
from unigen.data.world.captions import PATTERNS, describe, word_count
from unigen.data.world.render import _coverage, draw_frames
from unigen.data.world.scenes import held_out, paths, sample_scenes
from unigen.data.world.sound import sing
from unigen.errors import UsageError
from unigen.modalities.text import split as units

MANY = torch.arange(5000)


@pytest.fixture(scope="module")
def scenes():
    return sample_scenes(0, MANY, "train")


@pytest.fixture(scope="module")
def all_scenes():
    return sample_scenes(0, MANY, "all")


def same(a, b):
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


def made(**changes):
    """Return one plain scene: a red circle in the middle that stays still, with changes."""
    row = sample_scenes(0, torch.tensor([0]), two=0.0)
    codes = {"shape": "circle", "color": "red", "size": "medium", "motion": "still",
             "position": "middle center", **changes}  # fmt: skip
    new = {k: torch.tensor([[v.OBJECT_ATTRIBUTES[k].index(codes[k])] * 2])
           for k in v.OBJECT_ATTRIBUTES}  # fmt: skip
    return dataclasses.replace(row, **new, event=torch.tensor([1.0]).double())


@pytest.mark.parametrize("split", ["train", "held_out", "all"])
def test_a_scene_is_a_function_of_seed_and_index(split):
    whole = sample_scenes(3, torch.arange(300), split)
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    assert same(sample_scenes(3, shuffled, split), whole[shuffled])
    for i in (0, 17, 299):
        assert same(sample_scenes(3, torch.tensor([i]), split), whole[i : i + 1])
    assert not torch.equal(sample_scenes(4, torch.arange(300), split).shape, whole.shape)


def test_media_do_not_depend_on_the_batch():
    world, rows = World(), torch.tensor([5, 2, 9, 14])
    whole = world.batch(torch.arange(16))
    for some in (rows, rows.flip(0), rows[:1]):
        batch = world.batch(some)
        for part in ("image", "video", "audio"):
            assert torch.equal(batch[part], whole[part][some]), part
        assert batch["text"] == [whole["text"][i] for i in some]
        assert torch.equal(world.batch(some, ["audio"])["audio"], batch["audio"])


def test_no_index_gives_no_scenes():
    scenes = World().scenes(torch.arange(0))
    assert {len(getattr(scenes, f.name)) for f in dataclasses.fields(scenes)} == {0}


def test_training_never_sees_a_held_out_pair(scenes):
    assert not held_out(scenes).any()


def test_every_held_out_scene_has_a_held_out_pair():
    assert held_out(sample_scenes(0, MANY, "held_out")).all()


def test_held_out_is_what_the_vocabulary_says(all_scenes):
    pairs = {("color", *p) for p in v.HELD_OUT_COLORS} | {
        ("motion", *p) for p in v.HELD_OUT_MOTIONS
    }
    found = held_out(all_scenes).tolist()
    for i in range(400):
        mine = {
            (name, v.SHAPES[all_scenes.shape[i, j]],
             v.OBJECT_ATTRIBUTES[name][getattr(all_scenes, name)[i, j]])
            for j in range(all_scenes.count[i]) for name in ("color", "motion")
        }  # fmt: skip
        assert found[i] == bool(mine & pairs)


def test_every_value_and_every_held_out_pair_appears(scenes, all_scenes):
    for name, values in {**v.OBJECT_ATTRIBUTES, "background": v.BACKGROUNDS}.items():
        usual = {i for i, value in enumerate(values) if value != v.NOVEL.get(name)}
        assert set(getattr(scenes, name).flatten().tolist()) == usual, name
    apart = sample_scenes(0, torch.arange(1000), "held_out", two=0.0)
    for name, pairs in (("color", v.HELD_OUT_COLORS), ("motion", v.HELD_OUT_MOTIONS)):
        for shape, value in pairs:
            hit = apart.shape[:, 0] == v.SHAPES.index(shape)
            assert (
                hit & (getattr(apart, name)[:, 0] == v.OBJECT_ATTRIBUTES[name].index(value))
            ).any()
    low, high = v.EVENT_RANGE
    assert ((all_scenes.event >= low) & (all_scenes.event <= high)).all()


def test_novel_values_come_as_often_as_they_are_asked_for(scenes):
    some = sample_scenes(0, MANY, novel=0.3)
    for name, value in v.NOVEL.items():
        values = v.OBJECT_ATTRIBUTES[name]
        assert values.index(value) == len(values) - 1
        share = (getattr(some, name) == len(values) - 1).float().mean()
        assert share == pytest.approx(0.3, abs=0.03)
        assert (getattr(sample_scenes(0, MANY, novel=1.0), name) == len(values) - 1).all()
    same = (some.shape == scenes.shape) & (some.position == scenes.position)
    assert same.float().mean() > 0.8  # the rest of a scene stays what it is, unless it collides


def test_the_share_of_two_objects(scenes):
    assert (scenes.count == 2).float().mean() == pytest.approx(0.4, abs=0.03)
    assert (sample_scenes(0, MANY, two=0.0).count == 1).all()
    assert (sample_scenes(0, MANY, two=1.0).count == 2).all()


def test_the_first_object_is_farther_left(scenes):
    rows = scenes.count == 2
    centers, _ = paths(scenes[rows], torch.zeros(1))
    assert (centers[:, 0, 0, 0] < centers[:, 1, 0, 0]).all()


def test_objects_hardly_overlap():
    scenes = sample_scenes(1, torch.arange(200), "all", two=1.0)
    centers, radii = paths(scenes, World()._times())
    first, second = (_coverage(scenes.shape[:, i], centers[:, i], radii[:, i], 64) for i in (0, 1))
    both = torch.minimum(first, second).sum((2, 3))
    assert (both <= 0.2 * torch.minimum(first.sum((2, 3)), second.sum((2, 3)))).all()


def test_colors_are_far_from_every_background_and_from_each_other():
    colors, backgrounds = torch.tensor(v.COLOR_RGB), torch.tensor(v.BACKGROUND_RGB)
    assert (colors[:, None] - backgrounds).abs().sum(-1).min() >= 120
    assert min((a - b).abs().sum() for i, a in enumerate(colors) for b in colors[:i]) >= 100


def test_media_have_their_shapes_and_ranges():
    batch = World().batch(torch.arange(4))
    assert batch["image"].shape == (4, 3, 64, 64)
    assert batch["video"].shape == (4, 16, 3, 64, 64)
    assert batch["audio"].shape == (4, 32_000)
    assert len(batch["text"]) == 4
    for part in ("image", "video"):
        assert 0 <= batch[part].amin() < batch[part].amax() <= 1
    assert World().batch(torch.arange(64), ["audio"])["audio"].abs().amax() <= 1


def test_the_image_is_the_first_frame():
    batch = World(split="all").batch(torch.arange(64), ["image", "video"])
    assert torch.equal(batch["image"], batch["video"][:, 0])


def test_pixels_lie_where_the_scene_says():
    for position in v.POSITIONS:
        scene = made(position=position, size="small")
        frame = draw_frames(scene, torch.zeros(1))[0, 0]
        background = torch.tensor(v.BACKGROUND_RGB[scene.background[0]]) / 255
        mask = ((frame - background[:, None, None]).abs().sum(0) > 0.2).double()
        axis = (torch.arange(64) + 0.5) / 64
        center = torch.stack([(mask.sum(0) * axis).sum(), (mask.sum(1) * axis).sum()]) / mask.sum()
        expected, _ = paths(scene, torch.zeros(1))
        assert (center - expected[0, 0, 0]).abs().max() < 0.01


def test_a_flash_is_seen_when_its_thump_is_heard():
    scenes = sample_scenes(0, torch.arange(120), "all")
    index = (~scenes.bounces).nonzero()[:, 0]
    scenes = scenes[index]
    frames = draw_frames(scenes, World()._times())
    corner = frames[..., :2, :2].mean((2, 3, 4))
    assert torch.equal(corner.argmax(1), (scenes.event * 8).round().long())
    steady = corner.median(1, keepdim=True).values
    assert torch.equal((corner > steady + 0.1).sum(1), torch.ones(len(index)).long())
    assert (heard(index, scenes) - scenes.event).abs().max() < 1 / 16


def test_a_bounce_is_lowest_when_its_thump_is_heard():
    scenes = sample_scenes(0, torch.arange(120), "all")
    index = scenes.bounces.nonzero()[:, 0]
    scenes = scenes[index]
    who = (scenes.motion == v.MOTIONS.index("bouncing")) & scenes.present
    times = torch.linspace(0, v.SECONDS, 401)
    centers, _ = paths(scenes, times)
    for i in range(2):
        lowest = times[centers[:, i, :, 1].argmax(1)]
        assert ((lowest - scenes.event).abs() < 1 / 64)[who[:, i]].all()
    assert (heard(index, scenes) - scenes.event).abs().max() < 1 / 16
    frames = draw_frames(scenes, World()._times())[..., :2, :2].flatten(2)
    assert (frames == frames[:, :1]).all()  # and nothing flashes


def heard(index, scenes, rate=16_000):
    """Return when the thump begins, from the sound alone: the rise of what is below 200 Hz."""
    wave = sing(0, index, scenes, rate)
    spectrum = torch.fft.rfft(wave)
    spectrum[:, 2 * 200 :] = 0
    low = torch.fft.irfft(spectrum).unflatten(1, (200, -1)).abs().amax(-1)  # in 10 ms
    loud = low > 0.5 * low.amax(1, keepdim=True)
    return loud.int().argmax(1) * 0.01


def test_sizes_are_heard_at_least_6_decibels_apart():
    level = [sing(0, torch.tensor([0]), made(size=s))[:, :14_000].square().mean() for s in v.SIZES]
    decibels = [10 * torch.log10(x) for x in level]
    assert all(b - a >= 6 for a, b in pairwise(decibels))


def test_pitch_tells_the_color():
    for i, color in enumerate(v.COLORS):
        spectrum = torch.fft.rfft(sing(0, torch.tensor([0]), made(color=color))[0, :14_000]).abs()
        hertz = spectrum.argmax() * 16_000 / 14_000
        assert hertz == pytest.approx(v.pitch_hz(0, i), abs=2)


def test_captions_are_short_and_made_of_a_few_words(scenes):
    some = MANY[:1500]
    sentences = [s for full in (0, 1) for s in describe(0, some, scenes[some], bool(full))]
    assert max(word_count(s) for s in sentences) <= v.MAX_WORDS
    assert all(word_count(s) == len(units(s)) for s in sentences)
    vocabulary = {unit for s in sentences for unit in units(s)}
    assert len(vocabulary) <= 254
    assert sentences == [s.lower() for s in sentences]


def test_captions_vary(scenes):
    sentences = describe(0, MANY[:1500], scenes[MANY[:1500]])
    assert len(PATTERNS) >= 8
    openings = ("there is", "we see", "a scene with", "here", "look at", "on a", "against a",
                "over", "a ", "an ")  # fmt: skip
    assert all(any(s.startswith(o) for s in sentences) for o in openings)
    assert any(" that " in s for s in sentences)
    assert len(set(sentences)) > 1200


def test_full_captions_say_everything(scenes):
    for i, sentence in enumerate(describe(0, MANY[:300], scenes[MANY[:300]], full=True)):
        for j in range(scenes.count[i]):
            shape = v.SHAPES[scenes.shape[i, j]]
            assert v.COLORS[scenes.color[i, j]] in sentence
            assert any(w in sentence for w in v.SHAPE_WORDS[shape])
            assert any(w in sentence for w in v.SIZE_WORDS[v.SIZES[scenes.size[i, j]]])
            motion = v.MOTION_WORDS[v.MOTIONS[scenes.motion[i, j]]]
            assert any(w in sentence for forms in motion for w in forms)
        assert v.BACKGROUNDS[scenes.background[i]] in sentence


def test_an_unknown_split_is_an_error():
    with pytest.raises(UsageError, match=r"data\.split=test .*train, held_out, all"):
        World(split="test")


def test_training_steps_bring_new_scenes():
    world = World()
    seen = torch.cat([world.order(0, step, 5) for step in range(4)])
    assert torch.equal(seen, torch.arange(20))
