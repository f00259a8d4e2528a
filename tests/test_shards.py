"""Shards: what was packed comes back byte for byte, and no damage or hostile member passes."""

import json
import tarfile

import pytest
import torch
from bad_tars import (
    CASES,
    HOSTILE,
    apart,
    crowd,
    damaged,
    hostile_member,
    huge_member,
    member,
    names_of,
    picture,
    tar_of,
    twice,
)
from media_folder import mixed, png, txt
from tiny import tiny_model

from unigen.data import tars
from unigen.data.check import examine
from unigen.data.feed import feed, kinds_of, meet
from unigen.data.folder import Folder
from unigen.data.shards import Shards, pack
from unigen.data.stream import Stream
from unigen.errors import MediaError, UsageError
from unigen.media import limits
from unigen.objectives import Denoise
from unigen.trainer import Trainer

MODEL = tiny_model()


@pytest.fixture
def packed(tmp_path):
    for i in range(10):
        png(tmp_path / f"media/image/{i:02d}.png", i)
        txt(tmp_path / f"media/text/{i:02d}.txt", f"picture {i}", "one more")
    return pack(Folder(str(tmp_path / "media")), tmp_path / "shards", items=10)


def shards_of(root, **options):
    source = Shards(str(root), **options)
    source.attach(kinds_of(MODEL))
    return source


def test_what_was_packed_comes_back_in_any_order(tmp_path):
    mixed(tmp_path / "media", 12)
    folder = Folder(str(tmp_path / "media"))
    folder.attach(kinds_of(MODEL))
    source = shards_of(pack(folder, tmp_path / "shards", items=5))
    assert len(list((tmp_path / "shards").glob("*.tar"))) == 3
    assert source.names == folder.names
    assert torch.equal(source.has, folder.has)
    for step in (5, 0, 3):
        index = folder.order(0, step, 3)
        assert torch.equal(index, source.order(0, step, 3))
        parts = folder.available(index)
        a, b = folder.batch(index, parts), source.batch(index, parts)
        for part in parts:
            equal = a[part] == b[part]
            assert equal if isinstance(equal, bool) else equal.all()
    assert not examine(source)["broken"]


@pytest.mark.extra
def test_shards_are_plain_webdataset_tars(packed):
    with tarfile.open(packed / "shard-00000.tar") as tar:
        names = tar.getnames()
    assert names[:3] == ["00000000.png", "00000000.txt", "00000001.png"]
    wds = pytest.importorskip("webdataset.tariterators")
    with (packed / "shard-00000.tar").open("rb") as stream:
        files = wds.tar_file_expander([{"url": "shard", "stream": stream}])
        samples = list(wds.group_by_keys(files))
    assert [sample["__key__"] for sample in samples] == [f"{i:08d}" for i in range(10)]
    assert samples[3]["txt"] == b"picture 3\none more\n"


def test_the_folder_of_shards_is_new(packed, tmp_path):
    before = (packed / "index.jsonl").read_bytes()
    with pytest.raises(UsageError, match="exists; give out= a new folder"):
        pack(Folder(str(tmp_path / "media")), packed)
    assert (packed / "index.jsonl").read_bytes() == before


@pytest.mark.parametrize("case", CASES)
def test_damage_is_found_by_name_and_the_others_are_read(packed, case):
    path = packed / "shard-00000.tar"
    offset, size = member(packed, 5)
    path.write_bytes(damaged(path.read_bytes(), case, offset, size))
    source = shards_of(packed, max_bad=0.9)
    report = examine(source)
    named = {(r["name"], r["part"]) for r in report["broken"]}
    cut = "cut" in case
    lost = {(f"{i:02d}", part) for i in range(6, 10) for part in ("image", "text")}
    lost |= {("05", "text")}
    assert named == {("05", "image")} | (lost if cut else set())
    assert {r["shard"] for r in report["broken"]} == {"shard-00000.tar"}
    assert offset in {r["offset"] for r in report["broken"]}
    read = source.batch(torch.arange(10), ["text"])["text"]
    good = [i for i in range(10) if (f"{i:02d}", "text") not in named]
    assert [t for i, t in enumerate(read) if i in good] and len(read) == 10
    pictures = source.batch(torch.arange(5), ["image"])["image"]
    folder = Folder(str(packed.parent / "media"))
    folder.attach(kinds_of(MODEL))
    assert torch.equal(pictures, folder.batch(torch.arange(5), ["image"])["image"])


