"""From a call to results: seeds, bytes, recipes, and one sentence for what is wrong."""

import copy
import json

import numpy as np
import pytest
import torch
from tiny import raw_batch, tiny_model

from unigen.errors import MediaError, ResourceError, UsageError
from unigen.generation import _checked
from unigen.sampling import passed_on
from unigen.tokens import noise

RAW = raw_batch(3)
TEXT = {"text": "a red circle"}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def same(a, b):
    assert a.raw.keys() == b.raw.keys()
    return all(torch.equal(a[p], b[p]) if p != "text" else a[p] == b[p] for p in a.raw)


def test_one_result_a_seed_in_the_form_that_people_use(model):
    results = model.generate(["image", "video", "audio", "text"], seeds=[4, 7])
    assert [r.recipe["seed"] for r in results] == [4, 7]
    for r in results:
        assert r.image.size == (16, 16)
        assert (r.video.dtype, r.video.shape) == (np.uint8, (4, 16, 16, 3))
        assert (r.audio.dtype, r.audio.shape) == (np.float32, (16_000,))
        assert isinstance(r.text, str)
        assert set(r.raw) == {"image", "video", "audio", "text"}
        json.dumps(r.recipe)
    with pytest.raises(AttributeError, match="no 'sound'; it has"):
        _ = results[0].sound
    assert copy.copy(results[0]).text == results[0].text
    assert set(model.generate("image", TEXT)[0].raw) == {"image"}


def test_deterministic_bytes_do_not_depend_on_batch_or_order(model):
    def make(seeds):
        return model.generate(["image", "audio", "video"], TEXT, seeds=seeds, deterministic=True)

    five = make([0, 1, 2, 3, 4])
    for seeds in ([3], [4, 0, 2], [4, 3, 2, 1, 0]):
        assert all(same(r, five[s]) for r, s in zip(make(seeds), seeds, strict=True))
    assert not same(five[0], five[1])


def test_batches_agree_within_one_gray_level(model):
    def make(seeds):
        return model.generate(["image", "audio", "video"], TEXT, seeds=seeds)

    for r, s in zip(make([0, 1, 2, 3, 4]), range(5), strict=True):
        (alone,) = make([s])
        for part in r.raw:
            assert (r[part] - alone[part]).abs().max() <= 1 / 255


@pytest.mark.parametrize("deterministic", [False, True])
def test_each_seed_has_its_own_input(model, deterministic):
    raw = {"audio": RAW["audio"], "text": RAW["text"]}
    many = model.generate("image", raw, seeds=[5, 5, 5], deterministic=deterministic)
    for i in range(3):
        one = {"audio": RAW["audio"][i : i + 1], "text": RAW["text"][i]}
        (alone,) = model.generate("image", one, seeds=[5])
        assert torch.allclose(alone["image"], many[i]["image"], atol=1e-4)
        assert many[i].recipe["given"] == alone.recipe["given"]
    assert len({r.recipe["given"]["audio"]["sha256"] for r in many}) == 3


def test_one_input_serves_every_seed(model):
    a, b = model.generate("image", {"audio": RAW["audio"][:1]}, seeds=[1, 2])
    assert a.recipe["given"] == b.recipe["given"]
    assert not same(a, b)


def test_given_media_stay_as_they_are(model):
    given = {"audio": RAW["audio"][:1].clone(), "video": RAW["video"][:1].clone()}
    model.generate(["video"], given, keep={"video": "0:1"})
    assert torch.equal(given["audio"], RAW["audio"][:1])
    assert torch.equal(given["video"], RAW["video"][:1])


def test_what_is_not_kept_does_not_matter(model):
    video = RAW["video"][:1]
    other = torch.cat([video[:, :2], torch.rand_like(video[:, 2:])], 1)
    made = [model.generate(["video", "audio"], {"video": v}, keep={"video": "0:1"})[0]
            for v in (video, other, video.flip(0) * 0.5)]  # fmt: skip
    assert same(made[0], made[1])
    assert not same(made[0], made[2])
    assert made[0].recipe["keep"] == {"video": "0:1"}


