"""What the package aims at beside what was measured: one row a goal, each with its command.

`update_docs.py` writes the table. Rows come from directions.json of `unigen evaluate` and from the
lines that the other benchmarks print; what was not handed over says so.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

Rows = list[dict]
NOT_MEASURED = "not measured"


class Goal(NamedTuple):
    """What is aimed at, how much of it, and by which command it is measured."""

    what: str
    bar: str
    reached: str
    command: str


def lines_of(files: Iterable[Path]) -> dict[str, Rows]:
    """Return the JSON lines of benchmarks by the name in the first line of a file."""
    found: dict[str, Rows] = {}
    for file in files:
        head, *rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
        found.setdefault(head["benchmark"], []).extend({**row, **head} for row in rows)
    return found


def select(rows: Rows, where: Callable[[dict], bool] = lambda row: True, **fields) -> Rows:
    """Return the rows with these fields for which `where` holds."""
    return [r for r in rows if where(r) and all(r.get(k) == v for k, v in fields.items())]


def mean(rows: Sequence[dict]) -> float:
    """Return the mean value."""
    return sum(r["value"] for r in rows) / len(rows)


def percent(rows: Sequence[dict]) -> str:
    """Return the mean value in percent, or a dash."""
    return f"{100 * mean(rows):.1f}" if rows else "–"


def conditional(rows: Rows) -> Rows:
    """Return accuracies from something to something else."""
    return select(rows, lambda r: r["given"] and r["given"] != r["want"], metric="accuracy")


def lowest(means: dict[str, float]) -> str:
    """Return the lowest of some shares with its name."""
    if not means:
        return NOT_MEASURED
    name = min(means, key=means.__getitem__)
    return f"{100 * means[name]:.1f} % ({name})"


def highest(values: dict[str, float]) -> str:
    """Return the highest of some distances with its name."""
    if not values:
        return NOT_MEASURED
    name = max(values, key=values.__getitem__)
    return f"{values[name]:.3f} ({name})"


def averages(rows: Rows, key: Callable[[dict], str]) -> dict[str, float]:
    """Return mean values by what `key` calls them."""
    names = dict.fromkeys(map(key, rows))
    return {name: mean([r for r in rows if key(r) == name]) for name in names}


def of_directions(rows: Rows, how: str) -> list[Goal]:
    """Return the goals that the table of directions tells."""
    found, goals = conditional(rows), []
    by_name = [r for r in found if r["attribute"] not in ("mean", "all", "parses")]
    for split, objects, name, bar in (("held_out", 1, "held-out, one object", 97),
                                      ("seen", 2, "seen, two objects", 85),
                                      ("held_out", 2, "held-out, two objects", 85)):  # fmt: skip
        here = {"split": split, "objects": objects}
        means = select(found, attribute="mean", **here)
        if not means:
            continue
        what = f"accuracy of 50 directions, {name}"
        goals.append(Goal(f"{what}: mean", f"{bar} %", f"{percent(means)} %", how))
        if objects == 1:
            ways = averages(means, lambda r: f"{' + '.join(r['given'])} → {' + '.join(r['want'])}")
            each = averages(select(by_name, **here), lambda r: r["attribute"])
            goals += [Goal(f"{what}: lowest direction", "90 %", lowest(ways), how),
                      Goal(f"{what}: lowest attribute", "90 %", lowest(each), how)]  # fmt: skip
        whole = percent(select(found, attribute="all", **here))
        goals.append(Goal(f"{what}: everything right", "–", f"{whole} %", how))
    agreed = select(rows, metric="agreement", attribute="mean")
    goals.append(Goal("nothing given: what is made together agrees", "96 %",
                      f"{percent(agreed)} %", how))  # fmt: skip
    for name, bar in (("event", "at least 95 %"), ("shuffled", "at most 25 %")):
        what = "events seen and heard within a frame" + (", by chance" if name != "event" else "")
        mine = percent(select(rows, metric="sync", attribute=name))
        goals.append(Goal(what, bar, f"{mine} %", how))
    parses = percent(select(found, attribute="parses"))
    goals.append(Goal("captions that parse", "99 %", f"{parses} %", how))
    recall = averages(select(rows, metric="retrieval"),
                      lambda r: f"{r['given'][0]} → {r['want'][0]}")  # fmt: skip
    goals.append(Goal("shared space, recall@1 of 256, lowest pair", "95 %", lowest(recall), how))
    return goals


def of_distances(rows: Rows) -> list[Goal]:
    """Return how far what is made is from the data."""
    return [
        Goal(what, "0.06", highest(distances(select(rows, case=case, metric="tv"), kind)),
             f"python benchmarks/distances.py --n {n_of(rows, case)} --case \"{case}\"")
        for case, kind, what in (
            ("nothing given", "", "total variation from the data, nothing given, worst"),
            ("caption given", "open", "the same, left open by a caption, worst"),
            ("nothing given", "mention",
             "how often captions name an attribute, gap to the data, worst"),
        )
    ]  # fmt: skip


def distances(rows: Rows, kind: str) -> dict[str, float]:
    """Return the distances of attributes of a kind, which is what stands before the colon."""
    found = {}
    for row in rows:
        *before, name = row["attribute"].split(":")
        if "".join(before) == kind and name not in ("mean", "floor"):
            found[name] = row["value"]
    return found


def n_of(rows: Rows, case: str) -> int:
    """Return how many samples were asked for in a case, the usual number if none were."""
    return next((row["n"] for row in select(rows, case=case)), 2000)


def of_kept(rows: Rows) -> list[Goal]:
    """Return how well the model goes on from a part."""
    goals, n = [], rows[0]["n"] if rows else 96
    how = f"python benchmarks/keep.py --n {n} --split seen` and `--split held_out"
    for kept, made, what in (
        ("clip", "video", "the second second of a clip"),
        ("clip, sound given", "video", "the same, with its sound given"),
        ("left half", "image", "the right half of a picture"),
        ("right half", "image", "the left half of a picture"),
    ):
        shares = {r["split"]: r["all"]["value"] for r in select(rows, kept=kept, made=made)}
        order = [f"{100 * shares[s]:.1f} %" for s in ("seen", "held_out") if s in shares]
        reached = ", ".join(order) or NOT_MEASURED
        goals.append(Goal(f"{what}, everything right: seen, held-out", "90 %", reached, how))
    return goals


def of_files(rows: Rows) -> list[Goal]:
    """Return captions of real files."""
    how = f"python benchmarks/real_files.py --n {rows[0]['n'] if rows else 64}"
    files = {r["as"]: r["mean"]["value"] for r in rows if r["as"] != "tensor"}
    return [Goal("captions of JPEG, MP4 and MP3 files, lowest", "92 %", lowest(files), how)]


def of_codecs(rows: Rows) -> list[Goal]:
    """Return what survives each codec, in its worst setting."""
    how = f"python benchmarks/codecs.py --n {rows[0]['n'] if rows else 512}"
    goals = []
    for part in dict.fromkeys(r["part"] for r in rows):
        worst = {}
        for row in select(rows, part=part, noise=0.0):
            objects = "one object" if row["objects"] == 1 else "two objects"
            for name, found in row.items():
                if isinstance(found, dict) and name not in ("mean", "all"):
                    setting = f"{name}; {row['split'].replace('_', '-')}, {objects}"
                    worst[setting] = found["value"]
        goals.append(
            Goal(f"{part} codec, lowest attribute and setting", "99 %", lowest(worst), how)
        )
    return goals


def of_speed(generate: Rows, step: Rows) -> list[Goal]:
    """Return seconds and megabytes, and the training step's share of what the processor can."""
    cases, goals = {r["case"]: r for r in generate if "case" in r}, []
    how = "python benchmarks/generate.py"
    for case, bar in (("warm call", "at most 2 s"), ("cold process", "at most 12 s")):
        reached = f"{cases[case]['seconds']:.2f} s" if case in cases else NOT_MEASURED
        goals.append(Goal(f"text to image, video and audio: {case}", bar, reached, how))
    peak = f"{max(r['peak_mb'] for r in cases.values()):.0f} MB" if cases else NOT_MEASURED
    goals.append(Goal("the same: peak memory", "at most 1.5 GB", peak, how))
    share = [r["share"] for r in step if "covers" in r]
    reached = f"{100 * share[-1]:.1f} %" if share else NOT_MEASURED
    goals.append(Goal("training step, of the bfloat16 matrix rate", "30 %", reached,
                      "python benchmarks/train_step.py"))  # fmt: skip
    return goals


def goals(rows: Rows, lines: dict[str, Rows], how: str, megabytes: float) -> list[Goal]:
    """Return every goal: rows of directions.json, lines by benchmark, the command of the rows."""
    ways = {(tuple(r["given"]), tuple(r["want"])) for r in conditional(rows)}
    free = {tuple(r["want"]) for r in rows if not r["given"]}
    have = {name: lines.get(name, []) for name in
            ("distances", "keep", "real_files", "codecs", "generate", "train_step")}  # fmt: skip
    return [
        Goal("size of the weights", "at most 40 MB", f"{megabytes:.1f} MB",
             "ls -l unigen/embedded"),
        Goal("directions from the same weights", "65", str(len(ways) + len(free)), how),
        *of_directions(rows, how), *of_distances(have["distances"]), *of_kept(have["keep"]),
        *of_files(have["real_files"]), *of_codecs(have["codecs"]),
        *of_speed(have["generate"], have["train_step"]),
    ]  # fmt: skip
