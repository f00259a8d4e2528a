"""Every file of the corpus has the outcome that is listed for it, in this very process."""

import ctypes
import os
import socket
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from media_corpus import build
from media_corpus_video import frames, video

from unigen import media
from unigen.errors import MediaError
from unigen.media import client, limits

pytestmark = pytest.mark.reliability

TIMES = [0.0, 0.3, 0.7, 1.9]
READS = {
    "image": lambda path: media.read_image(path, (24, 32)),
    "video": lambda path: media.read_video(path, TIMES, (24, 32)),
    "audio": lambda path: media.read_audio(path, 1.0),
}
IN_OPEN, IN_ACCESS, IN_NONBLOCK = 0x20, 0x01, 0o4000


class Watch:
    """Sees whether a file is opened (inotify) or a port of this machine is called."""

    def __init__(self, folder: Path):
        self.canary = folder / "canary.mp4"
        self.canary.write_bytes(video(frames(8)))
        libc = ctypes.CDLL(None, use_errno=True)
        self.events = libc.inotify_init1(IN_NONBLOCK)
        assert self.events >= 0
        where = os.fsencode(self.canary)
        assert libc.inotify_add_watch(self.events, where, IN_OPEN | IN_ACCESS) >= 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]

    def close(self) -> None:
        os.close(self.events)
        self.listener.close()

    def opened(self) -> bool:
        try:
            return bool(os.read(self.events, 4096))
        except BlockingIOError:
            return False

    def called(self) -> bool:
        try:
            self.listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture(scope="module")
def watch(tmp_path_factory):
    watch = Watch(tmp_path_factory.mktemp("canary"))
    yield watch
    watch.close()


@pytest.fixture(scope="module")
def cases(tmp_path_factory, watch):
    return build(tmp_path_factory.mktemp("corpus"), watch.canary, watch.port)


def outcome(case) -> tuple[str, str | list[str]]:
    """What came of a read, and its words; the shape is tested on the way."""
    try:
        read = READS[case.kind](case.path)
    except MediaError as error:
        return "refused", str(error)
    if case.kind == "audio":
        assert read.samples.dtype == np.float32 and read.samples.ndim == 2
        assert 0 < len(read.samples) <= read.rate and np.isfinite(read.samples).all()
    else:
        shape = (24, 32, 3) if case.kind == "image" else (len(TIMES), 24, 32, 3)
        assert read[0].dtype == np.uint8 and read[0].shape == shape, case.path.name
    degraded = any(note.startswith("degraded") for note in read.notes)
    return ("degraded" if degraded else "ok"), read.notes


