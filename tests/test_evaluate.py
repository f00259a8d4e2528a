"""The table of directions: a perfect model scores one, a blind one scores chance."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from full_disk import full_disk
from tiny import tiny_model

from unigen import evaluate, presence, reference, report
from unigen.data.world import World
from unigen.data.world.oracles import TELLS, read, truth
from unigen.errors import ResourceError, UsageError
from unigen.reference import FREE, QUICK, Setting

ROOT = Path(__file__).resolve().parents[1]
PARTS = World.parts


@pytest.fixture(scope="module", autouse=True)
def small_data():
    """Fewer scenes that say what the data are like: enough for the tests, and quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "DATA", 2000)
        yield
    reference.data_marginals.cache_clear()
    reference.data_mentions.cache_clear()


class Knower:
    """Returns the world's own media of the asked scene, or of the scene `shift` later."""

    modalities = dict.fromkeys(PARTS)

    def __init__(self, setting: Setting, shift: int = 0):
        self.world, self.shift = setting.world(), shift

    def generate(self, want, given, seeds, **options):
        index = torch.tensor(seeds)
        for part, raw in self.world.batch(index, list(given)).items():
            same = raw == given[part] if isinstance(raw, list) else torch.equal(raw, given[part])
            assert same, f"the {part} of other scenes came with these seeds"
        made = self.world.batch(index + self.shift, want)
        return [{p: raw[i : i + 1] for p, raw in made.items()} for i in range(len(seeds))]


def rows_of(model: Knower, setting: Setting, *wanted: str, n: int = 8) -> dict:
    """Rows of directions written as "image,text>audio", by (given, want, metric, attribute)."""
    pairs = [tuple(tuple(side.split(",")) if side else () for side in w.split(">")) for w in wanted]
    rows = evaluate.rows_of(model, setting, torch.arange(n), pairs)
    return {
        (",".join(r["given"]) + ">" + ",".join(r["want"]), r["metric"], r["attribute"]): r
        for r in rows
    }


def attributes(rows: dict, metric: str) -> set[str]:
    return {name for _, found, name in rows if found == metric}


def test_there_are_50_directions_of_four_parts():
    found = evaluate.directions(PARTS)
    assert len(found) == len(set(found)) == 50
    assert all(given and want and not set(given) & set(want) for given, want in found)
    assert len(evaluate.directions(PARTS[:3])) == 12


def test_no_evaluation_sees_scenes_of_the_training():
    trained = yaml.safe_load((ROOT / "conf/data/world.yaml").read_text())["seed"]
    assert {setting.world().seed for setting in (*reference.FULL, FREE)} == {reference.SEED}
    assert trained != reference.SEED


@pytest.mark.parametrize("setting", QUICK, ids=lambda s: f"{s.split}{s.objects}")
def test_the_scenes_are_those_of_the_setting(setting):
    scenes = setting.world().scenes(reference.scenes_of(0, 50))
    from unigen.data.world.scenes import held_out

    assert (scenes.count == setting.objects).all()
    assert (held_out(scenes) == (setting.split == "held_out")).all()
    assert not set(reference.scenes_of(0, 50).tolist()) & set(reference.scenes_of(1, 50).tolist())


@pytest.mark.parametrize("setting", QUICK, ids=lambda s: f"{s.split}{s.objects}")
def test_a_perfect_model_scores_one(setting):
    rows = rows_of(Knower(setting), setting, "text>image", "image,audio>video,text", "video>audio")
    scored = [key for key in rows if key[1] == "accuracy" or key[2] == "event"]
    assert {direction for direction, _, _ in scored} == {direction for direction, _, _ in rows}
    assert {key: rows[key]["value"] for key in scored} == dict.fromkeys(scored, 1.0)
    assert all(r["low"] <= r["value"] <= r["high"] for r in rows.values())


def test_a_blind_model_scores_chance():
    setting = Setting("seen", 1)
    rows = rows_of(Knower(setting, shift=1000), setting, "image>text", "text>image,audio", n=32)
    for direction in ("image>text", "text>image,audio"):
        for name, chance in (("color", 1 / 8), ("shape", 1 / 6)):
            found = rows[direction, "accuracy", name]
            assert found["value"] < chance + 4 * (chance * (1 - chance) / found["n"]) ** 0.5
        assert rows[direction, "accuracy", "all"]["value"] < 0.1
        assert rows[direction, "accuracy", "count"]["value"] == 1  # one object is all there is
    assert rows["image>text", "accuracy", "parses"]["value"] == 1


