"""Laws of reading and writing media on clean files, and of the child that decodes."""

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from media_corpus_audio import sound, tone
from media_corpus_image import blank_png, encoded, picture
from media_corpus_video import frames, patched, video
from PIL import Image

from unigen import media
from unigen.errors import MediaError, UsageError
from unigen.media import client, limits

RECIPE = {"seed": 3, "given": {"text": 'a "red" circle, é, 红球'}, "steps": 20}
MARK = {"digitalSourceType": "trainedAlgorithmicMedia"}


def same(read: dict) -> bool:
    return read == RECIPE | MARK


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_png_round_trip_is_exact(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    path = media.write_image(tmp_path / "a.png", pixels, RECIPE)
    read = media.read_image(path)
    assert np.array_equal(read.pixels, pixels) and read.notes == []
    assert read.pixels.flags.c_contiguous
    assert media.probe(path).kind == "image"


def test_a_jpeg_is_near_and_keeps_its_recipe(tmp_path):
    path = media.write_image(tmp_path / "a.jpg", picture(), RECIPE)
    assert same(media.read_recipe(path))
    assert media.read_image(path).pixels.shape == picture().shape


def test_shrinking_averages_and_says_so(tmp_path):
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    path = put(tmp_path / "a.png", encoded(Image.fromarray(checks), "PNG"))
    read = media.read_image(path, (8, 4))
    assert read.pixels.shape == (8, 4, 3) and abs(read.pixels.astype(int) - 127).max() <= 3
    assert read.notes == ["resized 64x64 to 4x8"]


def test_the_middle_of_a_picture_is_cut_out_and_says_so(tmp_path):
    wide = np.zeros((40, 100, 3), np.uint8)
    wide[:, 30:70] = 255  # the square in the middle is bright
    path = put(tmp_path / "a.png", encoded(Image.fromarray(wide), "PNG"))
    square = media.read_image(path, (20, 20), crop=True)
    assert square.pixels.shape == (20, 20, 3) and square.pixels.min() == 255
    assert square.notes == ["took the middle 40x40 of 100x40", "resized 40x40 to 20x20"]
    flat = media.read_image(path, (20, 100), crop=True)
    assert flat.notes == ["took the middle 100x20 of 100x40"]
    assert (flat.pixels == wide[10:30]).all()
    assert media.read_image(path, (40, 100), crop=True).notes == []
    put(tmp_path / "dot.png", encoded(Image.fromarray(wide[:1, :3]), "PNG"))
    assert media.read_image(tmp_path / "dot.png", (8, 8), crop=True).pixels.shape == (8, 8, 3)


def test_every_turn_of_a_jpeg_comes_back_upright(tmp_path):
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24] = 255  # the top left is bright
    ways = [None, *(Image.Transpose(n) for n in (0, 3, 1, 5, 2, 6, 4))]  # to undo EXIF 1 to 8
    for turn, way in enumerate(ways, start=1):
        exif = Image.Exif()
        exif[0x0112] = turn
        image = Image.fromarray(upright)
        image = image if way is None else image.transpose(way)
        read = media.read_image(put(tmp_path / f"{turn}.jpg", encoded(image, "JPEG", exif=exif)))
        assert read.pixels.shape == upright.shape
        assert abs(read.pixels.astype(int) - upright).mean() < 3, f"orientation {turn}"


def test_see_through_lies_over_white_and_16_bits_become_8(tmp_path):
    layers = np.zeros((4, 4, 4), np.uint8)
    layers[..., 3] = [0, 85, 170, 255]
    read = media.read_image(put(tmp_path / "a.png", encoded(Image.fromarray(layers), "PNG")))
    assert read.pixels[0, :, 0].tolist() == [255, 170, 85, 0]
    deep = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    read = media.read_image(put(tmp_path / "b.png", encoded(Image.fromarray(deep), "PNG")))
    assert np.array_equal(read.pixels[..., 1].ravel(), np.arange(256))


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_sound_round_trip_is_exact_to_16_bits(tmp_path, suffix):
    samples = np.clip(tone(0.5, channels=2), -1, 1)
    path = media.write_audio(tmp_path / f"a{suffix}", samples, 16000, RECIPE)
    read = media.read_audio(path, 0.5)
    assert read.rate == 16000 and read.samples.shape == samples.shape and read.notes == []
    assert abs(read.samples - samples).max() <= 0.5 / 32768 + 1e-7
    again = media.write_audio(tmp_path / f"b{suffix}", read.samples, 16000, RECIPE)
    assert np.array_equal(media.read_audio(again, 0.5).samples, read.samples)
    assert same(media.read_recipe(path))


