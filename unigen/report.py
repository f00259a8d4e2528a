"""The table of every direction for people: one sentence, Markdown, a heat map."""

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
from matplotlib.figure import Figure

SPLITS = {"seen": "seen", "held_out": "held-out"}
COUNTS = {1: "one object", 2: "two objects"}

NOTES = """\
Intervals are 95 % bootstrap intervals over the samples. "mean" is the average over attributes,
"all" the share of samples in which every attribute is right, "floor" the distance that as many
draws from the data would have, "shuffled" what events of different samples would give.
"""


def summary(rows: Sequence[dict]) -> str:
    """Return one line: mean accuracy over the directions, agreement, sync."""
    said = [
        f"{_name(setting)} {_mean(found):.3f}" for setting, found in _settings(_conditional(rows))
    ]
    count = len({(tuple(r["given"]), tuple(r["want"])) for r in _conditional(rows)})
    words = [f"mean accuracy over {count} directions: {', '.join(said)}"] if said else []
    for metric, attribute in (("agreement", "mean"), ("sync", "event"), ("retrieval", "recall@1")):
        found = [r for r in rows if r["metric"] == metric and r["attribute"] == attribute]
        words += [f"{metric} {_mean(found):.3f}"] if found else []
    return "; ".join(words)


def markdown(rows: Sequence[dict]) -> str:
    """Return all tables."""
    accuracy = [r for r in rows if r["metric"] == "accuracy"]
    across = _crossing(accuracy)
    copies = [r for r in accuracy if r["given"] == r["want"]]
    sections = {
        "Every direction: mean [interval] / all": _wide(
            [r for r in across if r["attribute"] in ("mean", "all")]
        ),
        "Attributes, averaged over directions": _by_attribute(
            r for r in across if r["attribute"] not in ("parses", "all")
        ),
        "Nothing given: agreement between parts": _long(rows, "agreement"),
        "Nothing given: distance to the data (total variation)": _long(
            rows, "tv", lambda r: not r["given"] and ":" not in r["attribute"]
        ),
        "What captions leave open: distance to the data": _long(
            rows, "tv", lambda r: r["attribute"].startswith("open:")
        ),
        "Events seen and heard at the same moment": _long(rows, "sync"),
        "Captions that parse": _wide([r for r in accuracy if r["attribute"] == "parses"]),
        "How often captions mention: distance to the data": _long(
            rows, "tv", lambda r: r["attribute"].startswith("mention:")
        ),
        "Codecs: what survives encoding and decoding": _by_attribute(
            (r for r in copies if not r["attribute"].startswith("noisy:")), by_part=True
        ),
        "Codecs, with noise on the latents": _by_attribute(
            (r for r in copies if r["attribute"].startswith("noisy:")), by_part=True
        ),
        "Finding one part from another: recall@1": _long(rows, "retrieval"),
    }
    tables = [f"## {title}\n\n{table}" for title, table in sections.items() if table]
    return "\n".join([f"# Directions\n\n{summary(rows)}\n\n{NOTES}", *tables])


