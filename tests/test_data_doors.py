"""`unigen data check|shard|encode`, and training on what they make, as a user types them."""

import json
import os
from pathlib import Path

import pytest
import torch
from media_folder import mixed, png, spoil, txt
from tiny import tiny_model

from unigen import cli
from unigen.data.encode import on_disk
from unigen.data.feed import feed, kinds_of, meet
from unigen.data.folder import Folder
from unigen.data.rows import LatentShards, codec_of
from unigen.disk import staged
from unigen.errors import MediaError, UsageError
from unigen.objectives import Align, Codec, Denoise
from unigen.owner import lock
from unigen.trainer import Trainer


@pytest.fixture
def media(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNIGEN_TRACEBACK", raising=False)
    mixed(tmp_path / "media", 12)
    return tmp_path / "media"


def folder_of(root, model):
    source = Folder(str(root), max_bad=0.5)
    source.attach(kinds_of(model))
    return source


def unigen(capfd, *argv):
    code = cli.main(list(argv))
    out, err = capfd.readouterr()
    return code, out.splitlines(), err


def test_check_counts_what_is_there(media, capfd):
    png(media / "image/twin.png", 0)  # as 0000.png
    code, lines, _ = unigen(capfd, "data", "check", "data=folder", "data.root=media", "out=report")
    assert code == 0
    report = json.loads((media.parent / lines[-1]).read_text())
    files = {p.name: len(list(p.iterdir())) for p in media.iterdir()}
    assert {part: facts["files"] for part, facts in report["parts"].items()} == files
    assert report["parts"]["video"]["seconds"] == 6.0
    assert report["parts"]["image"]["largest"] == "16x16"
    assert sum(report["kinds"].values()) == report["items"] == 13
    assert report["duplicates"] == [{"part": "image", "names": ["0000", "twin"]}]
    assert "same image: 0000, twin" in lines


def test_a_manifest_and_odd_names_pass_through_every_door(media, capfd):
    rows = [{"image": f"image/{i:04d}.png", "text": "a red circle"} for i in range(3)]
    (media / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, lines, _ = unigen(
        capfd, "data", "check", "data=manifest", "data.manifest=media/list.jsonl"
    )
    assert code == 0 and lines[0] == "3 items"
    png(media / "image" / os.fsdecode(b"\xff.png"), 99)  # a name that is no UTF-8
    code, lines, _ = unigen(capfd, "data", "check", "data.root=media")
    assert code == 0 and lines[0] == "13 items"
    assert unigen(capfd, "data", "shard", "data.root=media", "out=packed")[0] == 0
    code, lines, _ = unigen(capfd, "data", "check", "data=shards", "data.root=packed")
    assert code == 0 and lines[0] == "13 items"


def test_check_names_what_is_broken_and_exits_with_3(media, capfd):
    spoil(media / "image/0003.png", "cut")
    spoil(media / "video/0001.mp4", "cut")
    spoil(media / "audio/0004.wav", "text renamed")
    code, lines, err = unigen(capfd, "data", "check", "data.root=media")
    assert code == 3
    broken = [line.split(": ")[1] for line in lines if line.startswith("broken")]
    assert broken == ["0001 (video)", "0003 (image)", "0004 (audio)"]
    assert "3 files are broken, of 3 items" in err.splitlines()[-1]


def test_shards_are_made_checked_and_packed_by_the_same_words(media, capfd):
    code, lines, _ = unigen(capfd, "data", "shard", "data.root=media", "out=shards", "items=5")
    assert (code, lines) == (0, [str(media.parent / "shards")])
    code, lines, _ = unigen(capfd, "data", "check", "data=shards", "data.root=shards")
    assert code == 0 and lines[0] == "12 items"
    shard = media.parent / "shards/shard-00001.tar"
    shard.write_bytes(shard.read_bytes()[:2000])
    code, lines, _ = unigen(capfd, "data", "check", "data=shards", "data.root=shards")
    assert code == 3 and any("shard-00001.tar:" in line for line in lines)


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("data", "check", "data.root=none"), 2, "data.root=none is no folder"),
        (("data", "check"), 2, "data.root is not set"),
        (("data", "chekc"), 2, "did you mean 'data check'?"),
        (("data",), 2, "unknown verb 'data'; did you mean 'data"),
        (("data", "shard", "data.root=media"), 2, "out is not set"),
        (("data", "check", "data=world"), 2, "data that lies in files"),
        (("data", "encode", "data.root=media", "out=a", "dtype=int3"), 2, "dtype=int3"),
        (("data", "check", "dta=folder"), 2, "data check has no key 'dta'"),
    ],
)
def test_a_wrong_line_says_so(media, capfd, argv, code, words):
    got, _, err = unigen(capfd, *argv)
    assert got == code
    assert words in err