def test_only_attributes_that_both_sides_tell_have_rows():
    setting = Setting("seen", 1)
    rows = rows_of(Knower(setting), setting, "image>audio", "audio>video", "text>image", n=16)
    told = {k: {n for d, m, n in rows if (d, m) == (k, "accuracy")} for k, _, _ in rows}
    both = TELLS["image"] & TELLS["audio"]
    assert told["image>audio"] == both | {"mean", "all"}
    assert told["audio>video"] == TELLS["audio"] & TELLS["video"] | {"mean", "all"}
    said = read("text", setting.world().batch(torch.arange(16), ["text"])["text"])
    assert rows["text>image", "accuracy", "color"]["n"] == int((said.color[:, 0] >= 0).sum())
    assert rows["text>image", "accuracy", "shape"]["n"] == 16


def test_given_parts_tell_together_what_one_leaves_out():
    world = Setting("seen", 1).world()
    index = torch.arange(24)
    known, raw = truth(world.scenes(index)), world.batch(index, ["text", "audio"])
    given = [read(part, value) for part, value in raw.items()]
    alone, both = reference.shared(known, given[:1]), reference.shared(known, given)
    assert (alone.color < 0).any()
    assert torch.equal(both.color, known.color)
    assert alone.event.isnan().all()
    assert torch.equal(both.event, known.event)
    assert torch.equal(both.position < 0, given[0].position < 0)


def test_nothing_given_measures_agreement_distance_and_sync():
    rows = rows_of(Knower(FREE), FREE, ">video,audio", ">image,text", ">text", n=32)
    both = TELLS["video"] & TELLS["audio"]
    names = {n for d, m, n in rows if (d, m) == (">video,audio", "agreement")}
    assert names == both | {"mean", "all"}
    agreed = [r["value"] for (_, metric, _), r in rows.items() if metric == "agreement"]
    assert set(agreed) == {1.0}
    assert rows[">video,audio", "sync", "event"]["value"] == 1
    assert rows[">video,audio", "sync", "shuffled"]["value"] < 0.4
    for direction in (">video,audio", ">image,text"):
        found, floor = (rows[direction, "tv", name]["value"] for name in ("mean", "floor"))
        assert found < 2 * floor
    assert not any(metric == "agreement" for d, metric, _ in rows if d == ">text")
    assert rows[">text", "tv", "mention:color"]["value"] < 0.25
    assert "mention:shape" not in attributes(rows, "tv")


def test_what_a_caption_leaves_open_is_held_against_the_data():
    class Painter(Knower):
        """Always paints the same scene."""

        def generate(self, want, given, seeds, **options):
            return super().generate(want, {}, [0] * len(seeds))

    setting = Setting("seen", 1)
    fair = rows_of(Knower(setting, shift=1000), setting, "text>image", n=64)
    same = rows_of(Painter(setting), setting, "text>image", n=64)
    assert attributes(fair, "tv") == {f"open:{a}" for a in (
        "background", "color", "size", "position", "mean", "floor")}  # fmt: skip
    for name in ("background", "position", "size"):
        key = ("text>image", "tv", f"open:{name}")
        assert same[key]["value"] > 0.6 > fair[key]["value"]
    floor = fair["text>image", "tv", "open:floor"]["value"]
    assert fair["text>image", "tv", "open:mean"]["value"] < 1.5 * floor


class Lossless:
    """A codec whose latents are its data; sentences are kept beside, and lost to too much noise."""

    def encode(self, raw):
        self.raw = raw
        return torch.zeros(len(raw), 100, 2) if isinstance(raw, list) else raw

    def decode(self, z):
        self.noise = (z - self.encode(self.raw)).std().item()
        return self.raw if isinstance(self.raw, list) else self.raw.clone()


class Lossy(Lossless):
    """A codec that mixes up its samples."""

    def decode(self, z):
        super().decode(z)
        raw = self.raw
        return raw[1:] + raw[:1] if isinstance(raw, list) else raw.roll(1, 0)


