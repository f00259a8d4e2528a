"""The shared space: recall@1 of every pair of modalities among 256 candidates.

    python benchmarks/retrieval.py
    python benchmarks/retrieval.py --model runs/anchor/model --anchor text

Captions say everything, and no two candidates agree in all that the two modalities tell. Two sets
of candidates, of other scenes than training has. anchor: a modality whose tower stood still in
training; its weights are held against those of the embedded model, from which it began.
"""

import argparse

import torch
from table import line, machine, table

import unigen
from unigen.gates import CANDIDATES, recalled

SETS = (0, 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="a folder; the embedded model if left out")
    parser.add_argument("--anchor", help="the modality of the frozen-anchor regime, such as text")
    args = parser.parse_args()
    model = unigen.load(args.model)
    line({"benchmark": "retrieval", "model": model.hash, "candidates": CANDIDATES, **machine()})
    if args.anchor is not None:
        ours, theirs = (m.modality(args.anchor).state_dict() for m in (model, unigen.load()))
        same = all(torch.equal(ours[name], value) for name, value in theirs.items())
        line({"anchor": args.anchor, "weights": len(theirs), "unchanged": same})
    found = [recalled(model, CANDIDATES, seed) for seed in SETS]
    rows = [{"from": a, "to": b, **{f"set {i}": f"{100 * hits[a, b].mean():.1f}"
             for i, hits in zip(SETS, found, strict=True)}} for a, b in found[0]]  # fmt: skip
    worst = min(hits[pair].mean().item() for hits in found for pair in hits)
    table(rows)
    line({"worst": round(100 * worst, 1)})


if __name__ == "__main__":
    main()
