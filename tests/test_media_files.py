"""Laws of output files: whole or absent, never over another, never outside, closed to others."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from full_disk import full_disk

from unigen import media
from unigen.errors import ResourceError, UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
ROOT = Path(__file__).parents[1]

HOSTILE = [
    "../../../etc/passwd", "/etc/passwd", "..", ".", "", " ", "\0", "a\0b", "x" * 300, "😀" * 80,
    "\u202egnp.exe", "CON", "con", "nul", "COM1", "lpt9", "aux.txt", "name.", "name ", "-rf",
    "--help", "~", "~root", "$HOME", "${oc.env:HOME}", "`id`", "$(id)", "a;b", "a|b", "a&b", "a>b",
    "a<b", "a*b", "a?b", 'a"b', "a'b", "a\\b", "..\\..\\x", "a/b", "a//b", "./a", "a\nb", "a\rb",
    "a\tb", "\x1b[31m", "\x7f", "é", "ß", "红球", "\u0301", "ａ", "\ufeff", "\u200b", "%2e%2e%2f",
    "%s%n", "a,b", "a=b", "{a}", "[a]", ".hidden", "...", "a.png.json", "C:\\x", "file:///x",
    "\udcff",
]  # fmt: skip


def test_hostile_names_stay_in_the_folder(tmp_path):
    assert len(HOSTILE) >= 64
    for text in HOSTILE:
        stem = media.safe_stem(text)
        assert 1 <= len(stem.encode()) <= 60 and set(stem) <= set(
            "abcdefghijklmnopqrstuvwxyz0123456789_-"
        )
        assert not stem.startswith("-") and stem not in ("con", "nul", "aux", "prn", "com1", "lpt9")
        path = (
            media.write_text(media.free_name(tmp_path, stem, ".txt"), text[:5], {})
            if (text.isprintable())
            else media.free_name(tmp_path, stem, ".txt")
        )
        assert path.resolve().parent == tmp_path.resolve()
    assert all(p.suffix in (".txt", ".json") for p in tmp_path.iterdir())


def test_a_name_that_is_taken_stays_as_it_was(tmp_path):
    path = media.write_image(tmp_path / "a.png", PIXELS, {})
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        media.write_image(path, 255 - PIXELS, {})
    assert path.read_bytes() == before
    (tmp_path / "b.png.json").write_text("mine")
    with pytest.raises(FileExistsError):
        media.write_image(tmp_path / "b.png", PIXELS, {})
    (tmp_path / "c.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(FileExistsError):
        media.write_image(tmp_path / "c.png", PIXELS, {})
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", "a.png.json", "b.png.json", "c.png"}


def test_free_name_takes_the_next_number(tmp_path):
    names = []
    for _ in range(3):
        path = media.free_name(tmp_path, "image", ".png")
        names.append(media.write_image(path, PIXELS, {}).name)
    assert names == ["image_0.png", "image_1.png", "image_2.png"]
    (tmp_path / "image_3.png.json").write_text("{}")
    assert media.free_name(tmp_path, "image", ".png").name == "image_4.png"


def taken(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_files_of_one_number_are_written_or_none(tmp_path):
    def text(path):
        media.write_text(path, path.name, {})

    def late(path):
        if path.name == "b_2.txt":  # between the look and the write
            path.write_text("theirs")
        text(path)

    (tmp_path / "a_0.txt.json").write_text("a sidecar alone")
    (tmp_path / "b_1.txt").symlink_to("nowhere")
    before = taken(tmp_path)
    paths = media.write_next(tmp_path, [("a", ".txt", text), ("b", ".txt", late)])
    assert [path.name for path in paths] == ["a_3.txt", "b_3.txt"]
    assert [path.read_text() for path in paths] == ["a_3.txt", "b_3.txt"]
    assert (tmp_path / "b_2.txt").read_text() == "theirs"
    new = {f"{path.name}{suffix}" for path in paths for suffix in ("", ".json")}
    assert taken(tmp_path) == before | new | {"b_2.txt"}

    def fail(path):
        raise ResourceError("the disk is full")

    before = taken(tmp_path)
    with pytest.raises(ResourceError):
        media.write_next(tmp_path, [("a", ".txt", text), ("b", ".txt", fail)])
    assert taken(tmp_path) == before


def test_a_writer_that_is_always_late_ends_in_one_sentence(tmp_path):
    def always(path):
        raise FileExistsError

    with pytest.raises(UsageError, match="choose another folder"):
        media.write_next(tmp_path, [("a", ".txt", always)])


def test_many_writers_share_a_folder(tmp_path):
    def write(name):
        def text(path):
            media.write_text(path, name, {})

        return media.write_next(tmp_path, [("a", ".txt", text), ("b", ".txt", text)])

    with ThreadPoolExecutor(8) as pool:
        names = [f"writer {i}" for i in range(40)]
        every = list(pool.map(write, names))
    assert len({path for paths in every for path in paths}) == 80
    for name, paths in zip(names, every, strict=True):
        assert [path.read_text() for path in paths] == [name] * 2
        assert len({path.stem[1:] for path in paths}) == 1
    assert len(taken(tmp_path)) == 160


def test_findings_are_whole_and_over_nothing(tmp_path):
    assert media.write_json(tmp_path, "a", {"x": 1}).name == "a_0.json"
    with full_disk(100), pytest.raises(ResourceError, match=r"a_1\.json cannot be written"):
        media.write_json(tmp_path, "a", {"x": "y" * 200})
    assert taken(tmp_path) == {"a_0.json"}
    assert (tmp_path / "a_0.json").read_text() == '{\n "x": 1\n}'


def test_a_new_folder_goes_where_what_follows_fails(tmp_path):
    with pytest.raises(KeyError), media.new_folder(tmp_path / "a" / "b") as folder:
        assert folder.is_dir()
        raise KeyError
    with pytest.raises(OSError, match="too long"), media.new_folder(tmp_path / "a" / ("x" * 300)):
        pass
    assert taken(tmp_path) == set()
    with pytest.raises(KeyError), media.new_folder(tmp_path / "a" / "b") as folder:
        (folder / "mine").touch()
        raise KeyError
    assert (tmp_path / "a" / "b" / "mine").is_file()
    with pytest.raises(KeyError), media.new_folder(tmp_path / "a"):
        raise KeyError
    with media.new_folder(tmp_path / "c"):
        pass
    assert taken(tmp_path) == {"a", "c"}


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_files_are_closed_to_others(tmp_path, mask):
    old = os.umask(mask)
    try:
        folder = media.make_folder(tmp_path / "one" / "two")
        media.write_image(folder / "a.png", PIXELS, {})
        media.write_audio(folder / "a.wav", np.zeros(100), 16000, {})
        media.write_video(folder / "a.mp4", PIXELS[None], 8, {})
        media.write_text(folder / "a.txt", "x", {})
    finally:
        os.umask(old)
    assert all(p.stat().st_mode & 0o777 & ~0o640 == 0 for p in folder.iterdir())
    assert all(p.stat().st_mode & 0o777 & ~0o750 == 0 for p in (folder, folder.parent))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder where none can be made")
def test_where_no_folder_can_be_made_is_told():
    with pytest.raises(UsageError, match="/proc/nowhere cannot be made"):
        media.make_folder("/proc/nowhere/inside")


FULL_DISK = """
import resource, sys
import av, numpy as np, PIL.Image, soundfile
from unigen import media
from unigen.errors import ResourceError

