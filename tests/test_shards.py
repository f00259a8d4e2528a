"""Shards: what was packed comes back byte for byte, and no damage or hostile member passes."""

import json
import sys
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

from unigen import optim
from unigen.data import tars
from unigen.data.check import examine
from unigen.data.feed import feed, kinds_of, meet
from unigen.data.folder import Folder
from unigen.data.shards import Shards, pack
from unigen.data.stream import Stream
from unigen.data.tars import pass_tar
from unigen.errors import MediaError, UsageError
from unigen.media import limits
from unigen.objectives import Denoise
from unigen.share import Share
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
    pytest.importorskip("fsspec")
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


def stream_of(*paths, **options):
    pytest.importorskip("fsspec")
    source = Stream([f"file://{path}" for path in paths], **options)
    source.attach(kinds_of(MODEL), bool)
    return source


def pictures_of(path, numbers, broken=()):
    data = {i: b"broken" if i in broken else picture(i) for i in numbers}
    return tar_of(path, *((f"{i:02d}.png", data[i]) for i in numbers))


@pytest.mark.extra
def test_the_shares_of_a_streams_batch_are_of_that_batch(tmp_path):
    path = pictures_of(tmp_path / "a.tar", range(12), broken=(3, 9))  # ends of two shares
    whole, passes, first, second = (stream_of(path, max_bad=1.0) for _ in range(4))

    def shown(source, step, batch, *shares):
        some = [share.rows(source.order(0, step, batch)) for share in shares]
        assert [source.available(index) for index in some] == [["image"]] * len(shares)
        return torch.cat([source.batch(index, ["image"])["image"] for index in some])

    halves = Share(0, 2), Share(1, 2)
    for step, batch in [(0, 4), (1, 4), (2, 4), (3, 4), (4, 6), (5, 6)]:  # the tar has three of 4
        wanted = shown(whole, step, batch, Share())
        assert len(wanted) == batch
        assert torch.equal(shown(passes, step, batch, *halves), wanted)
        apart = [shown(each, step, batch, half)  # by two processes
                 for each, half in zip((first, second), halves, strict=True)]  # fmt: skip
        assert torch.equal(torch.cat(apart), wanted)


@pytest.mark.extra
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_learned_in_passes_as_it_is_at_once(tmp_path, workers, monkeypatch):
    monkeypatch.setattr(optim, "fastest", lambda device: torch.float32)  # bfloat16 rounds by 1e-3
    members = [(f"{i:02d}.{e}", d) for i in range(12)
               for e, d in (("png", picture(i)), ("txt", b"a red circle"))]  # fmt: skip
    members += [(f"{i}.png", picture(i)) for i in range(30, 36)]
    path = tar_of(tmp_path / "a.tar", *members)

    def losses(accumulate):
        model, source = tiny_model(), stream_of(path)
        data = feed(model, Denoise(), meet(model, Denoise(), source, tmp_path), 0, "cpu")
        trainer = Trainer(model, Denoise(), data, steps=5, batch=4, warmup=1, bf16=False,
                          accumulate=accumulate, workers=workers)  # fmt: skip
        return [trainer.train_step() for _ in range(5)]

    for once, passes in zip(losses(1), losses(2), strict=True):
        assert passes == pytest.approx(once, rel=1e-3)


@pytest.mark.extra
def test_a_stream_has_the_samples_of_webdataset(tmp_path):
    wds = pytest.importorskip("webdataset.tariterators")
    names = [
        "a/b.c/0.PNG",
        "a/b.c/0.txt",
        "a/b.c/0.json",
        "1.depth.png",
        "1.wav",
        "none",
        "x/2.txt",
    ]
    path = tar_of(tmp_path / "a.tar", *((name, name.encode()) for name in names))
    with path.open("rb") as stream:
        samples = list(wds.group_by_keys(wds.tar_file_expander([{"url": "a", "stream": stream}])))
    with path.open("rb") as stream:
        passing = pass_tar(stream, wds.group_by_keys, print)
        found = {key: item for key, item, fault in passing if fault is None}
    assert found.keys() == {sample["__key__"] for sample in samples}
    assert found["a/b.c/0"] == {"image": b"a/b.c/0.PNG", "text": b"a/b.c/0.txt"}
    assert all({*found[s["__key__"]].values()} <= {*s.values()} for s in samples)


