"""Write measured numbers into README.md and the model card, between their markers.

    unigen evaluate n=100 out=results
    python benchmarks/update_docs.py results/directions.json \\
        --command "unigen evaluate n=100 out=results" --stage image:1200:128:12 \\
        --lines results/keep.jsonl results/distances.jsonl

A block is what stands between <!-- name --> and <!-- /name -->. `scores`, `goals` and
`parameters` are always rewritten, `training` when stages are named (name:steps:batch:minutes).
`--lines`: what other benchmarks printed, a file a run; goals of which none is there say so.
"""

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from goals import Goal, Rows, conditional, goals, lines_of, percent, select

from unigen import checkpoint

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = ROOT / "unigen" / "embedded"
SETTINGS = {("seen", 1): "seen, one object", ("held_out", 1): "held-out, one object",
            ("seen", 2): "seen, two objects", ("held_out", 2): "held-out, two objects"}  # fmt: skip


def arrow(given: Sequence[str], want: Sequence[str]) -> str:
    """Name a direction."""
    return f"{' + '.join(given) or 'nothing'} → {' + '.join(want)}"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, numbers to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def settings_of(rows: Rows) -> dict[tuple[str, int], str]:
    """Return the measured settings, seen first."""
    there = {(r["split"], r["objects"]) for r in conditional(rows)}
    return {setting: name for setting, name in SETTINGS.items() if setting in there}


def across(rows: Rows, settings: Iterable[tuple[str, int]]) -> list[str]:
    """Return one percentage a setting."""
    return [percent(select(rows, split=s, objects=o)) for s, o in settings]


def by_direction(rows: Rows, whole: bool) -> str:
    """Return mean accuracies: of every direction, or of pairs and by how much is given."""
    settings, mean = settings_of(rows), select(conditional(rows), attribute="mean")
    pairs = list(dict.fromkeys((tuple(r["given"]), tuple(r["want"])) for r in mean))
    short = [p for p in pairs if whole or len(p[0]) == len(p[1]) == 1 or len(p[1]) == 3]
    lines = [[arrow(g, w), *across(select(mean, given=list(g), want=list(w)), settings)]
             for g, w in short]  # fmt: skip
    for count in sorted({len(g) for g, _ in pairs}):
        some = select(mean, lambda r, count=count: len(r["given"]) == count)
        total = sum(len(g) == count for g, _ in pairs)
        lines.append([f"**mean of {total} with {count} given**", *across(some, settings)])
    lines.append([f"**mean of all {len(pairs)}**", *across(mean, settings)])
    return table(["direction", *settings.values()], lines)


def by_attribute(rows: Rows) -> str:
    """Return accuracies by attribute, averaged over the directions that share it."""
    found, settings = conditional(rows), settings_of(rows)
    skipped = ("mean", "all", "parses")
    names = [n for n in dict.fromkeys(r["attribute"] for r in found) if n not in skipped]
    lines = [[n, *across(select(found, attribute=n), settings)] for n in names]
    lines.append(["**all at once**", *across(select(found, attribute="all"), settings)])
    lines.append(["captions that parse", *across(select(found, attribute="parses"), settings)])
    return table(["attribute", *settings.values()], lines)


def from_nothing(rows: Rows) -> str:
    """Return agreement, distance to the data and sync of what is made from nothing."""
    free = select(rows, lambda r: not r["given"])
    lines = []
    for want in dict.fromkeys(tuple(r["want"]) for r in free):
        mine = select(free, want=list(want))
        columns = (("agreement", "mean"), ("tv", "mean"), ("tv", "floor"), ("sync", "event"),
                   ("sync", "shuffled"))  # fmt: skip
        cells = (percent(select(mine, metric=m, attribute=a)) for m, a in columns)
        lines.append([" + ".join(want), *cells])
    return table(["made together", "agreement", "distance to the data", "its floor", "sync",
                  "sync by chance"], lines)  # fmt: skip


def synchrony(rows: Rows) -> str:
    """Return how often events coincide when something is given."""
    settings = settings_of(rows)
    found = select(rows, lambda r: r["given"], metric="sync")
    names = (("event", "seen and heard at the same moment"), ("shuffled", "by chance"))
    lines = [[name, *across(select(found, attribute=a), settings)] for a, name in names]
    return table(["events", *settings.values()], lines)


def shared_space(rows: Rows) -> str:
    """Return recall@1 by pair of parts."""
    found = select(rows, metric="retrieval")
    return table(["from → to", "recall@1"], [[arrow(r["given"], r["want"]), percent([r])]
                                             for r in found])  # fmt: skip


def codecs(rows: Rows) -> str:
    """Return what survives a codec: the mean and the worst attribute."""
    settings, lines = settings_of(rows), []
    copies = select(rows, lambda r: r["given"] == r["want"], metric="accuracy")
    for part in dict.fromkeys(r["given"][0] for r in copies):
        for before, what in (("", ""), ("noisy:", ", noise 0.1")):
            mine = select(copies, given=[part])
            cells = []
            for split, objects in settings:
                here = select(mine, split=split, objects=objects)
                mean, worst = percent(select(here, attribute=f"{before}mean")), lowest(here, before)
                cells.append(f"{mean} ({worst['attribute'].removeprefix(before)} "
                             f"{percent([worst])})" if worst else mean)  # fmt: skip
            lines.append([part + what, *cells])
    return table(["codec: mean (worst attribute)", *settings.values()], lines)