folder, limit = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(0)
pixels = rng.integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)
tone = rng.uniform(-1, 1, 40000)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for name, write in {
    "a.png": lambda path: media.write_image(path, pixels[0], {}),
    "a.jpg": lambda path: media.write_image(path, pixels[0], {}),
    "a.wav": lambda path: media.write_audio(path, tone, 16000, {}),
    "a.flac": lambda path: media.write_audio(path, tone, 16000, {}),
    "a.mp4": lambda path: media.write_video(path, pixels, 8, {}, tone, 16000),
    "a.txt": lambda path: media.write_text(path, "x" * 7000, {}),
}.items():
    try:
        write(f"{folder}/{name}")
    except ResourceError as error:
        assert name in str(error) and "cannot be written: File too large" in str(error), error
    else:
        raise AssertionError(name)
"""


@pytest.mark.parametrize("limit", [0, 100, 1000, 6000])
def test_a_full_disk_leaves_nothing(tmp_path, limit):
    command = [sys.executable, "-B", "-c", FULL_DISK, str(tmp_path), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-600:]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_a_wrong_call(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(UsageError, match="is a file; give a folder"):
        media.write_text(tmp_path / "out" / "a.txt", "x", {})


def test_a_wrong_suffix_is_a_wrong_call(tmp_path):
    with pytest.raises(UsageError, match=r"\.png"):
        media.write_image(tmp_path / "a.exe", PIXELS, {})
    with pytest.raises(UsageError, match=r"\.mp4"):
        media.write_video(tmp_path / "a.png", PIXELS[None], 8, {})
    assert list(tmp_path.iterdir()) == []


@contextmanager
def without_rights():
    """Be nobody in here: root may write anywhere."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


def test_a_closed_folder_is_named():
    with TemporaryDirectory() as name:  # where nobody may look, as pytest's own folders are not
        folder = Path(name)
        media.write_text(folder / "a.txt", "x", {})
        before = {*folder.iterdir()}
        folder.chmod(0o555)
        with without_rights(), pytest.raises(ResourceError, match="Permission denied"):
            media.write_text(folder / "b.txt", "x", {})
        assert before and {*folder.iterdir()} == before