@pytest.mark.parametrize("part", ["image", "text", "audio"])
@pytest.mark.parametrize("objects", [1, 2])
def test_the_codec_gate_knows_good_from_bad(part, objects):
    good, bad = Lossless(), Lossy()
    model = SimpleNamespace(modality=lambda name: good, modalities={part: good})
    found = evaluate.codec_gate(model, part, 12, objects=objects)
    assert set(found) == TELLS[part] | {"mean", "all"}
    assert good.noise == 0
    assert set(found.values()) == {1.0}
    evaluate.codec_gate(model, part, 12, objects=objects, noise=0.1)
    assert good.noise == pytest.approx(0.1, rel=0.05)
    mixed = evaluate.codec_gate(
        SimpleNamespace(modality=lambda name: bad, modalities={part: bad}),
        part,
        12,
        objects=objects,
    )
    assert mixed["all"] < 0.2
    assert mixed["color"] < 0.5


class Space:
    """A shared space in which a scene's point is a function of what its count and objects are."""

    modalities = dict.fromkeys(("image", "text"))
    blind = False

    def embed(self, raw):
        points = {}
        for part, value in raw.items():
            r = read(part, value)
            names = ["count", *(a for a in ("shape", "color", "size", "position", "background"))]
            codes = torch.cat([getattr(r, a).reshape(len(r), -1) for a in names], 1).tolist()
            seeds = [hash(tuple(c)) for c in codes]
            if self.blind:
                seeds = range(100 * len(part), 100 * len(part) + len(r))
            points[part] = torch.stack(
                [torch.randn(64, generator=torch.Generator().manual_seed(s % 2**31)) for s in seeds]
            )
        return points