def lowest(rows: Rows, before: str) -> dict | None:
    """Return the row of the worst attribute with this prefix, or None."""
    names = {f"{before}mean", f"{before}all"}
    rows = [r for r in rows if r["attribute"].startswith(before) and r["attribute"] not in names
            and (before or ":" not in r["attribute"])]  # fmt: skip
    return min(rows, key=lambda r: r["value"], default=None)


def scores(rows: Rows, how: str, whole: bool) -> str:
    """Return the block of scores; `whole`: every direction and the codecs, too."""
    n = max(r["n"] for r in conditional(rows))
    parts = [f"{how}, {n} scenes a direction and column. All numbers are percentages.",
             by_direction(rows, whole), by_attribute(rows), "Nothing given:", from_nothing(rows),
             "Something given, two parts made:", synchrony(rows)]  # fmt: skip
    if whole:
        parts += ["Codecs alone:", codecs(rows), "The shared space, 256 candidates:",
                  shared_space(rows)]  # fmt: skip
    return "\n\n".join(parts)


def aims(found: Sequence[Goal]) -> str:
    """Return what was aimed at beside what was reached, and the commands that tell."""
    commands = list(dict.fromkeys(goal.command for goal in found))
    lines = [[g.what, g.bar, g.reached, str(commands.index(g.command) + 1)] for g in found]
    ways = [f"{i}. `{command}`" for i, command in enumerate(commands, 1)]
    return "\n".join([table(["what", "goal", "reached", "measured by"], lines), "", *ways])


def parameters(folder: Path) -> str:
    """Return how many numbers each part of the model has."""
    _, tensors = checkpoint.load_folder(folder)
    counts: dict[str, int] = {}
    for name, tensor in tensors.items():
        counts[group(name)] = counts.get(group(name), 0) + tensor.numel()
    lines = [[name, f"{count:,}"] for name, count in sorted(counts.items())]
    return table(["part", "parameters"], [*lines, ["**all**", f"{sum(counts.values()):,}"]])


def group(name: str) -> str:
    """Return the part of the model that a tensor belongs to."""
    first, second, *rest = name.split(".")
    if first == "modalities":
        return f"{second}: {'tower into the shared space' if rest[0] == 'tower' else 'codec'}"
    if second == "blocks":
        kinds = {"ffn": "feed-forward, one a modality", "skip": "long skips"}
        return f"denoiser: {kinds.get(rest[1], 'attention')}"
    return "denoiser: into and out of the sequence"


def training(stages: Sequence[str]) -> str:
    """Return the table of stages, name:steps:batch:minutes each."""
    lines, total = [], 0.0
    for stage in stages:
        name, steps, batch, minutes = stage.split(":")
        total += float(minutes)
        lines.append([name, f"{int(steps):,}", batch, f"{float(minutes):.0f}"])
    lines.append(["**all**", "", "", f"{total:.0f} ({total / 60:.1f} hours)"])
    return table(["stage", "steps", "batch", "minutes on one or two CPU cores"], lines)


def rewrite(path: Path, blocks: dict[str, str]) -> list[str]:
    """Put blocks between their markers in a file; return the names of those that it has."""
    text, done = path.read_text(encoding="utf-8"), []
    for name, block in blocks.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text, count = pattern.subn(lambda m, block=block: f"{m[1]}{block}\n{m[2]}", text)
        done += [name] * (count > 0)
    path.write_text(text, encoding="utf-8")
    return done


def main() -> None:
    """Rewrite both files and print what was rewritten."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path, help="directions.json of `unigen evaluate`")
    parser.add_argument("--command", default="unigen evaluate", help="what made it")
    parser.add_argument("--date", help="when; the file's own date if left out")
    parser.add_argument("--stage", action="append", default=[], help="name:steps:batch:minutes")
    parser.add_argument("--lines", type=Path, nargs="+", default=[], help="of other benchmarks")
    parser.add_argument("--model", type=Path, default=EMBEDDED)
    parser.add_argument("--files", type=Path, nargs="+",
                        default=[ROOT / "README.md", EMBEDDED / "README.md"])  # fmt: skip
    args = parser.parse_args()
    rows = json.loads(args.rows.read_text(encoding="utf-8"))
    date = args.date or f"{datetime.fromtimestamp(args.rows.stat().st_mtime, UTC):%Y-%m-%d}"
    how = f"`{args.command}`, {date}, model {checkpoint.folder_hash(args.model)}"
    megabytes = (args.model / "model.safetensors").stat().st_size / 1e6
    aimed = goals(rows, lines_of(args.lines), args.command, megabytes)
    blocks = {"goals": aims(aimed), "parameters": parameters(args.model)}
    if args.stage:
        blocks["training"] = training(args.stage)
    for path in args.files:
        mine = {**blocks, "scores": scores(rows, how, whole=path.parent != ROOT)}
        print(f"{path}: {', '.join(rewrite(path, mine)) or 'no markers'}")


if __name__ == "__main__":
    main()