def names_in(log):
    """The reasons in a file of bad samples, by name, less the folder of the tars."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert len({r["name"] for r in records}) == len(records)
    return {r["name"].removeprefix(f"file://{log.parent}/"): r["reason"] for r in records}


@pytest.mark.extra
def test_damage_in_a_stream_is_named_and_the_rest_is_read(tmp_path):
    files = [(f"{i:02d}.png", picture(i)) for i in range(10)]
    cut = tar_of(tmp_path / "a.tar", *files[:4])
    cut.write_bytes(cut.read_bytes()[: 512 + 3 * 1536 + 300])  # in the last picture
    twice = tar_of(tmp_path / "b.tar", files[4], files[5], files[5], files[6])
    apart = tar_of(tmp_path / "c.tar", files[7], files[8], ("07.txt", b"late"), files[9])
    (tmp_path / "d.tar").write_bytes(b"no tar at all" * 99)
    source = stream_of(cut, twice, apart, tmp_path / "d.tar", max_bad=0.5)
    source.bad.log(tmp_path / "bad.jsonl")
    read = [source.batch(source.order(0, i, 1), ["image"])["image"] for i in range(30)]
    good = files[:3] + [files[4]] + files[6:]  # of 7 what came first
    plain = tar_of(tmp_path / "e.tar", *good)
    wanted = shards_of(plain).batch(torch.arange(30), ["image"])["image"]
    assert torch.equal(torch.cat(read), wanted)
    named = names_in(tmp_path / "bad.jsonl")
    assert named.keys() == {"a.tar", "b.tar/05", "c.tar/07", "d.tar"}
    assert "two of image" in named["b.tar/05"] and "again" in named["c.tar/07"]
    assert "unexpected end" in named["a.tar"] and "as a tar" in named["d.tar"]


@pytest.mark.extra
def test_too_much_damage_in_a_stream_ends_the_run_whichever_thread_meets_it(tmp_path):
    twice = ((f"{i:02d}.png", picture(i)) for i in range(40) for _ in range(1 + (i > 9)))
    path = tar_of(tmp_path / "a.tar", *twice)
    for workers in (0, 3):
        source, model = stream_of(path), tiny_model()
        data = feed(model, Denoise(), meet(model, Denoise(), source, tmp_path), 0, "cpu")
        trainer = Trainer(model, Denoise(), data, steps=9, batch=4, warmup=1, workers=workers)
        with pytest.raises(
            MediaError, match=r"a.tar/\d+' \(tar: its key has two of image\).*max_bad"
        ):
            for _ in range(9):
                trainer.train_step()
        trainer.read.close()


NOWHERE = {
    "no file": (
        "file:///no/such.tar",
        UsageError,
        "'file:///no/such.tar', which is no file; check",
    ),
    "a folder": ("file:///", UsageError, "is no file"),
    "no package": ("http://host/a.tar", UsageError, "takes aiohttp; type pip install aiohttp"),
    "no protocol": ("hptt://host/a.tar", UsageError, "no URL of fsspec"),
    "no tar": ("file://{}/words", MediaError, "words' is not used: it cannot be read as a tar"),
    "refused": ("file://{}/a.tar", MediaError, "/evil.pkl' is not used: a pickle or a program"),
}


@pytest.mark.extra
@pytest.mark.parametrize("case", NOWHERE)
def test_a_stream_of_nothing_says_so_in_a_sentence(tmp_path, monkeypatch, case):
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, "aiohttp", None)  # it cannot be imported
    (tmp_path / "words").write_text("no tar" * 999)
    tar_of(tmp_path / "a.tar", ("evil.pkl", b"x"), ("more.pkl", b"x"))
    url, error, words = NOWHERE[case]
    source = Stream(url.format(tmp_path))
    source.attach(kinds_of(MODEL), bool)
    for ask in (
        lambda: source.available(source.order(0, 0, 2)),
        lambda: source.lessons("image", 2),
    ):
        with pytest.raises(error, match=words) as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_a_tar_of_which_all_is_refused_says_what_and_why(tmp_path):
    path = tar_of(tmp_path / "a.tar", *(f for name in HOSTILE for f in HOSTILE[name]))
    words = f"{len(HOSTILE)} refused, such as 'a.tar/../evil.png': its name leads out"
    with pytest.raises(MediaError, match=f"holds no items .*{words}"):
        Shards(str(path))