def test_noise_of_ones_own(model):
    own = {"image": noise("image", [9], model.shape("image"))}
    a, b = (model.generate("image", seeds=[s], noise={**own, "image:global": noise(
        "image:global", [9], (1, 8))})[0] for s in (0, 9))  # fmt: skip
    assert same(a, b)
    assert same(b, model.generate("image", seeds=[9])[0])
    assert a.recipe["noise"] == ["image", "image:global"]
    assert model.generate("image")[0].recipe["noise"] == []


def test_what_is_made_together_can_be_guided_by_each_other(model):
    def made(**options):
        return model.generate(["image", "audio"], seeds=[3], steps=2, **options)[0]

    assert same(made(), made(mutual_guidance=1.0))
    guided = made(mutual_guidance=4.0)
    assert not same(made(), guided)
    assert guided.recipe["mutual_guidance"] == 4.0


def test_a_callback_sees_every_step_and_can_cancel(model):
    seen = []
    model.generate("image", steps=4, callback=lambda n, x: seen.append((n, set(x))))
    assert seen == [(n, {"image", "image:global"}) for n in (1, 2, 3, 4)]

    class Cancel(Exception):
        pass

    def stop(number, latents):
        seen.append(number)
        if number == 2:
            raise Cancel

    seen.clear()
    with pytest.raises(Cancel):
        model.generate("image", steps=4, callback=stop)
    assert seen == [1, 2]


def test_a_recipe_makes_the_result_again(model):
    (first,) = model.generate(["image", "audio"], TEXT, seeds=[11], steps=2, sampler="heun",
                              guidance={"text": 2.0}, joint=False, deterministic=True)  # fmt: skip
    r = json.loads(json.dumps(first.recipe))
    assert r["model"] == "unsaved"
    again = model.generate(r["want"], r["given"], seeds=[r["seed"]], **{
        k: r[k] for k in ("keep", "steps", "guidance", "sampler", "joint", "deterministic")
    })  # fmt: skip
    assert same(first, again[0])


def test_what_is_negative_is_heeded_and_in_the_recipe(model):
    def made(**options):
        return model.generate(["image"], {"text": ["a red ring"]}, steps=2, **options)[0]

    plain, away = made(guidance=3.0), made(guidance=3.0, negative={"text": "a blue star"})
    assert not torch.equal(plain["image"], away["image"])
    assert away.recipe["negative"] == {"text": "a blue star"}
    assert plain.recipe["negative"] == {}
    itself = made(guidance=3.0, negative={"text": "a red ring"})
    assert torch.allclose(itself["image"], made(guidance=1.0)["image"], atol=1e-5)


def test_remarks_on_the_input_are_in_the_recipe(model):
    (result,) = model.generate("image", {"text": "a plaid circle"})
    assert result.recipe["notes"] == ["text: words the model does not know: 'plaid'"]


def test_long_words_are_cut_in_the_remarks(model):
    (result,) = model.generate("image", {"text": "b" * 40 + " " + "a" * 4000 + " red" * 40})
    known, left = "a" * 40, "text: cut after 32 words, 10 left out from 'red' on"
    assert result.recipe["notes"] == [
        f"text: words the model does not know: '{'b' * 40}' '{known}'...", left,
    ]  # fmt: skip
    (result,) = model.generate("image", {"text": "red " * 32 + "a" * 4000})
    assert result.recipe["notes"] == [f"text: cut after 32 words, 1 left out from '{known}'... on"]