def index_of(root, change):
    path = root / "index.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines.pop(), "is cut: it lists 9 of 10"),
        (lambda lines: lines[0].pop("version"), "is no index of shards"),
        (lambda lines: lines[0]["shards"].update({"../x.tar": 5}), "no shard beside it"),
        (lambda lines: lines[0]["shards"].update({"gone.tar": 5}), "no shard beside it"),
        (lambda lines: lines[3]["parts"]["image"].__setitem__(2, -5), "damaged at item 2"),
        (lambda lines: lines[3]["parts"]["image"].__setitem__(0, "/etc/passwd"), "at item 2"),
        (lambda lines: lines[3]["parts"]["image"].__setitem__(3, 10**15), "damaged at item 2"),
        (lambda lines: lines[3].pop("parts"), "damaged at item 2"),
    ],
)
def test_an_index_that_was_changed_is_refused(packed, change, words):
    index_of(packed, change)
    with pytest.raises(MediaError, match=words):
        Shards(str(packed))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_member_is_refused_by_name_and_the_others_are_read(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path, refused, read = hostile_member(tmp_path / "a.tar", name)
    before = sorted(tmp_path.iterdir())
    source = shards_of(path)
    assert (names_of(source.refused), source.names) == (refused, read)
    assert source.batch(torch.arange(2), ["image"])["image"].shape == (2, 3, 16, 16)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("size", [7 << 30, 100 << 30])
def test_a_member_that_declares_too_much_ends_its_tar_by_name(tmp_path, size):
    path, refused, read = huge_member(tmp_path / "a.tar", size)
    source = shards_of(path)
    assert (names_of(source.refused), source.names) == (refused, read)
    assert f"declares {size} bytes" in source.refused[0].reason


@pytest.mark.parametrize("make", [twice, apart])
def test_keys_that_come_twice_or_apart_are_refused_by_name(tmp_path, make):
    path, refused, read = make(tmp_path / "a.tar")
    source = shards_of(path)
    assert (names_of(source.refused), source.names) == (refused, read)


def test_too_many_members_and_a_silent_end_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, "MOST_MEMBERS", 5)
    crowded = shards_of(crowd(tmp_path / "b.tar", 6).path)
    assert (len(crowded), crowded.refused[0].reason[:20]) == (1, "it has more than 5 m")
    assert not shards_of(crowd(tmp_path / "b.tar", 5).path).refused
    path = tar_of(tmp_path / "a.tar", *((f"{i}.png", picture()) for i in range(8)))
    data = path.read_bytes()
    source = shards_of(path)
    assert (len(source), source.refused[0].reason[:20]) == (5, "it has more than 5 m")
    monkeypatch.undo()
    step = -(-len(picture()) // 512) * 512 + 512
    for bad in (data[: 3 * step], data[: 3 * step] + b"\xff" * 512 + data[3 * step + 512 :]):
        path.write_bytes(bad)
        source = shards_of(path)
        assert len(source) == 3
        assert f"at byte {3 * step}" in source.refused[0].reason


@pytest.mark.parametrize("root", ["pipe:touch evil", "http://host/a.tar", "no/such/folder"])
def test_a_root_that_is_no_folder_is_refused(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        Shards(root)
    assert not list(tmp_path.iterdir())


@pytest.mark.extra
def test_a_stream_trains_and_is_the_same_with_and_without_threads(tmp_path, monkeypatch):
    pytest.importorskip("webdataset")
    members = [(f"{i:03d}.{e}", d) for i in range(12)
               for e, d in (("png", picture(i)), ("txt", b"a red circle"))]  # fmt: skip
    members[8:8] = [("evil.pkl", b"x"), ("../evil.png", b"x")]
    members += [(f"{i}.png", b"broken" if i == 30 else picture(i)) for i in range(30, 36)]
    link = tarfile.TarInfo("late/link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    tar_of(tmp_path / "a.tar", *members, ("huge.png", bytes(9_001)), link)
    monkeypatch.setattr(limits, "FILE_BYTES", 9_000)

    def losses(workers):
        model = tiny_model()
        source = Stream(f"file://{tmp_path}/a.tar", max_bad=0.5)
        data = feed(model, Denoise(), meet(model, Denoise(), source, tmp_path), 100, "cpu")
        trainer = Trainer(model, Denoise(), data, steps=5, batch=4, warmup=1, workers=workers)
        return [{k: v.hex() for k, v in trainer.train_step().items()} for _ in range(5)]

    assert losses(0) == losses(2)
    records = [json.loads(x) for x in (tmp_path / "bad_samples.jsonl").read_text().splitlines()]
    named = {r["name"].rpartition("a.tar/")[2]: r["reason"] for r in records}
    assert named.keys() == {"30", "evil.pkl", "../evil.png", "late/link.png", "huge.png"}
    assert len(records) == len(named)  # once, however often the stream comes by
    assert "pickle" in named["evil.pkl"] and "out of the archive" in named["../evil.png"]
    assert "link" in named["late/link.png"] and "the limit is" in named["huge.png"]
    with pytest.raises(UsageError, match="runs a program"):
        Stream(["pipe:touch evil"])
    with pytest.raises(MediaError, match="cannot be read as a tar"):
        stream = Stream(f"file://{tmp_path}/bad_samples.jsonl")
        stream.attach(kinds_of(MODEL), bool)
        stream.available(torch.arange(2))