def test_one_process_at_a_time_writes_a_folder(media, capfd):
    with lock("latents"):
        code, _, err = unigen(capfd, "data", "encode", "data.root=media", "out=latents")
    assert code == 2 and "latents' is used by another run" in err
    with staged(Path("shards").absolute(), 1) as other:
        code, _, err = unigen(capfd, "data", "shard", "data.root=media", "out=shards")
        assert code == 2 and "shards' is being written by another process" in err
        assert other.is_dir()


def test_every_door_has_its_page(capfd):
    for verb in ("check", "shard", "encode"):
        code, lines, _ = unigen(capfd, "data", verb, "--help")
        assert code == 0 and lines[0].startswith(f"unigen data {verb}")


def test_a_path_is_data(media, capfd):
    odd = media.parent / "a b, [c] ${d} = é"
    media.rename(odd)
    code, lines, _ = unigen(capfd, "data", "check", f"data.root={odd}")
    assert code == 0 and lines[0] == "12 items"


def test_latents_are_those_of_the_codecs_every_caption_its_own(media, tmp_path):
    model = tiny_model()
    source = folder_of(media, model)
    spoil(media / "image/0003.png", "zeroed")
    on_disk(source, model, tmp_path / "latents", items=5)
    latents = LatentShards(str(tmp_path / "latents"))
    latents.attach(kinds_of(model))
    assert latents.names == source.names
    assert [source.names[i] for i, _ in source.bad.reasons] == ["0003"]
    lacking = source.has & ~latents.has
    assert lacking.nonzero().tolist() == [[3, source.parts.index("image")]]
    for index in (torch.arange(3), torch.tensor([12, 25, 38])):  # other epochs, other captions
        for part in ("text", "image", "video")[: 3 if index[0] == 0 else 1]:
            raw = source.batch(index, [part])[part]
            with torch.no_grad():
                z = model.modality(part).encode(raw)
            assert torch.allclose(latents.batch(index, [part])[part].float(), z, atol=0.05)


def test_encoding_goes_on_where_it_was_killed(media, tmp_path):
    model = tiny_model()
    whole = on_disk(folder_of(media, model), model, tmp_path / "whole", items=4)
    half = on_disk(folder_of(media, model), model, tmp_path / "half", items=4)
    (half / "index.json").unlink()
    (half / "latents-00001.json").unlink()
    (half / "latents-00002.json").unlink()
    (half / "latents-00002.safetensors").rename(half / "latents-00002.part")
    kept = (half / "latents-00000.safetensors").stat().st_mtime_ns
    with pytest.raises(UsageError, match="half-made"):
        LatentShards(str(half))
    on_disk(folder_of(media, model), model, half, items=4)
    assert (half / "latents-00000.safetensors").stat().st_mtime_ns == kept
    assert {p.name: p.read_bytes() for p in half.iterdir()} == {
        p.name: p.read_bytes() for p in whole.iterdir()
    }
    with pytest.raises(UsageError, match="other items, codecs or options"):
        on_disk(folder_of(media, tiny_model(seed=3)), tiny_model(seed=3), half, items=4)


def test_latents_of_other_codecs_are_refused(media, tmp_path):
    model = tiny_model()
    on_disk(folder_of(media, model), model, tmp_path / "latents")
    other = tiny_model(seed=3)
    with pytest.raises(UsageError, match=r"other codecs than this model's; .*init="):
        LatentShards(str(tmp_path / "latents")).attach(kinds_of(other))
    same = tiny_model()
    same.modality("image").tower.load_state_dict(other.modality("image").tower.state_dict())
    LatentShards(str(tmp_path / "latents")).attach(kinds_of(same))  # towers make no latents
    before = codec_of(same.modality("video"))
    torch.nn.init.zeros_(same.modality("image").codec.embed.weight)  # the stills of its frames
    assert codec_of(same.modality("video")) != before
    with pytest.raises(UsageError, match="latents teach no codec"):
        meet(model, Codec("image"), LatentShards(str(tmp_path / "latents")), tmp_path)


