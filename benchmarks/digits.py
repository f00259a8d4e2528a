"""Handwritten digits, spoken, written and drawn: make the media, train, evaluate (docs/digits.md).

python benchmarks/digits.py make        # needs espeak-ng and scikit-learn
python benchmarks/digits.py train       # media, if they are missing, and every stage
python benchmarks/digits.py evaluate    # one JSON object, kept in scores.json, too
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from digit_media import HELD_OUT, VOICES, make
from digit_readers import Readers, label_of
from torch import Tensor

import unigen
from unigen.generation import BATCH

OUT = "runs/digits"
MEDIA, MODEL = "media", "denoise/model"  # in the folder of a run
SCORES = "scores.json"
DIRECTIONS = (
    ("image", "audio"), ("audio", "image"), ("image", "text"), ("audio", "text"),
    ("text", "image"), ("text", "audio"), ("video", "audio"), ("audio", "video"),
)  # fmt: skip
FULL, FEW = 2, 96  # so many directions are measured on all cases, the others on so few


def stages(out: Path, *more: str) -> dict[str, list[str]]:
    """Return the commands of `unigen`, by what they make in `out`."""

    def train(name: str, start: str | Path, data: Path, which: str = "") -> list[str]:
        words = [f"experiment=digits{which}", f"init={start}", f"data.root={data}"]
        return ["train", *words, *more, f"out={out / name}"]

    media, latents = out / MEDIA / "train", out / "latents"
    model = {name: out / name / "model" for name in ("image", "audio", "video", "align")}
    return {
        "image": train("image", "embedded", media, "/image"),
        "audio": train("audio", model["image"], media, "/audio"),
        "video": train("video", model["audio"], media, "/video"),
        "latents": ["data", "encode", f"data.root={media}", f"model={model['video']}",
                    f"out={latents}"],
        "align": train("align", model["video"], latents, "/align"),
        "denoise": train("denoise", model["align"], latents),
    }  # fmt: skip


def train(out: Path, *more: str) -> dict[str, float]:
    """Make what is missing, run every stage, and return the seconds of each.

    more: overrides of every `unigen train`. A stage that was stopped goes on.
    """
    seconds, begun = {}, time.monotonic()
    if not (out / MEDIA).is_dir():
        make(out / MEDIA)
    seconds["media"] = time.monotonic() - begun
    for name, command in stages(out, *more).items():
        begun = time.monotonic()
        print(f"unigen {' '.join(command)}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "unigen", *command], check=True, stdout=sys.stderr)
        seconds[name] = time.monotonic() - begun
    return {name: round(value, 1) for name, value in seconds.items()}


def read(model: Any, split: Path, part: str) -> tuple[Any, list[str]]:
    """Return all raw media of a part of a split, and the names of their items."""
    paths = sorted((split / part).iterdir())
    modality = model.modality(part)
    return modality.join([modality.read(path)[0] for path in paths]), [p.stem for p in paths]


def digits_of(split: Path, names: list[str]) -> list[int]:
    """Return the digits of items."""
    return [label_of(split / "text" / f"{name}.txt") for name in names]


def readers(model: Any, split: Path) -> Readers:
    """Return classifiers that have learned from a split."""
    (pictures, shown), (sounds, said) = (read(model, split, part) for part in ("image", "audio"))
    once = [i for i, name in enumerate(shown) if "-0_" in name]  # a picture has several takes
    labels = [digits_of(split, [shown[i] for i in once]), digits_of(split, said)]
    return Readers(pictures[once], sounds, *labels)


def score(found: list[int], right: list[int]) -> dict[str, Any]:
    """Return how many cases there are and which share of them is right."""
    hits = sum(a == b for a, b in zip(found, right, strict=True))
    return {"n": len(right), "right": round(hits / max(len(right), 1), 4)}


def through(model: Any, part: str, raw: Tensor) -> Tensor:
    """Return raw media after encoding and decoding, nothing else."""
    codec = model.modality(part)
    return torch.cat([codec.decode(codec.encode(some)) for some in raw.split(BATCH)])


@torch.no_grad()
def evaluate(model: Any, media: Path, limit: int | None = None) -> dict[str, Any]:
    """Return what the classifiers read from held-out media: real, through codecs, generated.

    limit: cases of each line; all of them if left out.
    """
    judge, split = readers(model, media / "train"), media / "held_out"
    raw: dict[str, Any] = {}
    for part in ("image", "audio", "video", "text"):
        values, names = read(model, split, part)
        raw[part] = values[:limit]
    names = names[:limit]
    labels = digits_of(split, names)
    voices = [name.partition("_")[2] for name in names]
    report: dict[str, Any] = {"model": model.hash, "held-out voices": sorted(set(voices))}
    report["real"] = {p: score(judge.read(p, raw[p]), labels) for p in ("image", "video", "audio")}
    report["codec only"] = {
        p: score(judge.read(p, through(model, p, raw[p])), labels) for p in report["real"]
    }
    for number, (given, want) in enumerate(DIRECTIONS):
        n = len(labels) if number < FULL else min(FEW, len(labels))
        made = model.generate([want], {given: raw[given][:n]}, seeds=range(n))
        found = judge.read(want, model.modality(want).join([result[want] for result in made]))
        line = score(found, labels[:n])
        if given == "audio":
            for voice in report["held-out voices"]:
                rows = [i for i, v in enumerate(voices[:n]) if v == voice]
                line[voice] = score([found[i] for i in rows], [labels[i] for i in rows])
        report[f"{given} -> {want}"] = line
        print(f"{given} -> {want} {line}", file=sys.stderr, flush=True)
    return report


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=("make", "train", "evaluate"))
    parser.add_argument("--out", default=OUT, help="the folder of the run")
    parser.add_argument("--model", help="evaluate: another model than that of the run")
    parser.add_argument("--n", type=int, help="evaluate: cases of a line; all if left out")
    args, more = parser.parse_known_args()
    out = Path(args.out)
    if more and args.verb != "train":
        parser.error(f"unrecognized: {' '.join(more)}")
    if args.verb == "make":
        print(make(out / MEDIA))
    elif args.verb == "train":
        print(json.dumps({"seconds": train(out, *more), "model": str(out / MODEL)}))
    else:
        report = evaluate(unigen.load(args.model or out / MODEL), out / MEDIA, args.n)
        facts = {"held-out pictures": f"every {HELD_OUT}th", "voices": len(VOICES["train"])}
        text = json.dumps({**facts, **report}, indent=1)
        if args.model is None and args.n is None:
            (out / SCORES).write_text(f"{text}\n", encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