def test_a_result_takes_the_next_number_that_is_free(model, tmp_path, monkeypatch):
    (result,) = model.generate(["image", "text"])
    (tmp_path / "image_0.png.json").write_text("a sidecar alone")
    (tmp_path / "text_1.txt").symlink_to(tmp_path / "nowhere")
    image = model.modality("image")
    own = image.write

    def write(raw, path, recipe, track=None):
        own(raw, path, recipe, track)
        if path.name == "image_2.png":  # now another writer takes the number of the sentence
            (tmp_path / "text_2.txt").write_text("theirs")

    monkeypatch.setattr(image, "write", write)
    before = {path.name for path in tmp_path.iterdir()}
    assert [path.name for path in result.save(tmp_path)] == ["image_3.png", "text_3.txt"]
    made = {"image_3.png", "image_3.png.json", "text_3.txt", "text_3.txt.json", "text_2.txt"}
    assert {path.name for path in tmp_path.iterdir()} == before | made
    assert (tmp_path / "text_2.txt").read_text() == "theirs"
    assert (tmp_path / "image_0.png.json").read_text() == "a sidecar alone"
    assert not (tmp_path / "nowhere").exists()


def test_results_are_files(model, tmp_path):
    (result,) = model.generate(["image", "video", "audio", "text"])
    names = [{p.name for p in result.save(tmp_path)} for _ in range(2)]
    assert names == [{"image_0.png", "video_0.mp4", "text_0.txt"},
                     {"image_1.png", "video_1.mp4", "text_1.txt"}]  # fmt: skip
    picture, _ = model.modality("image").read(tmp_path / "image_0.png")
    assert (picture - result["image"]).abs().max() <= 0.5 / 255 + 1e-6
    assert (tmp_path / "text_0.txt").read_text(encoding="utf-8").strip() == result.text.strip()
    (sound,) = model.generate("audio")
    assert [p.name for p in sound.save(tmp_path)] == ["audio_0.wav"]


def test_a_saved_result_can_be_given(model, tmp_path):
    (result,) = model.generate("image", seeds=[2])
    (path,) = result.save(tmp_path)
    for given in (path, str(path)):
        (made,) = model.generate("text", {"image": given})
        assert made.recipe["given"]["image"]["file"] == str(path)


def test_through_a_part_is_two_calls_without_decoding_in_between(model):
    """Latents of the middle part stand in the place of what was given."""
    picture = RAW["image"][:1]
    (made,) = model.generate("image", {"image": picture}, through="video", seeds=[3])
    with torch.no_grad():
        *_, between = model.sample(["video"], model.encode({"image": picture}), [3],
                                   **model.options())  # fmt: skip
        between = passed_on(model, between)
        *_, after = model.sample(["image"], between, [3], **model.options())
        assert torch.equal(made["image"], model.decode(after)["image"])
    assert made.recipe["through"] == ["video"]
    (other,) = model.generate("image", {"image": RAW["image"][1:2]}, through="video", seeds=[3])
    assert not torch.equal(made["image"], other["image"])


def test_a_point_of_the_shared_space_stays_and_tells_all_that_is_told(model):
    picture, states = RAW["image"][:1], []
    model.generate("image", {"image": picture}, keep={"image": "global"},
                   callback=lambda step, z: states.append(z))  # fmt: skip
    given, options = model.encode({"image": picture}), model.options()

    def made(**other):
        keep = {"image:global": torch.ones(1)}
        *_, x = model.sample(["image"], {**given, **other}, [0], keep=keep, **options)
        return x["image"]

    assert torch.equal(states[-1]["image:global"], given["image:global"])
    assert torch.equal(made(), states[-1]["image"])
    assert torch.equal(made(), made(image=given["image"] + 1))  # only the point is looked at
    assert not torch.equal(made(), made(**{"image:global": -given["image:global"]}))


