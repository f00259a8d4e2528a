"""The commands generate, caption and embed: what they leave, what they call it, what they note."""

import json
from pathlib import Path

import numpy as np
import pytest
from full_disk import full_disk
from media_corpus_audio import sound
from media_corpus_image import encoded, picture
from media_corpus_video import frames, video
from PIL import Image
from tiny import tiny_model

from unigen import media
from unigen.cli import main

PNG = encoded(Image.fromarray(picture()), "PNG")
LONGEST = "\N{MATHEMATICAL SCRIPT CAPITAL A}" * 4096  # 12 bytes of JSON a character


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of a tiny model."""
    path = tmp_path_factory.mktemp("model") / "tiny"
    tiny_model().save_pretrained(path)
    return path


@pytest.fixture
def unigen(folder, tmp_path, monkeypatch, capsys):
    """Return a function that runs a command: exit code, lines on standard output, error text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNIGEN_TRACEBACK", raising=False)

    def run(*words):
        code = main([*map(str, words), f"model={folder}"])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return run


def here() -> set[str]:
    """Return all that lies in the working folder."""
    return {path.as_posix() for path in Path().rglob("*")}


@pytest.mark.parametrize("out", [[], ["out=one/two"]], ids=["default", "named"])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("generate|a star|want=[]", 2),
        ("generate|a star|want=[imag]", 2),
        ("generate|a star|steps=-1", 2),
        ("generate|a star|n=0", 2),
        ("generate|given.image=none.png|want=[text]", 2),
        ("generate|given.image=text.png|want=[text]", 3),
        ("embed|none.png", 2),
        ("embed|text.png", 3),
        ("caption|text.png", 3),
        ("replay|text.png", 3),
    ],
)
def test_a_call_that_fails_leaves_no_folder(unigen, words, code, out):
    Path("text.png").write_text("no picture at all")
    before = here()
    ended, lines, err = unigen(*words.split("|"), *out)
    assert (ended, lines) == (code, []) and err.count("unigen: ") == 1, err
    assert here() == before


@pytest.mark.parametrize("verb", ["generate|a star", "caption|a.png", "embed|a.png"])
def test_a_folder_that_was_there_stays(unigen, verb):
    Path("a.png").write_text("no picture at all")
    Path("out").mkdir()
    assert unigen(*verb.split("|"), "out=out/new", "seed=x" if "star" in verb else "size=3")[0] == 2
    assert here() == {"a.png", "out"}


@pytest.mark.parametrize("verb", ["generate|a star", "caption|a.png", "embed|a.png", "evaluate"])
def test_a_folder_that_cannot_be_made_is_told_before_the_model_is_loaded(
    verb, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(PNG)
    assert main([*verb.split("|"), "model=nowhere", "out=a.png/out"]) == 2
    assert "a.png is a file" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing_and_is_named(unigen):
    Path("a.png").write_bytes(PNG)
    for words in (["generate", "a star", "steps=1"], ["embed", "a.png"]):
        with full_disk(20):
            code, lines, err = unigen(*words, "out=out")
        assert (code, lines) == (5, [])
        assert "out/" in err and "cannot be written: File too large" in err
        assert here() == {"a.png"}


def test_the_longest_prompts_fit_into_the_recipe(unigen):
    line = ["generate", LONGEST, f"negative.text={LONGEST}", "guidance=2.0", "steps=1"]
    code, paths, err = unigen(*line, "want=[image,video,audio]")
    assert (code, len(paths)) == (0, 2), err[-600:]
    for path in paths:
        recipe = media.read_recipe(path)
        assert recipe["given"] == recipe["negative"] == {"text": LONGEST}
        (unknown, *_) = [note for note in recipe["notes"] if "does not know" in note]
        assert len(unknown) < 100 and unknown.endswith("...")


def test_a_negative_prompt_is_a_prompt(unigen):
    code, _, err = unigen("generate", "a star", f"negative.text={LONGEST}x", "guidance=2.0")
    assert code == 2 and "4,097 characters" in err


def test_what_is_left_out_of_a_long_clip_is_said_and_in_the_recipe(unigen):
    Path("long.mp4").write_bytes(video(np.tile(frames(10), (5, 1, 1, 1)), fps=10))
    code, (path,), err = unigen("generate", "given.video=long.mp4", "want=[image]", "steps=1")
    said = ["video: cut to the first 2 s", "video: took 2 of its 10 frames a second"]
    assert code == 0 and all(f"unigen: {note}\n" in err for note in said)
    assert media.read_recipe(path)["notes"][:2] == said


def test_a_file_that_is_not_what_its_name_says_is_told(unigen):
    for name in ("a.wav", "a.MP4", "a.png", "a.gif", "a.of_its_own", "a"):
        Path(name).write_bytes(PNG)
    Path("b.png").write_bytes(sound("WAV", "PCM_16"))
    Path("c.jpg").write_bytes(video(frames(4)))
    code, lines, err = unigen("caption", "a.wav", "a.MP4", "b.png", "c.jpg", "steps=1")
    assert (code, len(lines)) == (0, 4)
    told = [line for line in err.splitlines() if "name says" in line]
    assert told == [
        "unigen: a.wav: holds a PNG image, whatever its name says",
        "unigen: a.MP4: holds a PNG image, whatever its name says",
        "unigen: b.png: holds a WAV sound, whatever its name says",
        "unigen: c.jpg: holds an MP4 video, whatever its name says",
    ]
    code, lines, err = unigen("caption", "a.png", "a.gif", "a.of_its_own", "a", "steps=1")
    assert (code, len(lines)) == (0, 4) and "name says" not in err
    code, lines, err = unigen("generate", "given.audio=a.wav", "want=[text]", "steps=1")
    assert (code, lines) == (3, []) and "a.wav is a PNG image; a sound was wanted" in err


def test_files_are_embedded_whatever_the_case_of_their_names(unigen):
    Path("a.txt").write_text("a red circle")
    Path("B.TXT").write_text("a red circle")
    code, (path,), _ = unigen("embed", "a.txt", "B.TXT")
    points = json.loads(Path(path).read_text())
    assert code == 0 and points["a.txt"] == points["B.TXT"]


def test_points_take_the_next_name_that_is_free(unigen):
    Path("a.txt").write_text("a red circle")
    Path("out").mkdir()
    Path("out/points_0.json").symlink_to("elsewhere")
    assert unigen("embed", "a.txt", "out=out")[:2] == (0, ["out/points_1.json"])
    before = Path("out/points_1.json").read_bytes()
    assert unigen("embed", "a.txt", "out=out")[:2] == (0, ["out/points_2.json"])
    assert Path("out/points_1.json").read_bytes() == before
    assert not Path("out/elsewhere").exists()