def resident() -> int:
    """Megabytes this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def test_the_corpus_is_large(cases):
    kinds = Counter(case.kind for case in cases)
    assert len(cases) >= 300 and min(kinds.values()) >= 60


def test_every_outcome_is_as_listed(cases, watch):
    before, wrong = resident(), []
    for case in cases:
        found, words = outcome(case)
        if found not in case.outcome:
            wrong.append(f"{case.kind}/{case.path.name}: {found}, not {case.outcome}: {words}")
        if found == "refused":
            name = case.path.name
            assert "\n" not in words and len(words) <= 300 and name in words, words
            assert len(words.split(name, 1)[1]) > 10, f"no reason: {words}"
            assert "took more than" not in words and "crashed" not in words, words
    assert not wrong, "\n".join(wrong)
    assert resident() - before <= 200
    assert not watch.opened() and not watch.called()


def test_twenty_of_them_through_the_command(cases, tmp_path):
    """Ten that are refused, ten that are read or cannot be told, of every kind."""
    told = sorted(cases, key=lambda case: case.outcome == "refused")
    some = [*told[:: len(told) // 20][:19], told[-1]]
    for case in some:
        done = subprocess.run(
            [sys.executable, "-m", "unigen", "generate", f"given.{case.kind}={case.path}",
             "want=[text]", "steps=1", f"out={tmp_path}"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        codes = {"ok": {0}, "degraded": {0}, "refused": {3}}.get(case.outcome, {0, 3})
        assert done.returncode in codes, (case, done.stderr)
        assert "Traceback" not in done.stderr
        if done.returncode == 3:
            (line,) = done.stderr.splitlines()
            assert len(line) <= 300 and case.path.name in line
            assert not done.stdout
    assert {case.outcome for case in some} >= {"ok", "refused"}
    assert {case.kind for case in some} == set(READS)


def test_the_watch_sees(tmp_path):
    seen = Watch(tmp_path)
    assert not seen.opened() and not seen.called()
    seen.canary.read_bytes()
    socket.create_connection(("127.0.0.1", seen.port)).close()
    assert seen.opened() and seen.called()
    seen.close()


def test_playlists_reach_nothing_through_any_door(cases, watch):
    lists = [c for c in cases if c.path.stem.split("_")[0] in ("hls", "concat", "session", "dash")]
    doors = [media.probe, media.read_image, lambda p: media.read_audio(p, 1.0)]
    doors += [
        lambda p, r=reader: media.read_video(p, TIMES, (8, 8), reader=r)
        for reader in ("pyav", "decord")
    ]
    assert len(lists) >= 20
    for case in lists:
        for door in doors:
            with pytest.raises(MediaError):
                door(case.path)
    assert not watch.opened() and not watch.called()


def test_probe_and_recipe_answer_or_refuse(cases):
    for case in cases:
        for door in (media.probe, media.read_recipe):
            try:
                door(case.path)
            except MediaError as error:
                assert len(str(error)) <= 300
            else:
                assert door is media.probe, f"{case.path.name} has no recipe"


def test_decord_never_takes_the_parent_along(cases):
    ends = Counter()
    for case in cases:
        if case.kind == "video":
            try:
                clip = media.read_video(case.path, TIMES, (24, 32), reader="decord")
            except MediaError as error:
                ends["crashed" if "crashed" in str(error) else "refused"] += 1
                assert len(str(error)) <= 300
            else:
                ends["read"] += 1
                assert clip.frames.shape == (len(TIMES), 24, 32, 3)
    assert ends["read"] >= 20 and ends["refused"] >= 40


def test_decord_equals_pyav_on_clean_h264(cases):
    names = ("h264.mp4", "b_frames.mp4", "sound.mp4", "h264.mov", "h264.mkv", "fps_30.mp4")
    clean = [case for case in cases if case.kind == "video" and case.path.name in names]
    assert len(clean) == len(names)
    for case in clean:
        ours, theirs = (
            media.read_video(case.path, TIMES, (40, 40), reader=reader).frames
            for reader in ("pyav", "decord")
        )
        assert np.array_equal(ours, theirs), case.path.name


def test_silent_garbage_is_flagged(cases):
    found = {c.path.name: outcome(c)[1] for c in cases if c.kind == "video"}
    assert "its frames change size; each was resized on its own" in found["size_changes.mkv"]
    for name in ("no_first_key.mp4", "stts_count.mp4", "cut_60_first.mp4"):
        assert any("declared frames decoded" in note for note in found[name]), name


def test_a_thousand_bad_files_leave_nothing_behind(tmp_path):
    data = video(frames(8))
    path = tmp_path / "a.mp4"
    started, sizes, fds = set(), [], []
    for i in range(2 * limits.WORKER_CALLS):
        path.write_bytes(data[: 40 + i % 500] + struct.pack(">I", i) * 50)
        with pytest.raises(MediaError):
            media.read_video(path, [0.0], (8, 8))
        started.add(client._worker.process.pid)
        sizes.append(resident())
        fds.append(len(list(Path("/proc/self/fd").iterdir())))
    assert len(started) <= 3
    assert sizes[-1] - sizes[50] <= 20 and fds[-1] - fds[50] <= 2