@pytest.mark.parametrize(
    ("want", "given", "options", "words"),
    [
        (["imge"], {}, {}, "'imge'; did you mean 'image'?"),
        (["image"], {"txt": "a"}, {}, "'txt'; did you mean 'text'?"),
        (["image:global"], {}, {}, "'image:global'"),
        (["image"], {"text": "a"}, {"keep": {"vidoe": "0:1"}}, "did you mean 'video'?"),
        (["smell"], {}, {}, "choose from"),
        ([], {}, {}, "want is empty"),
        (["image", "image"], {}, {}, "twice"),
        (["text"], {"text": "a"}, {}, "both wanted and given"),
        (["image"], {}, {"keep": {"image": "0,0,1,1"}}, "in want and in given"),
        (["text"], {"image": RAW["image"][:1]}, {"keep": {"image": "0,0,1,1"}}, "in want and in"),
        (["image"], {"image": RAW["image"][:1]}, {"keep": {"image": "0,0"}}, "no box"),
        (["text"], {"text": "a"}, {"keep": {"text": "0:1"}}, "no regions"),
        (["image"], TEXT, {"through": ["vidoe"]}, "did you mean 'video'?"),
        (["image"], {}, {"through": ["text"]}, "through=['text'] needs something given"),
        (["image"], TEXT, {"through": ["text"]}, "text neither given nor wanted"),
        (["image"], TEXT, {"through": ["image"]}, "image neither given nor wanted"),
        (["image"], {}, {"steps": 0}, "steps=0"),
        (["image"], {}, {"steps": 10**9}, "steps=1000000000"),
        (["image"], {}, {"steps": True}, "steps=True"),
        (["image"], {}, {"noise": {"image": torch.full((1, 4, 8), torch.nan)}}, "finite"),
        (["image"], {}, {"seeds": []}, "no seeds"),
        (["image"], {}, {"seeds": [True]}, "seed True"),
        (["image"], {}, {"sampler": "ddpm"}, "sampler=ddpm"),
        (["image"], TEXT, {"guidance": {"audio": 2.0}}, "guidance.audio"),
        (["image"], TEXT, {"guidance": float("nan")}, "guidance=nan"),
        (["image"], {"text": ["a", "b"]}, {"seeds": [1, 2, 3]}, "2 samples for 3 seeds"),
        (["image"], {"audio": []}, {}, "given.audio is empty"),
        (["image"], TEXT, {"negative": {"image": "a.png"}}, "negative.image needs image"),
        (["image"], TEXT, {"negative": {"txt": "a"}}, "did you mean 'text'"),
        (["image"], TEXT, {"negative": {"text": "a"}, "guidance": 1.0}, "negative has no effect"),
        (["image"], TEXT, {"negative": {"text": "a"}, "guidance": {"text": 1.0}}, "no effect"),
        (["image"], {}, {"noise": {"imgae": torch.zeros(1, 4, 8)}}, "noise.imgae is unknown"),
        (
            ["image"],
            {},
            {"noise": {"image": torch.zeros(1, 2, 8)}},
            "noise.image is of shape (1,",
        ),
        (["text"], {"image": "missing.png"}, {}, "missing.png"),
        (["text"], {"image": torch.zeros(1, 3, 9, 9)}, {}, r"float tensor of shape [b, 3, 16, 16]"),
        (["text"], {"image": torch.zeros(1, 3, 16, 16).int()}, {}, "torch.int32"),
        (["text"], {"audio": torch.full((1, 16_000), torch.nan)}, {}, "not finite"),
        (["text"], {"video": object()}, {}, "given.video is of type object"),
        (["image"], {"text": 3}, {}, "given.text is of type int"),
    ],
)
def test_a_wrong_call_gets_one_sentence_and_exit_code_2(model, want, given, options, words):
    with pytest.raises(UsageError) as caught:
        model.generate(want, given, **options)
    assert caught.value.exit_code == 2
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 2.5},
        {"guidance": "high"},
        {"guidance": {"text": None}},
        {"mutual_guidance": "high"},
    ],
)
def test_a_wrong_option_names_itself(model, wrong):
    options = {**model.options(), **wrong}  # as a configuration may hold them
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}="):
        _checked(model, ["image"], TEXT, [0], {}, [], options, {}, [])


def test_latents_that_are_no_numbers_any_more_are_an_error(model):
    with pytest.raises(ResourceError, match=r"diverged: the latents of image hold NaN or Inf"):
        model.generate("image", TEXT, guidance=1e38, steps=3)


def test_a_file_that_is_no_picture_is_exit_code_3(model, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(MediaError):
        model.generate("text", {"image": tmp_path / "a.png"})