def test_a_damaged_shard_of_latents_is_named(media, tmp_path):
    model = tiny_model()
    out = on_disk(folder_of(media, model), model, tmp_path / "latents", items=6)
    path = out / "latents-00000.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    source = LatentShards(str(out), max_bad=1.0)
    source.attach(kinds_of(model))
    source.bad.log(tmp_path / "bad.jsonl")
    source.batch(torch.arange(12), ["image"] if source.has[:, 1].all() else ["text"][:0])
    for kind in source.kinds:
        part = source.available(kind)[0]
        if (kind >= 6).any():
            source.batch(kind, [part])
    records = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert records
    assert {r["shard"] for r in records} == {"latents-00000.safetensors"}
    assert all("sha256" in r["reason"] for r in records)


@pytest.mark.parametrize("objective", [Align, Denoise])
def test_latents_train_as_the_media_do(media, tmp_path, objective):
    def losses(source):
        model, lesson = tiny_model(), objective()
        data = feed(model, lesson, meet(model, lesson, source, tmp_path), 0, "cpu")
        trainer = Trainer(model, lesson, data, steps=4, batch=4, warmup=1, workers=2, bf16=False)
        return [trainer.train_step() for _ in range(4)]

    model = tiny_model()
    on_disk(folder_of(media, model), model, tmp_path / "latents", items=5)
    raw = losses(Folder(str(media)))
    cached = losses(LatentShards(str(tmp_path / "latents")))
    for a, b in zip(raw, cached, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name] == pytest.approx(b[name], rel=0.1, abs=0.05), name


def test_training_on_a_folder_names_its_broken_files(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for i in range(24):
        png(tmp_path / f"media/image/{i:02d}.png", i)
        txt(tmp_path / f"media/text/{i:02d}.txt", "a small red circle", "a blue star")
    spoil(tmp_path / "media/image/07.png", "cut")
    tiny = ["modality=[text,image]", "model.denoiser.width=64", "model.denoiser.depth=3",
            "trainer.batch=8", "trainer.steps=6", "trainer.preview_every=0"]  # fmt: skip
    argv = ["train", "data=folder", "data.root=media", *tiny]
    code, lines, _ = unigen(capfd, *argv, "trainer.cache=0", "out=run", "data.max_bad=0.2")
    assert (code, lines) == (0, ["run/model"])
    (record,) = map(json.loads, (tmp_path / "run/bad_samples.jsonl").read_text().splitlines())
    assert (record["name"], record["part"]) == ("07", "image")
    for path in sorted((tmp_path / "media/image").iterdir())[::2]:
        path.write_bytes(b"")
    code, _, err = unigen(capfd, *argv, "out=run2", "trainer.cache=100")
    assert code == 3 and "data.max_bad=0.05" in err


def test_encoding_names_what_is_refused_and_what_is_broken(media, capfd):
    spoil(media / "image/0003.png", "cut")
    (media / "metadata.csv").write_text("file_name,text\nimage/gone.png,a ghost\n")
    for _ in range(2):  # named once, however often it is typed
        code, _, err = unigen(capfd, "data", "encode", "data.root=media", "out=latents")
        assert code == 0 and "latents/bad_samples.jsonl" in err
    records = map(json.loads, Path("latents/bad_samples.jsonl").read_text().splitlines())
    assert [(r["name"], r["part"]) for r in records] == [
        ("image/gone.png", "file_name"), ("0003", "image")
    ]  # fmt: skip


@pytest.mark.parametrize("finished", [False, True])
def test_the_progress_of_encoding_counts_items(media, tmp_path, capfd, finished):
    model = tiny_model()
    for _ in range(1 + finished):  # a folder that is there already counts, too
        capfd.readouterr()
        on_disk(folder_of(media, model), model, tmp_path / "latents", items=5)
    assert "| 12/12 [" in capfd.readouterr().err


def test_nothing_to_read_is_said(tmp_path):
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(MediaError, match="is no index of latents"):
        LatentShards(str(tmp_path))