def heat_map(rows: Sequence[dict]) -> Figure:
    """Return mean accuracy by what is given (rows) and wanted (columns), a panel a setting."""
    panels = _settings(_conditional(rows))
    given, want = (_sets(rows, side) for side in ("given", "want"))
    across, down = min(2, len(panels)), -(-len(panels) // 2)
    size = (2.2 + across * (1.0 + 0.46 * len(want)), down * (2.6 + 0.36 * len(given)))
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    if not panels:
        return figure
    axes = figure.subplots(down, across, squeeze=False).flatten()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    images = []
    for axis, (setting, found) in zip(axes, panels, strict=False):
        table = np.full((len(given), len(want)), np.nan)
        for r in found:
            table[given.index(tuple(r["given"])), want.index(tuple(r["want"]))] = r["value"]
        images.append(axis.imshow(table, vmin=0, vmax=1, cmap="viridis", aspect="auto"))
        for y, x in np.argwhere(~np.isnan(table)):
            ink = "black" if table[y, x] > 0.6 else "white"
            axis.text(x, y, f"{100 * table[y, x]:.0f}", ha="center", va="center", color=ink, size=8)
        axis.set_title(f"{_name(setting)}: {100 * _mean(found):.1f} %", size=11)
        axis.set_xticks(range(len(want)), [" + ".join(w) for w in want], rotation=90, size=8)
        axis.set_yticks(range(len(given)), [" + ".join(g) for g in given], size=8)
        axis.set(xlabel="wanted", ylabel="given")
    figure.colorbar(images[-1], ax=list(axes), label="mean accuracy", pad=0.01, shrink=0.6)
    return figure


def _sets(rows: Iterable[dict], side: str) -> list[tuple[str, ...]]:
    """Return the sets of parts on one side of the directions, small ones first."""
    sets = dict.fromkeys(tuple(r[side]) for r in _conditional(rows))
    parts = [s[0] for s in dict.fromkeys(tuple(r["given"]) for r in rows) if len(s) == 1]
    return sorted(sets, key=lambda s: (len(s), [parts.index(p) for p in s]))


def _crossing(rows: Iterable[dict]) -> list[dict]:
    """Return the rows of directions from something to something else."""
    return [r for r in rows if r["given"] and r["given"] != r["want"]]


def _conditional(rows: Iterable[dict]) -> list[dict]:
    found = (r for r in rows if r["metric"] == "accuracy" and r["attribute"] == "mean")
    return _crossing(found)


def _settings(rows: Iterable[dict]) -> list[tuple[tuple[str, int], list[dict]]]:
    """Group rows by (split, objects), in the order of their first rows."""
    groups: dict[tuple[str, int], list[dict]] = {}
    for r in rows:
        groups.setdefault((r["split"], r["objects"]), []).append(r)
    return list(groups.items())


def _name(setting: tuple[str, int]) -> str:
    split, objects = setting
    return "up to two objects" if split == "all" else f"{SPLITS[split]}, {COUNTS[objects]}"


def _mean(rows: Sequence[dict]) -> float:
    return sum(r["value"] for r in rows) / len(rows)


def _arrow(row: dict) -> str:
    return f"{' + '.join(row['given']) or 'nothing'} → {' + '.join(row['want'])}"


def _is_overall(attribute: str) -> bool:
    return attribute.rpartition(":")[2] in ("mean", "all", "floor")


def _interval(row: dict) -> str:
    return f"{row['value']:.3f} [{row['low']:.2f}, {row['high']:.2f}]"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *lines))


def _wide(rows: list[dict]) -> str:
    """One line a direction, one column a setting."""
    settings = [setting for setting, _ in _settings(rows)]
    lines: dict[str, dict[tuple[str, int], str]] = {}
    for r in rows:
        line, setting = lines.setdefault(_arrow(r), {}), (r["split"], r["objects"])
        told = f" / {r['value']:.3f}" if r["attribute"] == "all" else _interval(r)
        line[setting] = line.get(setting, "") + told
    cells = ([name, *(line.get(s, "") for s in settings)] for name, line in lines.items())
    return _table(["direction", *map(_name, settings)], cells) if rows else ""


def _by_attribute(rows: Iterable[dict], by_part: bool = False) -> str:
    """One line an attribute (of a part), one column a setting; values are averaged."""
    rows = sorted(rows, key=lambda r: not by_part and _is_overall(r["attribute"]))
    settings = [setting for setting, _ in _settings(rows)]
    lines: dict[str, dict[tuple[str, int], list[dict]]] = {}
    for r in rows:
        name = f"{' + '.join(r['want'])}: {r['attribute']}" if by_part else r["attribute"]
        lines.setdefault(name, {}).setdefault((r["split"], r["objects"]), []).append(r)
    cells = ([name, *(f"{_mean(line[s]):.3f}" if s in line else "" for s in settings)]
             for name, line in lines.items())  # fmt: skip
    return _table(["attribute", *map(_name, settings)], cells) if rows else ""


def _long(rows: Iterable[dict], metric: str, which=lambda row: True) -> str:
    """One line a direction and setting, one column an attribute."""
    rows = [r for r in rows if r["metric"] == metric and which(r)]
    names = sorted(dict.fromkeys(r["attribute"] for r in rows), key=_is_overall)
    lines = []
    for (arrow, split, objects), group in groupby(
        rows, lambda r: (_arrow(r), r["split"], r["objects"])
    ):
        cells = {r["attribute"]: _interval(r) for r in group}
        lines.append([f"{arrow} ({_name((split, objects))})", *(cells.get(n, "") for n in names)])
    return _table(["direction", *names], lines) if rows else ""