def test_retrieval_finds_each_scene_among_distinct_ones():
    pairs = {(a, b) for a, b in (("image", "text"), ("text", "image"))}
    assert evaluate.retrieval(Space(), n=32) == dict.fromkeys(pairs, 1.0)
    blind = Space()
    blind.blind = True
    assert max(evaluate.retrieval(blind, n=32).values()) < 0.2


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The tiny random model of the four modalities, in a folder."""
    folder = tmp_path_factory.mktemp("evaluate") / "model"
    tiny_model().save_pretrained(folder)
    return folder


@pytest.fixture
def few(monkeypatch):
    """Fewer candidates, fewer parts to give: the number changes nothing but the time."""
    monkeypatch.setattr(evaluate, "CANDIDATES", 8)
    subsets = evaluate.subsets
    for module in (evaluate, presence):
        monkeypatch.setattr(module, "subsets", lambda p: [*subsets(p)[:3], tuple(p[2:])])


def means(draws: dict) -> list[dict]:
    """Return rows with these mean accuracies by direction, the same in every setting."""
    return [{"given": list(g), "want": list(w), "split": s.split, "objects": s.objects,
             "metric": "accuracy", "attribute": "mean", "value": x, "low": x, "high": x, "n": 1}
            for s in QUICK for (g, w), x in draws.items()]  # fmt: skip


def config(folder: Path, out: Path, **changes) -> dict:
    keys = {"n": 2, "full": False, "seed": 0, "steps": 1, "guidance": None, "sampler": "euler",
            "order": None}  # fmt: skip
    return {**keys, "out": str(out), "model": str(folder), "plugins": [], **changes}


@pytest.mark.parametrize("full", [False, True])
def test_a_run_writes_the_table_the_page_and_the_picture(tiny, tmp_path, few, capsys, full):
    paths = evaluate.run(config(tiny, tmp_path / "out", full=full))
    assert [p.name for p in paths] == ["directions.json", "directions.md", "heatmap.png"]
    rows = json.loads(paths[0].read_text(encoding="utf-8"))
    for r in rows:
        assert list(r) == ["given", "want", "split", "objects", "metric", "attribute",
                           "value", "low", "high", "n"]  # fmt: skip
        assert r["split"] in ("seen", "held_out", "all")
        assert r["objects"] in (1, 2)
        assert 0 <= r["low"] <= r["value"] <= r["high"] <= 1
        assert r["n"] >= 1
    keys = [json.dumps([r[k] for k in list(r)[:6]]) for r in rows]
    assert len(keys) == len(set(keys))
    means = {(tuple(r["given"]), tuple(r["want"]), r["split"], r["objects"]) for r in rows
             if (r["metric"], r["attribute"]) == ("accuracy", "mean")}  # fmt: skip
    settings = [("seen", 1), ("held_out", 1), ("seen", 2), *([("held_out", 2)] if full else [])]
    ways = [*evaluate.directions(PARTS), *(((p,), (p,)) for p in PARTS)]
    assert means == {(*way, *setting) for way in ways for setting in settings}
    free = {tuple(r["want"]) for r in rows if not r["given"] and r["metric"] == "tv"}
    assert free == {("image",), ("text",), ("video",), ("video", "audio")}
    assert {r["metric"] for r in rows} == {"accuracy", "agreement", "tv", "sync", "retrieval"}
    page = paths[1].read_text(encoding="utf-8")
    assert all(f"| {g} → {w} |" in page for g, w in (("image", "text"), ("text", "video + audio")))
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    told = capsys.readouterr()
    assert told.out == ""
    assert "mean accuracy over 10 directions" in told.err.splitlines()[-1]


@pytest.mark.slow
def test_a_second_run_is_the_same_and_takes_the_place_of_the_first(tiny, tmp_path, few):
    first = [p.read_bytes() for p in evaluate.run(config(tiny, tmp_path))]
    other = [p.read_bytes() for p in evaluate.run(config(tiny, tmp_path, seed=1))]
    again = [p.read_bytes() for p in evaluate.run(config(tiny, tmp_path))]
    assert first[:2] == again[:2]
    assert first[0] != other[0]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_full_disk_leaves_the_table_of_before(tiny, tmp_path, monkeypatch, capsys):
    rows = means(dict.fromkeys(evaluate.directions(PARTS), 0.5))
    monkeypatch.setattr(evaluate, "measure", lambda *_, **__: rows)
    first = evaluate.run(config(tiny, tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with full_disk(2000), pytest.raises(ResourceError, match=r"directions\.json"):
        evaluate.run(config(tiny, tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert len(before) == len(first)
    with full_disk(2000), pytest.raises(ResourceError):
        evaluate.run(config(tiny, tmp_path / "new"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"n": 0}, "n=0"), ({"n": 1.5}, "n=1.5"), ({"n": True}, "n=True"), ({"seed": -1}, "seed=-1"),
     ({"full": 1}, "full=1")],
)  # fmt: skip
def test_a_wrong_setting_names_itself(tiny, tmp_path, changes, words):
    with pytest.raises(UsageError, match=words):
        evaluate.run(config(tiny, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_a_model_of_other_modalities_is_refused():
    with pytest.raises(UsageError, match="depth"):
        evaluate.measure(SimpleNamespace(modalities={"depth": None}), 1)


def test_the_heat_map_shows_every_direction_with_its_number():
    draws = {way: 0.01 * i for i, way in enumerate(evaluate.directions(PARTS))}
    figure = report.heat_map(means(draws))
    panels = [axis for axis in figure.axes if axis.texts]
    assert len(panels) == 3
    for axis in panels:
        assert [
            int(t.get_text()) for t in sorted(axis.texts, key=lambda t: float(t.get_text()))
        ] == [*range(50)]
        for text in axis.texts:
            x, y = text.get_position()
            given, want = (
                tuple(label.get_text().split(" + "))
                for label in (axis.get_yticklabels()[y], axis.get_xticklabels()[x])
            )
            assert text.get_text() == f"{100 * draws[given, want]:.0f}"


def test_only_measuring_imports_the_oracles():
    imports = re.compile(r"^\s*(from|import)\s+unigen\.data\.world\.oracles", re.MULTILINE)
    readers = {
        path.stem
        for path in (ROOT / "unigen").rglob("*.py")
        if path.parent.name != "oracles" and imports.search(path.read_text(encoding="utf-8"))
    }
    assert readers == {"evaluate", "gates", "metrics", "reference"}


def test_subsets_of_a_direction_are_scored_over_all_wanted_parts():
    """A model that gets one of two parts wrong is half right, and never all right."""
    setting = Setting("seen", 1)

    class Half(Knower):
        def generate(self, want, given, seeds, **options):
            right = super().generate(want, given, seeds)
            self.shift = 1000
            wrong = super().generate(want, given, seeds)
            self.shift = 0
            return [{**r, want[0]: w[want[0]]} for r, w in zip(right, wrong, strict=True)]

    rows = rows_of(Half(setting), setting, "audio>image,text", n=32)
    alone = rows_of(Knower(setting, 1000), setting, "audio>image", n=32)
    for name in ("shape", "color", "size"):
        single = alone["audio>image", "accuracy", name]["value"]
        double = rows["audio>image,text", "accuracy", name]["value"]
        assert double == pytest.approx((1 + single) / 2)
    assert rows["audio>image,text", "accuracy", "all"]["value"] <= min(
        alone["audio>image", "accuracy", name]["value"] for name in ("shape", "color", "size")
    )
