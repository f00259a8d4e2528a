"""The pictures of the README, made by the embedded model: first seeds, nothing picked.

python benchmarks/pictures.py
python benchmarks/pictures.py --evaluated results     # the heat map of `unigen evaluate`, too
"""

import argparse
import shutil
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import unigen

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"
PROMPTS = (
    "a large red circle bounces, and a low hum",
    "a small blue star drifts left",
    "a medium green square rests at the top right on a black background",
    "a huge yellow triangle grows over navy",
    "a tiny white cross near the bottom left against a brown backdrop",
    "an orange ring goes around in the middle",
    "a large purple square at the left and a small cyan circle at the right",
    "we see a big white star sinking and a little red ring rising over gray",
)
SCENES = (
    "a large red circle bounces, and a low hum",
    "a large blue triangle moving left on a black background with a low chime",
)


def contact_sheet(model, prompts: tuple[str, ...]) -> Figure:
    """Return an image of each prompt, with the prompt above and the model's caption below."""
    columns, rows = 4, -(-len(prompts) // 4)
    figure = Figure(figsize=(2.2 * columns, 3.4 * rows), dpi=100, layout="constrained")
    for axis, prompt in zip(figure.subplots(rows, columns).flat, prompts, strict=False):
        (made,) = model.generate(["image"], {"text": prompt}, seeds=[0])
        (told,) = model.generate(["text"], {"image": made["image"]}, seeds=[0])
        picture(axis, made.image)
        axis.set_title(fill(prompt, 30), size=8)
        axis.set_xlabel(fill(f"caption: {told.text}", 34), size=7, color="0.35")
    return figure


def scenes(model, prompts: tuple[str, ...], frames: int = 8) -> Figure:
    """Return strips of frames over the spectrogram of the sound, generated together."""
    figure = Figure(figsize=(8.8, 2.6 * len(prompts)), dpi=100, layout="constrained")
    for box, prompt in zip(figure.subfigures(len(prompts), 1, squeeze=False).flat, prompts,
                           strict=True):  # fmt: skip
        (made,) = model.generate(["video", "audio"], {"text": prompt}, seeds=[0])
        grid = box.add_gridspec(2, frames, height_ratios=(1, 1))
        box.suptitle(prompt, size=9)
        video, every = made.video, len(made.video) // frames
        for i in range(frames):
            axis = box.add_subplot(grid[0, i])
            picture(axis, video[i * every])
            axis.set_xlabel(f"{i * every * 2 / len(video):.2f} s", size=7)
        spectrogram(box.add_subplot(grid[1, :]), made.audio, model.modality("audio").rate)
    return figure


def picture(axis: Axes, pixels) -> None:
    """Show pixels as they are, without ticks."""
    axis.imshow(np.asarray(pixels), interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])


def spectrogram(axis: Axes, samples: np.ndarray, rate: int) -> None:
    """Show the spectrum of a sound over its seconds, in decibels."""
    window, hop = 512, 128
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop] * np.hanning(window)
    level = 20 * np.log10(np.abs(np.fft.rfft(frames)).T + 1e-4)
    axis.imshow(level, origin="lower", aspect="auto", cmap="magma", vmin=level.max() - 60,
                extent=(0, len(samples) / rate, 0, rate / 2000))  # fmt: skip
    axis.set_ylim(0, 6)
    axis.tick_params(labelsize=7)
    axis.set_xlabel("seconds", size=7)
    axis.set_ylabel("kHz", size=7)


def main() -> None:
    """Write every picture and print its path."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder; the embedded model if left out")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--evaluated", type=Path, help="the folder that `unigen evaluate` wrote")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="how many of the prompts")
    args = parser.parse_args()
    model = unigen.load(args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    figures = {"contact.png": contact_sheet(model, PROMPTS[: args.prompts]),
               "scenes.png": scenes(model, SCENES[: args.prompts])}  # fmt: skip
    for name, figure in figures.items():
        figure.savefig(args.out / name)
        print(args.out / name)
    if args.evaluated is not None:
        print(shutil.copyfile(args.evaluated / "heatmap.png", args.out / "heatmap.png"))


if __name__ == "__main__":
    main()