def test_only_the_wanted_stretch_is_given(tmp_path):
    samples = tone(2.0)
    path = media.write_audio(tmp_path / "a.wav", samples, 16000, RECIPE)
    whole = media.read_audio(path, 2.0).samples
    part = media.read_audio(path, 0.25, start=1.5)
    assert np.array_equal(part.samples, whole[24000:28000])
    assert media.read_audio(path, 0.5).notes == ["cut to the first 0.5 s"]
    tail = media.read_audio(path, 1.0, start=1.5)
    assert len(tail.samples) == 8000 and "ends after 0.5 of the 1 s" in tail.notes[0]
    with pytest.raises(UsageError, match="nothing starts at 9 s"):
        media.read_audio(path, 1.0, start=9.0)


def test_what_is_no_number_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="NaN"):
        media.write_audio(tmp_path / "a.wav", np.array([0.0, np.nan]), 16000, RECIPE)
    assert list(tmp_path.iterdir()) == []


def test_an_mp4_keeps_times_pictures_sound_and_recipe(tmp_path):
    clip, samples = frames(16), tone(2.0)
    path = media.write_video(tmp_path / "a.mp4", clip, 8, RECIPE, samples, 16000)
    middle = np.arange(16) / 8 + 1 / 16
    read = media.read_video(path, middle, (64, 64))
    assert read.notes == [] and abs(read.frames.astype(int) - clip).mean() < 4
    edges = media.read_video(path, np.arange(16) / 8, (64, 64))
    assert np.array_equal(edges.frames, read.frames)
    heard = media.read_audio(path, 2.0)
    assert heard.samples.shape == (32000, 1) and heard.notes == []
    likeness = np.corrcoef(heard.samples[:, 0], samples[:, 0])[0, 1]
    assert likeness > 0.95, "the sound is late or lost"
    assert same(media.read_recipe(path))
    kind, facts = media.probe(path)
    assert kind == "video" and facts["frames"] == 16 and facts["sound"] and facts["fps"] == 8


@pytest.mark.parametrize(
    ("rate", "kept"), [(2000, 7350), (16000, 16000), (50000, 64000), (192000, 96000)]
)
def test_sound_has_the_next_rate_that_an_mp4_can_have(tmp_path, rate, kept):
    sound = np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    path = media.write_video(tmp_path / "a.mp4", frames(8), 8, RECIPE, sound, rate)
    heard = media.read_audio(path, 1.0)
    assert heard.rate == kept and heard.samples.shape == (kept, 1)
    spectrum = np.abs(np.fft.rfft(heard.samples[:, 0] * np.hanning(kept)))
    assert abs(spectrum.argmax() - 440) <= 1  # a bin is a hertz
    assert 0.6 < np.sqrt((heard.samples**2).mean()) < 0.8


def test_the_same_mp4_is_the_same_bytes(tmp_path):
    clip = frames(8)
    one, two = (
        media.write_video(tmp_path / n, clip, Fraction(30000, 1001), RECIPE, tone(0.5), 16000)
        for n in ("a.mp4", "b.mp4")
    )
    assert one.read_bytes() == two.read_bytes()


def test_times_in_any_order_give_the_frame_shown_then(tmp_path):
    path = media.write_video(tmp_path / "a.mp4", frames(16), 8, {})
    every = media.read_video(path, np.arange(16) / 8, (64, 64)).frames
    times = [1.9, 0.0, 0.3, 0.3, 7.0, 0.12, 0.13]
    read = media.read_video(path, times, (64, 64))
    assert np.array_equal(read.frames, every[[15, 0, 2, 2, 15, 0, 1]])
    assert read.notes == ["held the last frame from 2 s"]


