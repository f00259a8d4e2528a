"""A recipe is data from outside: it is replayed, or refused in one sentence."""

import json
from pathlib import Path

import pytest
from media_corpus_image import encoded, picture
from PIL import Image
from tiny import tiny_model

from unigen.cli import main

LINE = ["generate", "a red circle", "negative.text=a star", "guidance=2.0", "want=[audio]",
        "steps=1", "deterministic=true"]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with a tiny model, a picture, and a sound that was made from it."""
    path = tmp_path_factory.mktemp("made")
    tiny_model().save_pretrained(path / "tiny")
    (path / "a.png").write_bytes(encoded(Image.fromarray(picture()), "PNG"))
    places = [f"given.image={path / 'a.png'}", f"model={path / 'tiny'}", f"out={path}"]
    assert main([*LINE, *places]) == 0
    return path


@pytest.fixture
def sidecar(made, tmp_path, monkeypatch):
    """Return a copy of the JSON beside the sound, which lies there, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNIGEN_TRACEBACK", raising=False)
    for name in ("audio_0.wav", "audio_0.wav.json"):
        Path(name).write_bytes((made / name).read_bytes())
    return Path("audio_0.wav.json")


@pytest.fixture
def replay(made, capsys):
    """Return a function that replays files: exit code, lines on standard output, error text."""

    def run(*files):
        code = main(["replay", *map(str, files), f"model={made / 'tiny'}", "out=again"])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return run


def test_a_result_is_made_again_from_itself_and_from_its_sidecar(replay, sidecar):
    first = sidecar.with_suffix("")
    code, paths, err = replay(first, sidecar)
    assert (code, len(paths)) == (0, 2), err
    assert all(Path(path).read_bytes() == first.read_bytes() for path in paths)


def test_what_earlier_recipes_lack_is_as_it_was_then(replay, sidecar):
    recipe = json.loads(sidecar.read_text())
    for key in ("through", "mutual_guidance", "order", "noise", "joint", "notes"):
        recipe.pop(key, None)
    sidecar.write_text(json.dumps(recipe))
    assert replay(sidecar)[0] == 0


SPOILED = {
    "want": [5, None, {}, "image", [5], ["smell"], [], ["image", "image"]],
    "given": [[], 5, {"text": 5}, {"image": {"file": 5}}, {"image": []}, {"smell": "x"}],
    "negative": [7, {"text": [1]}, {"audio": "a star"}],
    "keep": [5, [], {"image": 0.5}, {"audio": "0:1"}],
    "through": [3, "text", [None], ["image"]],
    "steps": ["x", 2.5, True, None, 0, 10**9],
    "seed": ["x", 1.0, False, None, [0]],
    "guidance": ["x", None, [], True, {"text": "2"}, {"smell": 2.0}, float("1e999")],
    "mutual_guidance": ["x", [], True],
    "order": [3, "image", [None], ["smell"]],
    "sampler": [5, None, [], "ddpm", "diffusers.open", {"_target_": "os.system"}],
    "joint": [[], 1, "no"],
    "deterministic": [[], 0, None],
    "noise": [5, "x"],
    "model": [5, None, []],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in SPOILED.items() for value in values], ids=str
)
def test_a_malformed_recipe_is_one_sentence(replay, sidecar, key, value):
    text = json.dumps(json.loads(sidecar.read_text()) | {key: value})
    sidecar.write_text(text.replace("Infinity", "1e999"))  # which JSON allows
    before = {path.as_posix() for path in Path().rglob("*")}
    code, lines, err = replay(sidecar)
    assert (code, lines) == (3, []), err
    assert err.count("\n") == 1 and err.startswith(f"unigen: {sidecar} has a recipe "), err
    assert {path.as_posix() for path in Path().rglob("*")} == before


@pytest.mark.parametrize("key", ["model", "seed", "want", "given", "keep", "steps", "sampler"])
def test_a_recipe_that_lacks_something_names_it(replay, sidecar, key):
    recipe = json.loads(sidecar.read_text())
    recipe.pop(key)
    sidecar.write_text(json.dumps(recipe))
    code, _, err = replay(sidecar)
    assert code == 3 and f"a recipe without {key};" in err


def test_a_recipe_of_another_model_or_of_changed_files_is_told(replay, sidecar):
    recipe = json.loads(sidecar.read_text())
    recipe["given"]["image"]["file"] = "a.png"
    for change, said in (({"model": "another"}, "by model another"), ({"noise": ["image"]}, "own")):
        sidecar.write_text(json.dumps(recipe | change))
        code, _, err = replay(sidecar)
        assert code == (4 if "model" in change else 2) and said in err
    sidecar.write_text(json.dumps(recipe))
    code, _, err = replay(sidecar)
    assert code == 2 and "a.png does not exist any more" in err
    Path("a.png").write_bytes(encoded(Image.fromarray(255 - picture()), "PNG"))
    code, _, err = replay(sidecar)
    assert code == 2 and "a.png has changed since" in err
