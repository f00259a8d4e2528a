"""Training data from files: what belongs together, in which order, and what becomes of damage."""

import importlib.util
import json
import os

import pytest
import torch
from media_folder import BREAKS, mixed, mp4, png, spoil, txt, wav
from tiny import NAMES, tiny_model, tiny_world

from unigen.data.ahead import Ahead
from unigen.data.bad import Bad
from unigen.data.feed import Feed, feed, kinds_of, meet
from unigen.data.folder import Folder
from unigen.data.manifest import Manifest
from unigen.errors import MediaError, ResourceError, UsageError
from unigen.objectives import Align, Codec, Denoise
from unigen.trainer import Trainer

MODEL = tiny_model()
#: Presence sets (first letters) and noise seeds (mod 1000) of seeds 0 to 7, as ever.
GOLDEN = [
    "aiv", 461, "tv", 120, "av", 602, "i", 354,
    "atv", 386, "ai", 463, "aitv", 633, "iv", 510,
]  # fmt: skip


def folder_of(root, **options):
    source = Folder(str(root), **options)
    source.attach(kinds_of(MODEL))
    return source


def epoch_of(source, batch, seed=0, epoch=0):
    steps = sum(-(-len(kind) // batch) for kind in source.kinds)
    return [source.order(seed, epoch * steps + s, batch) for s in range(steps)]


def equal(a, b):
    same = a.keys() == b.keys()
    return same and all(
        torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a
    )


@pytest.fixture
def media(tmp_path):
    mixed(tmp_path / "media", 20)
    return tmp_path / "media"


def test_files_with_the_same_id_belong_together(tmp_path):
    png(tmp_path / "image/a.b.png", 0)
    png(tmp_path / "image/deep/c.png", 1)
    wav(tmp_path / "audio/a.b.wav", 0)
    mp4(tmp_path / "video/d.mp4", 0)
    txt(tmp_path / "text/a.b.txt", "one", "", " two ")
    txt(tmp_path / "image/deep/c.txt", "beside the picture")
    source = folder_of(tmp_path)
    assert source.names == ["a.b", "d", "deep/c"]
    assert [set(item) for item in source.listing.items] == [
        {"image", "audio", "text"}, {"video"}, {"image", "text"}
    ]  # fmt: skip
    assert source.lessons("text", 9) == ["one", "two", "beside the picture"]
    assert source.describe(2) == "deep/c"
    assert source.available(torch.tensor([0, 2])) == ["image", "text"]


def test_files_side_by_side_and_a_metadata_file(tmp_path):
    for name in ("cat", "dog", "owl"):
        png(tmp_path / f"{name}.png", 0)
    wav(tmp_path / "cat.wav", 0)
    txt(tmp_path / "owl.txt", "an owl")
    (tmp_path / "notes.md").write_text("not media")
    rows = [{"file_name": "cat.png", "text": "a cat"}, {"file_name": "dog.png", "text": "a dog"},
            {"file_name": "dog.png", "text": "another dog"}]  # fmt: skip
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = folder_of(tmp_path)
    items = dict(zip(source.names, source.listing.items, strict=True))
    assert {k: set(v) for k, v in items.items()} == {
        "cat": {"image", "audio", "text"}, "dog": {"image", "text"}, "owl": {"image", "text"}
    }  # fmt: skip
    assert items["dog"]["text"] == ["a dog", "another dog"]
    assert any("1 files of other kinds" in note for note in source.notes)
    (tmp_path / "metadata.jsonl").unlink()
    table = 'file_name,caption\ncat.png,"a cat, asleep"\ngone.png,a ghost\n'
    (tmp_path / "metadata.csv").write_text(table)
    source = folder_of(tmp_path)
    assert source.listing.items[0]["text"] == ["a cat, asleep"]
    assert [name for name, _, reason in source.refused if "missing" in reason] == ["gone.png"]


def test_a_metadata_file_speaks_of_its_own_folder_and_the_nearest_holds(tmp_path):
    for name in ("train/a.png", "train/b.png", "test/a.png", "test/deep/c.png"):
        png(tmp_path / name, 0)
    (tmp_path / "metadata.csv").write_text("file_name,text\ntrain/b.png,far\ntest/a.png,test a\n")
    (tmp_path / "train/metadata.csv").write_text("file_name,text\na.png,train a\nb.png,near\n")
    row = {"file_name": "deep/c.png", "text": ["c", "deep"]}
    gone = {"file_name": "gone.png", "text": "a ghost"}
    (tmp_path / "test/metadata.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(gone)}\n")
    source = folder_of(tmp_path)
    said = zip(source.names, (item["text"] for item in source.listing.items), strict=True)
    assert dict(said) == {"train/a": ["train a"], "train/b": ["near"], "test/a": ["test a"],
                          "test/deep/c": ["c", "deep"]}  # fmt: skip
    assert [refused.name for refused in source.refused] == ["test/gone.png"]
    assert not any("left out" in note for note in source.notes)


@pytest.mark.parametrize(
    "suffix", [".jsonl", ".csv", pytest.param(".parquet", marks=pytest.mark.extra)]
)
def test_a_manifest_is_a_table_of_paths_and_captions(tmp_path, suffix):
    png(tmp_path / "pictures/a.png", 0)
    wav(tmp_path / "sounds/b.wav", 0)
    rows = [{"image": "pictures/a.png", "audio": None, "text": "one"},
            {"image": None, "audio": "sounds/b.wav", "text": "two"}]  # fmt: skip
    path = tmp_path / f"list{suffix}"
    if suffix == ".csv":
        path.write_text("image,audio,text\npictures/a.png,,one\n,sounds/b.wav,two\n")
    elif suffix == ".jsonl":
        rows[0]["text"] = ["one", "uno"]
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    source = Manifest(str(path))
    source.attach(kinds_of(MODEL))
    assert [set(item) for item in source.listing.items] == [{"image", "text"}, {"audio", "text"}]
    assert source.read(0, "image", 0).shape == (1, 3, 16, 16)
    if suffix == ".jsonl":
        assert {source.read(0, "text", i)[0] for i in range(2)} == {"one", "uno"}


def test_an_epoch_shows_each_item_once_in_batches_of_one_kind(media):
    source = folder_of(media)
    for batch in (1, 3, 8):
        for epoch in (0, 1):
            shown = epoch_of(source, batch, epoch=epoch)
            items = torch.cat(shown) % len(source)
            assert set(items.tolist()) == set(range(len(source)))
            for index in shown:
                kinds = {tuple(source.has[i].tolist()) for i in (index % len(source)).tolist()}
                assert len(kinds) == 1 and len(index) == batch
                assert (index // len(source) == epoch).all()
        if batch == 1:
            assert len(items.unique()) == len(items)
    first, second = (torch.cat(epoch_of(source, 1, epoch=e)) % len(source) for e in (0, 1))
    assert not torch.equal(first, second)
    assert not torch.equal(first, torch.cat(epoch_of(source, 1, seed=1)))


def test_order_and_batches_are_a_function_of_seed_and_step_alone(media):
    a, b = folder_of(media), folder_of(media)
    steps = list(range(12))
    forward = [a.order(3, s, 4) for s in steps]
    backward = [b.order(3, s, 4) for s in reversed(steps)][::-1]
    assert all(torch.equal(x, y) for x, y in zip(forward, backward, strict=True))
    index = forward[7]
    parts = a.available(index)
    assert equal(a.batch(index, parts), b.batch(index, parts))


def test_a_caption_is_a_function_of_seed_epoch_and_item(tmp_path):
    for i in range(30):
        txt(tmp_path / f"text/{i}.txt", "one", "two", "three")
    source, again, other = (folder_of(tmp_path, seed=seed) for seed in (0, 0, 1))
    index = torch.arange(90)
    said = source.batch(index, ["text"])["text"]
    assert said == again.batch(index.flip(0), ["text"])["text"][::-1]
    assert said != other.batch(index, ["text"])["text"]
    assert said[:30] != said[30:60]  # another epoch
    assert {said.count(word) > 15 for word in ("one", "two", "three")} == {True}


def test_threads_that_read_ahead_change_no_bit(media):
    def losses(workers, cache):
        model, source = tiny_model(), folder_of(media)
        data = feed(model, Denoise(), meet(model, Denoise(), source, media), cache, "cpu")
        trainer = Trainer(model, Denoise(), data, steps=5, batch=3, warmup=2, workers=workers)
        return [{k: v.hex() for k, v in trainer.train_step().items()} for _ in range(5)]

    straight = losses(0, 0)
    assert straight == losses(2, 0)
    assert len({tuple(sorted(step)) for step in straight}) > 2  # several presence sets
    cached = losses(2, 100)
    assert [step.keys() for step in cached] == [step.keys() for step in straight]


def test_reading_ahead_gives_what_was_asked_and_errors_at_their_step():
    def make(step):
        if step == 4:
            raise MediaError("four")
        return step * step

    for workers in (0, 1, 3):
        ahead = Ahead(make, workers)
        assert [ahead(step) for step in (0, 1, 2, 3, 9, 2)] == [0, 1, 4, 9, 81, 4]
        with pytest.raises(MediaError, match="four"):
            ahead(4)
        assert ahead(5) == 25
        ahead.close()


def test_the_first_result_is_made_before_those_that_follow_it():
    for _ in range(20):
        order = []
        ahead = Ahead(order.append, 3)
        ahead(7)
        ahead.close()
        assert order[0] == 7


@pytest.mark.parametrize(
    ("objective", "usable"),
    [(Codec("image"), {"image"}), (Align(), set()), (Align("text"), {"text"}), (Denoise(), set())],
)
def test_each_objective_learns_from_what_it_can_use(media, objective, usable):
    model = tiny_model()
    source = meet(model, objective, Folder(str(media)), media)
    data = feed(model, objective, source, 0, "cpu")
    trainer = Trainer(model, objective, data, steps=6, batch=4, warmup=1)
    for step in range(6):
        there = source.available(source.order(0, step, 4))
        assert usable <= set(there)
        assert len(there) > isinstance(objective, Align)
        assert all(torch.isfinite(torch.tensor(v)) for v in trainer.train_step().values())


@pytest.mark.parametrize(
    ("objective", "size", "words"),
    [
        (Denoise(), {"size": 32}, r"image of the data .* \[3, 32, 32\], .* model \[3, 16, 16\]"),
        (Codec("audio"), {"rate": 16_000}, r"audio of the data .* \[32000\], .* \[16000\]"),
        (Codec("video"), {"frames": 8}, r"video of the data .* \[8, 3, 16, 16\]"),
        (Codec("audio"), {"size": 32}, None),  # nothing of it is learned
    ],
)
def test_media_of_another_size_than_the_models_are_refused(objective, size, words, tmp_path):
    world = tiny_world(**size)
    if words is None:
        assert meet(tiny_model(), objective, world, tmp_path) is world
    else:
        with pytest.raises(UsageError, match=words):
            meet(tiny_model(), objective, world, tmp_path)


def test_what_has_all_parts_is_drawn_as_ever():
    """The world and its cached latents: the presence sets of the first steps, and the noise."""
    denoise, model, world = Denoise(), tiny_model(), tiny_world()
    drawn = []
    for step in range(8):
        rng = torch.Generator().manual_seed(step)
        drawn.append("".join(part[0] for part in denoise.parts(model, rng)))
        drawn.append(int(torch.randint(2**62, (), generator=rng)) % 1000)
    assert drawn == GOLDEN
    for step in range(40):
        a, b = (torch.Generator().manual_seed(step) for _ in range(2))
        assert denoise.parts(model, a) == denoise.parts(model, b, list(NAMES))
        assert torch.equal(a.get_state(), b.get_state())
    trainer = Trainer(model, Codec("image"), world, seed=2, steps=2, batch=3, workers=2)
    work = trainer.read(5)
    rng = torch.Generator().manual_seed(2 * 1_000_003 + 5)
    ((_, batch),) = work.batches
    assert equal(batch, world.batch(torch.arange(15, 18), ["image"]))
    assert work.noise == int(torch.randint(2**62, (), generator=rng))


def test_without_a_cache_the_world_is_encoded_as_it_comes():
    model, objective = tiny_model(), Denoise()
    live = feed(model, objective, tiny_world(), 0, "cpu")
    assert isinstance(live, Feed)
    raw = live.batch(torch.arange(4), ["image", "text"])
    batch = live.finish(raw)
    cached = feed(model, objective, tiny_world(), 4, "cpu").batch(
        torch.arange(4), ["image", "text"]
    )
    assert batch.keys() == cached.keys()
    for part, z in cached.items():
        assert torch.allclose(batch[part], z, atol=0.05)


def broken_folder(root, count, share, clips):
    files = mixed(root, count, clips)
    chosen = torch.randperm(len(files), generator=torch.Generator().manual_seed(0))
    bad = {}
    for i in chosen.tolist():
        if len(bad) < share * count and files[i].stem not in {name for name, _ in bad}:
            how = BREAKS[len(bad) % len(BREAKS)]
            spoil(files[i], how)
            bad[files[i].stem, files[i].parent.name] = how
    return bad


def named_and_used(root, log, batch=8):
    source = folder_of(root)
    source.bad.log(log)
    used = set()
    read, raws = source.read, []

    def spy(item, part, draw):
        raw = read(item, part, draw)
        used.add((source.names[item], part))
        raws.append(raw)
        return raw

    source.read = spy
    for index in epoch_of(source, batch):
        for part in source.available(index):  # part by part: a broken one hides no other
            source.batch(index, [part])
    records = [json.loads(line) for line in log.read_text().splitlines()]
    everything = {
        (n, p) for n, i in zip(source.names, source.listing.items, strict=True) for p in i
    }
    return records, used, everything


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_exactly_the_broken_are_named_and_all_the_rest_is_used(tmp_path, count):
    bad = broken_folder(tmp_path / "media", count, 0.05, 3 + count // 100)
    records, used, everything = named_and_used(tmp_path / "media", tmp_path / "bad.jsonl")
    assert len(records) == len(bad)
    assert {(r["name"], r["part"]) for r in records} == set(bad)
    assert used == everything - set(bad)
    assert all(r["reason"] and "/" not in r["reason"].split()[0] for r in records)
    print(json.dumps({"items": count, "broken": len(bad), "named": len(records)}))


def test_a_broken_item_is_replaced_by_the_next_good_one_of_its_kind(tmp_path):
    for i in range(6):
        png(tmp_path / f"image/{i}.png", i)
    whole = folder_of(tmp_path).batch(torch.tensor([0, 4, 0]), ["image"])["image"]
    for i in (2, 3):
        spoil(tmp_path / f"image/{i}.png", "zeroed")
    spoil(tmp_path / "image/5.png", "empty")
    got = folder_of(tmp_path).batch(torch.tensor([0, 2, 5]), ["image"])["image"]
    assert torch.equal(got, whole)
    for i in (0, 1, 4):
        (tmp_path / f"image/{i}.png").write_bytes(b"")
    with pytest.raises(MediaError, match="every item with image is broken"):
        folder_of(tmp_path).batch(torch.tensor([0]), ["image"])


def test_too_many_broken_ones_end_the_run_by_name(tmp_path):
    files = mixed(tmp_path / "media", 60, clips=0)
    for path in files[::3]:
        spoil(path, "zeroed")
    model, source = tiny_model(), Folder(str(tmp_path / "media"))
    data = feed(model, Denoise(), meet(model, Denoise(), source, tmp_path), 0, "cpu")
    trainer = Trainer(model, Denoise(), data, steps=99, batch=8, workers=2)
    with pytest.raises(MediaError, match=r"of the \d+ samples .*bad_samples.*max_bad=0\.05") as it:
        for _ in range(99):
            trainer.train_step()
    assert it.value.exit_code == 3
    assert (tmp_path / "bad_samples.jsonl").read_text().count("\n") >= 2


def test_the_share_of_broken_ones_is_borne_up_to_the_limit():
    bad = Bad(0.05, 1000)
    assert not bad.too_many(19, 19)
    assert not bad.too_many(5, 20)
    assert bad.too_many(6, 20)
    assert bad.too_many(80, 900)
    assert not bad.too_many(50, 1000)
    assert bad.too_many(51, 1000)


@pytest.mark.parametrize("most", [2.0, -0.1, float("nan"), True, "abc", None])
def test_a_share_of_broken_ones_is_a_number_from_0_to_1(most):
    spec = importlib.util.spec_from_file_location("unhooked", importlib.util.find_spec(
        "unigen.data.bad").origin)  # fmt: skip
    unhooked = importlib.util.module_from_spec(spec)  # as a run has it: types are not checked
    spec.loader.exec_module(unhooked)
    with pytest.raises(UsageError, match=f"max_bad={most} is no share .* from 0 to 1"):
        unhooked.Bad(most)
    assert [unhooked.Bad(share).most for share in (0, 0.5, 1)] == [0, 0.5, 1]


def test_samples_of_two_sources_with_the_same_names_are_both_named(tmp_path):
    for _ in range(2):  # a run, and the same one resumed
        for place in ("tr", "va"):
            mixed(tmp_path / place, 3, clips=0)
            spoil(tmp_path / place / "image/0001.png", "zeroed")
            table = tmp_path / place / "metadata.csv"
            table.write_text("file_name,text\nimage/gone.png,a ghost\n")
            source = meet(tiny_model(), Denoise(), Folder(str(tmp_path / place)), tmp_path)
            source.batch(torch.tensor([1]), ["image"])
    records = [json.loads(x) for x in (tmp_path / "bad_samples.jsonl").read_text().splitlines()]
    assert [(r["root"], r["name"], r["part"]) for r in records] == [
        (str((tmp_path / place).resolve()), *what)
        for place in ("tr", "va")
        for what in (("image/gone.png", "file_name"), ("0001", "image"))
    ]


@pytest.mark.parametrize("cache", [0, 100])
def test_data_of_which_all_is_broken_ends_with_a_sentence(tmp_path, cache):
    for i in range(3):
        spoil(png(tmp_path / f"media/image/{i}.png", i), "zeroed")
    model, source = tiny_model(), Folder(str(tmp_path / "media"))
    with pytest.raises(MediaError, match=r"(all 3|every) item.* broken, such as '\d'.*data check"):
        data = feed(model, Denoise(), meet(model, Denoise(), source, tmp_path), cache, "cpu")
        Trainer(model, Denoise(), data, steps=1, batch=2).train_step()


def test_a_sample_is_named_once_by_however_many_processes(tmp_path):
    path, record = tmp_path / "bad.jsonl", {"name": "a", "part": "image", "reason": "empty"}
    first, second = Bad(), Bad()
    first.log(path)
    second.log(path)
    first.write(record)
    second.write(record)
    assert path.read_text().count("\n") == 1
    path.write_bytes(path.read_bytes() + b'{"name": "b", "pa')  # a kill in the middle of a line
    second.write({**record, "name": "b"})
    first.write({**record, "name": "b"})
    lines = path.read_bytes().splitlines()
    assert [json.loads(lines[i])["name"] for i in (0, 2)] == ["a", "b"] and len(lines) == 3


def test_samples_of_a_run_that_diverges_are_named(tmp_path):
    mixed(tmp_path / "media", 8, clips=0)
    model, source = tiny_model(), Folder(str(tmp_path / "media"))
    data = feed(model, Denoise(), meet(model, Denoise(), source, tmp_path), 0, "cpu")
    trainer = Trainer(model, Denoise(), data, steps=99, batch=4, warmup=1, patience=9)
    loss = trainer.objective.loss
    trainer.objective.loss = lambda *some: {k: x * torch.nan for k, x in loss(*some).items()}
    with pytest.raises(ResourceError, match="not finite for 9 steps in a row") as it:
        for _ in range(9):  # several epochs
            trainer.train_step()
    told = str(it.value).partition("samples are ")[2].partition(";")[0].split(", ")
    assert len(told) == 4 and {*told} <= {*source.names}


def test_a_sample_is_named_once_however_often_a_run_is_resumed(tmp_path):
    for _ in range(2):
        bad = Bad()
        bad.log(tmp_path / "bad.jsonl")
        for _ in range(2):
            bad.add(0, "image", {"name": "a", "part": "image", "reason": "cut"})
    assert (tmp_path / "bad.jsonl").read_text().count("\n") == 1


REFUSED = {
    "an empty folder": (lambda p: p.mkdir(), MediaError, "holds no items.*wanted"),
    "no folder": (lambda p: None, UsageError, "is no folder"),
    "a link to itself": (lambda p: p.symlink_to(p), UsageError, "is no folder"),
    "no column of captions": (
        lambda p: (png(p / "a.png", 0), (p / "metadata.csv").write_text("file_name,label\na,b\n")),
        UsageError, "no column of captions; it has file_name, label",
    ),
    "no file_name": (
        lambda p: (png(p / "a.png", 0), (p / "metadata.csv").write_text("path,text\na,b\n")),
        UsageError, "no column 'file_name'; it has path, text",
    ),
    "captions that are not UTF-8": (
        lambda p: (png(p / "a.png", 0),
                   (p / "metadata.csv").write_bytes(b"file_name,text\na,\xff")),
        MediaError, "is not UTF-8 text at byte 17",
    ),
    "a row without file_name": (
        lambda p: (png(p / "a.png", 0), (p / "metadata.jsonl").write_text(
            '{"file_name": "a.png", "text": "b"}\n\n{"file": "a.png", "text": "b"}\n')),
        UsageError, r"metadata.jsonl line 3 has no column 'file_name'; it has file, text, and",
    ),
    "a path that leads out": (
        lambda p: (png(p / "a.png", 0),
                   (p / "metadata.csv").write_text("file_name,text\n../x.png,b\n")),
        UsageError, r"'\.\./x\.png', which leads out",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_cannot_be_read_says_so_in_a_sentence(tmp_path, name):
    make, error, words = REFUSED[name]
    make(tmp_path / "media")
    with pytest.raises(error, match=words) as caught:
        Folder(str(tmp_path / "media"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("picture,words\na,b\n", UsageError, "has the columns picture, words; wanted"),
        ("image,text\n/etc/passwd,b\n", UsageError, "'/etc/passwd', which leads out"),
        ("image,text\nx/../../a.png,b\n", UsageError, "leads out"),
        ("image,text\nhttp://a/b.png,b\n", UsageError, "leads out"),
        ("image,text\nno.png,b\n", None, "no.png"),
        ("image\nno.png\n", UsageError, "none of them exists"),
        ("image,text\na,b,c\n", MediaError, "line 2 has another number of fields"),
        ("image,text\n", MediaError, "has no rows"),
    ],
)
def test_a_manifest_that_cannot_be_read_says_so_in_a_sentence(tmp_path, text, error, words):
    path = tmp_path / "list.csv"
    path.write_text(text)
    if error is None:  # the caption stays, the missing file is named
        assert words in Manifest(str(path)).refused[0].name
        return
    with pytest.raises(error, match=words):
        Manifest(str(path))


def test_a_root_that_contains_them_allows_paths_above_the_manifest(tmp_path):
    png(tmp_path / "pictures/a.png", 0)
    (tmp_path / "lists").mkdir()
    path = tmp_path / "lists/list.csv"
    path.write_text(f"image,text\n../pictures/a.png,one\n{tmp_path}/pictures/a.png,two\n")
    with pytest.raises(UsageError, match="leads out"):
        Manifest(str(path))
    assert len(Manifest(str(path), str(tmp_path))) == 2


def test_links_out_of_a_folder_and_loops_are_left_and_said(tmp_path):
    root = tmp_path / "media"
    png(root / "a.png", 0)
    png(tmp_path / "secret.png", 1)
    (root / "b.png").symlink_to(tmp_path / "secret.png")
    (root / "c.png").symlink_to(root / "c.png")
    (root / "again").symlink_to(root)
    (root / "d.png").symlink_to(root / "a.png")
    source = folder_of(root)
    assert source.names == ["a", "d"]
    assert any(note.startswith("3 links") for note in source.notes)


def test_what_is_no_regular_file_is_left_and_named(tmp_path):
    for name in ("image/a.png", "depth/a.png"):  # depth: no modality of ours
        os.mkfifo(png(tmp_path / name, 0).with_name("pipe.png"))
    source = Folder(str(tmp_path))
    assert [set(item) for item in source.listing.items] == [{"image", "depth"}]
    assert source.notes == [
        "2 are no regular files and are left out ('depth/pipe.png', 'image/pipe.png')"
    ]


def test_what_is_missing_is_said_once(media, capsys):
    meet(tiny_model(), Denoise(), Folder(str(media)), media)
    assert capsys.readouterr().err.count("have no text") == 1


def test_captions_that_are_not_utf8_are_broken_samples(tmp_path):
    for i in range(3):
        txt(tmp_path / f"text/{i}.txt", f"words {i}")
    (tmp_path / "text/1.txt").write_bytes(b"\xff\xfe\xfa")
    source = folder_of(tmp_path)
    assert source.batch(torch.tensor([1]), ["text"])["text"] == ["words 2"]
    assert "UTF-8" in source.bad.reasons[1, "text"]


@pytest.mark.parametrize("cache", [0, 8])
def test_a_source_of_ones_own_may_lack_a_modality(cache):
    class Half:
        parts, order = ("text", "image", "smell"), tiny_world().order

        def batch(self, index, parts):
            assert {*parts} <= {"text", "image"}
            return tiny_world().batch(index, parts)

    model = tiny_model()
    data = feed(model, Denoise(), Half(), cache, "cpu")
    assert sorted(data.available(torch.arange(2))) == ["image", "text"]
    trainer = Trainer(model, Denoise(), data, batch=4, steps=6, bf16=False)
    losses = [trainer.train_step() for _ in range(6)]
    assert {part for loss in losses for part in loss if part in NAMES} == {"text", "image"}