def test_a_seek_gives_the_frames_of_a_walk(tmp_path):
    clip = np.concatenate([frames(16) // (i + 1) for i in range(8)])
    for name, options in (("often.mp4", {"g": "10"}), ("once.mp4", {"g": "1000"})):
        path = put(tmp_path / name, video(clip, options=options))
        walk = media.read_video(path, np.arange(128) / 8, (64, 64))
        jumps = np.array([0.0, 5.05, 9.3, 15.9, 30.0])
        read = media.read_video(path, jumps, (64, 64))
        assert np.array_equal(read.frames, walk.frames[[0, 40, 74, 127, 127]])
        assert walk.notes == [] and read.notes == ["held the last frame from 16 s"]


@pytest.mark.parametrize("form", ["mp4", "matroska"])
@pytest.mark.parametrize("fps", [7, 24, 30, Fraction(24000, 1001)])
def test_asking_for_frame_times_gives_each_frame_once(tmp_path, form, fps):
    path = put(tmp_path / "a", video(frames(16), form, fps=fps))
    middle = media.read_video(path, (np.arange(16) + 0.5) / float(fps), (64, 64)).frames
    edges = media.read_video(path, np.arange(16) / float(fps), (64, 64)).frames
    assert np.array_equal(middle, edges)
    assert len({frame.tobytes() for frame in edges}) == 16


def test_uneven_frames_are_shown_until_the_next(tmp_path):
    starts = [0, 40, 300, 350, 900, 1000, 1500, 1900]
    path = put(tmp_path / "a.mkv", video(frames(8), "matroska", times=starts))
    every = media.read_video(path, np.array(starts) / 1000, (64, 64)).frames
    read = media.read_video(path, [0.035, 0.29, 0.345, 0.89, 1.49], (64, 64))
    assert np.array_equal(read.frames, every[[0, 1, 2, 3, 5]])


def test_a_file_larger_than_any_buffer_is_clean(tmp_path):
    clip = np.random.default_rng(1).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    path = media.write_video(tmp_path / "a.mp4", clip, 8, {})
    assert path.stat().st_size > 100_000
    assert media.read_video(path, np.arange(40) / 8, (64, 64)).notes == []


@pytest.mark.parametrize("width", [16, 24, 48, 34])
def test_narrow_frames_are_whole(tmp_path, width):
    clip = frames(4, 32, width)
    path = media.write_video(tmp_path / "a.mp4", clip, 8, {})
    read = media.read_video(path, np.arange(4) / 8, (32, width))
    assert abs(read.frames.astype(int) - clip).mean() < 6
    if width in (16, 24, 48):  # decord gives frames of the wrong shape here
        with pytest.raises(MediaError, match="pyav"):
            media.read_video(path, [0.0], (32, width), reader="decord")


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_decord_gives_the_frames_of_pyav(tmp_path, turn):
    path = put(tmp_path / "a.mp4", video(frames(16, 32, 64), turn=turn, fps=12))
    times = np.array([0.0, 0.5, 0.51, 1.2, 0.1, 9.0])
    ours = media.read_video(path, times, (48, 40))
    theirs = media.read_video(path, times, (48, 40), reader="decord")
    assert np.array_equal(ours.frames, theirs.frames)
    assert "held the last frame from 1.33 s" in theirs.notes


def test_frames_of_avi_are_shown_in_their_order(tmp_path):
    """H.264 refers to later frames, and AVI does not say when its frames are shown."""
    clip = np.repeat(np.arange(40, dtype=np.uint8) * 6, 64 * 64 * 3).reshape(40, 64, 64, 3)
    path = put(tmp_path / "a.avi", video(clip, "avi", options={"preset": "medium"}))
    read = media.read_video(path, np.arange(40) / 8, (64, 64))
    assert abs(read.frames.astype(int) - clip).mean() < 4
    late = media.read_video(path, [4.5], (64, 64))  # which is worth a seek
    assert abs(late.frames.astype(int) - clip[36]).mean() < 4
    with pytest.raises(MediaError, match='no times of its frames; use reader="pyav"'):
        media.read_video(path, [0.0], (64, 64), reader="decord")


def test_a_crash_of_the_child_is_a_sentence(tmp_path):
    good = put(tmp_path / "good.mp4", video(frames(8)))
    count = (2**31 - 1).to_bytes(4, "big")
    bad = put(tmp_path / "bad.mp4", patched(good.read_bytes(), b"stts", 8, count))
    with pytest.raises(MediaError, match="crashed|damaged|memory"):
        media.read_video(bad, [0.0], (8, 8), reader="decord")
    assert media.read_video(good, [0.0], (8, 8)).frames.shape == (1, 8, 8, 3)


def test_a_dead_or_stuck_child_is_replaced(tmp_path, monkeypatch):
    path = put(tmp_path / "a.png", encoded(Image.fromarray(picture()), "PNG"))
    media.read_image(path)
    client._worker.process.kill()
    with pytest.raises(MediaError, match=r"crashed \(SIGKILL\)"):
        media.read_image(path)
    media.read_image(path)
    os.kill(client._worker.process.pid, 19)  # SIGSTOP: it will never answer
    monkeypatch.setattr(limits, "WORKER_SECONDS", 0.2)  # it has started, so that is all it gets
    with pytest.raises(MediaError, match=r"took more than 0\.2 s"):
        media.read_image(path)
    monkeypatch.undo()
    assert media.read_image(path).pixels.shape == picture().shape


def test_a_busy_child_gets_its_share_and_no_more(tmp_path, monkeypatch):
    path = put(tmp_path / "a.png", blank_png(8000, 8000))
    media.read_image(path, (8, 8))
    monkeypatch.setattr(limits, "WORKER_SECONDS", 0.05)  # of processor time: far too little
    with pytest.raises(MediaError, match="took more than"):
        media.read_image(path)
    monkeypatch.undo()
    assert media.read_image(path, (8, 8)).pixels.shape == (8, 8, 3)


def test_the_child_is_recycled_and_forks_start_their_own(tmp_path, monkeypatch):
    path = put(tmp_path / "a.png", encoded(Image.fromarray(picture()), "PNG"))
    media.read_image(path)
    first = client._worker.process.pid
    monkeypatch.setattr(limits, "WORKER_CALLS", client._worker.calls)
    media.read_image(path)
    second = client._worker.process.pid
    assert first != second
    monkeypatch.undo()
    code = (
        "import os, sys\nfrom unigen.media import client, read_image\n"
        "read_image(sys.argv[1]); mine = client._worker.process.pid\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    read_image(sys.argv[1]); os._exit(client._worker.process.pid == mine)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "read_image(sys.argv[1]); assert client._worker.process.pid == mine\n"
        "assert not {'torch', 'av', 'PIL', 'decord', 'soundfile'} & set(sys.modules)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(path)], check=True, cwd=Path(__file__).parents[1]
    )


def test_the_child_is_confined_and_free_of_torch(tmp_path):
    media.read_image(put(tmp_path / "a.png", encoded(Image.fromarray(picture()), "PNG")))
    pid = client._worker.process.pid
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    soft = {line[:26].strip(): line[26:].split()[0] for line in lines[1:]}
    assert soft["Max address space"] == str(limits.WORKER_MEMORY)
    assert soft["Max file size"] == "0" and soft["Max open files"] == "64"
    assert "torch" not in Path(f"/proc/{pid}/maps").read_text()
    names = {e.split("=")[0] for e in Path(f"/proc/{pid}/environ").read_text().split("\0") if e}
    assert not {n for n in names if "TOKEN" in n or "KEY" in n or n == "HOME"}


def test_the_largest_pictures_fit_and_the_next_do_not(tmp_path):
    top = put(tmp_path / "top.png", blank_png(8000, 8000))
    assert media.read_image(top).pixels.shape == (8000, 8000, 3)
    with pytest.raises(MediaError, match="8001x8000 pixels, the limit is 64 million"):
        media.read_image(put(tmp_path / "over.png", blank_png(8001, 8000)))


def test_a_file_beyond_the_limit_is_refused(tmp_path):
    data = encoded(Image.fromarray(picture()), "BMP")
    for size, fits in ((limits.FILE_BYTES, True), (limits.FILE_BYTES + 1, False)):
        path = put(tmp_path / f"{size}.bmp", data)
        os.truncate(path, size)
        if fits:
            assert media.read_image(path).pixels.shape == picture().shape
        else:
            with pytest.raises(MediaError, match="256 MB"):
                media.read_image(path)


def test_only_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "fifo.png", tmp_path / "folder.png", Path("/dev/zero")):
        with pytest.raises(MediaError, match="no regular file"):
            media.read_image(path)
    for path in ("http://127.0.0.1:9/a.png", "file:///etc/passwd", "concat:a.mp4|b.mp4"):
        with pytest.raises(UsageError, match="no local file"):
            media.read_image(path)
    for path in (tmp_path / "none.png", tmp_path / "a\0b.png", ""):
        with pytest.raises(UsageError, match="does not exist"):
            media.read_image(path)


def test_a_wrong_kind_is_named(tmp_path):
    png = put(tmp_path / "clip.mp4", encoded(Image.fromarray(picture()), "PNG"))
    text = put(tmp_path / "photo.png", b"just words")
    wav = put(tmp_path / "a.wav", sound("WAV", "PCM_16"))
    with pytest.raises(MediaError, match=r"clip\.mp4 is a PNG image; a video was wanted"):
        media.read_video(png, [0.0], (8, 8))
    with pytest.raises(MediaError, match=r"photo\.png is a text file; an image was wanted"):
        media.read_image(text)
    with pytest.raises(MediaError, match=r"a\.wav is a WAV sound; an image was wanted"):
        media.read_image(wav)
    with pytest.raises(MediaError, match="a sound was wanted"):
        media.read_audio(png, 1.0)


@pytest.mark.parametrize(
    "times", [[], [-1.0], [float("nan")], np.zeros((1, 1)), np.zeros(limits.TIMES + 1)], ids=str
)
def test_wrong_times_are_a_wrong_call(tmp_path, times):
    path = put(tmp_path / "a.mp4", video(frames(2)))
    with pytest.raises(UsageError, match="seconds"):
        media.read_video(path, times, (8, 8))


def test_too_many_frames_are_refused_before_decoding(tmp_path):
    path = put(tmp_path / "a.mp4", video(frames(2)))
    with pytest.raises(UsageError, match="limit is 2000 MB"):
        media.read_video(path, np.zeros(700), (1000, 1000))


def test_a_recipe_is_data_and_damage_is_refused(tmp_path):
    path = media.write_text(tmp_path / "a.txt", "red circle\r\n", RECIPE)
    assert path.read_bytes() == b"red circle\r\n" and same(media.read_recipe(path))
    beside = tmp_path / "a.txt.json"
    assert same(media.read_recipe(beside)) and json.loads(beside.read_text())["seed"] == 3
    for spoiled in (
        "[" * 50_000,
        '{"a": NaN}',
        "[]",
        "{",
        "\udcff",
        '{"a": "' + "x" * limits.RECIPE_BYTES + '"}',
    ):
        beside.write_text(spoiled, errors="surrogateescape")
        with pytest.raises(MediaError, match="recipe"):
            media.read_recipe(beside)
    foreign = put(tmp_path / "b.png", encoded(Image.fromarray(picture()), "PNG"))
    with pytest.raises(MediaError, match="carries no recipe"):
        media.read_recipe(foreign)
    with pytest.raises(UsageError):
        media.read_recipe(tmp_path / "none.png")
    with pytest.raises(UsageError, match=r"at most \d+ fit; give shorter text"):
        media.write_text(tmp_path / "c.txt", "", {"a": "x" * limits.RECIPE_BYTES})
    assert not (tmp_path / "c.txt").exists()


WRITERS = {
    "a.png": lambda path, recipe: media.write_image(path, picture(), recipe),
    "a.jpg": lambda path, recipe: media.write_image(path, picture(), recipe),
    "a.wav": lambda path, recipe: media.write_audio(path, tone(0.5), 16000, recipe),
    "a.flac": lambda path, recipe: media.write_audio(path, tone(0.5), 16000, recipe),
    "a.mp4": lambda path, recipe: media.write_video(path, frames(8), 8, recipe, tone(1.0), 16000),
    "a.txt": lambda path, recipe: media.write_text(path, "a red circle", recipe),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("count", [1, 150, 180, 3000, 8192, "most"])
def test_a_recipe_of_any_length_comes_back(tmp_path, name, count):
    """150 characters are just below what libsndfile reads of a WAV, 8192 two longest prompts."""
    letter = "\N{MATHEMATICAL SCRIPT CAPITAL A}"  # 12 bytes of JSON
    if count == "most":
        count = (limits.RECIPE_BYTES - 100) // 12
    recipe = {"given": {"text": letter * count}}
    path = WRITERS[name](tmp_path / name, recipe)
    assert media.read_recipe(path) == recipe | MARK
    assert media.read_recipe(tmp_path / f"{name}.json") == recipe | MARK
    if name == "a.txt" or (name == "a.jpg" and count * 12 > 60_000):
        return  # beside the file only
    (tmp_path / f"{name}.json").unlink()
    assert media.read_recipe(path) == recipe | MARK
    if path.suffix in (".wav", ".flac"):  # and the sound is whole
        sound = media.read_audio(path, 0.5)
        assert np.abs(sound.samples - tone(0.5)).max() < 1e-4 and sound.notes == []


def test_the_comment_of_a_wav_is_read_by_others_and_theirs_by_us(tmp_path):
    path = media.write_audio(tmp_path / "a.wav", tone(0.5), 16000, RECIPE)
    with soundfile.SoundFile(path) as file:
        assert same(json.loads(file.comment))
        assert len(file.read()) == 8000
    with soundfile.SoundFile(tmp_path / "b.wav", "w", 16000, 1) as file:
        file.title, file.comment = "a title", json.dumps(RECIPE | MARK)
        file.write(tone(0.5))
    assert same(media.read_recipe(tmp_path / "b.wav"))


@pytest.mark.parametrize("reader", ["pyav", "decord"])
def test_what_is_left_out_of_a_video_is_said(tmp_path, reader):
    clip = np.tile(frames(10), (5, 1, 1, 1))

    def notes(data, **options):
        path, times = put(tmp_path / "a", data), np.arange(16) / 8
        return media.read_video(path, times, (64, 64), reader, **options).notes

    cut, fast = "cut to the first 2 s", "took 8 of its {} frames a second"
    for form in ("mp4", "mov", "matroska"):
        assert notes(video(clip, form, fps=10), seconds=2.0) == [cut, fast.format(10)]
        assert notes(video(clip, form, fps=25), seconds=2.0) == [fast.format(25)]
        assert notes(video(clip[:17], form, fps=8), seconds=2.0) == [cut]
        assert notes(video(clip[:16], form, fps=8, sound=True), seconds=2.0) == []
        assert notes(video(clip, form, fps=10)) == []
    film = video(clip[:48], fps=Fraction(24000, 1001))  # 2.002 s
    assert notes(film, seconds=2.0) == [fast.format(24)]
    assert notes(video(clip[:4], fps=4), seconds=2.0) == ["held the last frame from 1 s"]


def test_a_probe_has_words(tmp_path):
    clip = video(frames(2))
    for data, words in (
        (encoded(Image.fromarray(picture()), "PNG"), "a PNG image"),
        (sound("WAV", "PCM_16"), "a WAV sound"),
        (sound("FLAC", "PCM_16"), "a FLAC sound"),
        (clip, "an MP4 video"),
        (video(frames(2), "matroska"), "a Matroska video"),
    ):
        assert media.probe(put(tmp_path / "a", data)).words == words


def test_a_png_says_in_iptc_words_that_a_model_made_it(tmp_path):
    path = media.write_image(tmp_path / "a.png", picture(), RECIPE)
    with Image.open(path) as image:
        assert "digitalsourcetype/trainedAlgorithmicMedia" in image.info["XML:com.adobe.xmp"]
        assert same(json.loads(image.info["unigen"]))
