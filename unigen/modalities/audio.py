"""Audio: mono sound as log magnitudes of its spectrum, latents 8 a second; phase by Griffin-Lim."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchaudio
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from unigen import media
from unigen.errors import UsageError
from unigen.modalities.base import Modality
from unigen.modalities.codec import PatchCodec, perturb, weighted_error
from unigen.modalities.regions import stretch
from unigen.share import draw

Wave = Float[Tensor, "b samples"]  # in [-1, 1]
SILENT = 1e-3  # loudest sample, 60 dB below full scale


class Sounds(Modality):
    """Mono sound as files and as what a user gives, whatever becomes of it."""

    name, suffix = "audio", ".wav"

    def __init__(self, seconds: float, rate: int, tokens: int, channels: int, **common):
        """rate: samples a second. common: shared, noise_mean: see Modality."""
        super().__init__(tokens, channels, **common)
        self.seconds, self.rate, self.samples = seconds, rate, int(seconds * rate)
        self.shape = (self.samples,)

    def positions(self) -> Float[Tensor, "n 3"]:
        """Place the tokens at their centers in seconds, in the middle of the picture."""
        second = (torch.arange(self.tokens) + 0.5) * (self.seconds / self.tokens)
        middle = torch.full_like(second, 0.5)
        return torch.stack([second, middle, middle], -1)

    def kept(self, region: str) -> Float[Tensor, " n"]:
        """Keep a stretch `from:to` in seconds."""
        edges = torch.arange(self.tokens + 1) * (self.seconds / self.tokens)
        return stretch(region, edges[:-1], edges[1:], self.name)

    def blank(self, raw: Wave, kept: Float[Tensor, " n"]) -> Wave:
        """Silence what is not kept."""
        return raw * kept[torch.arange(raw.shape[1]) * self.tokens // raw.shape[1]]

    def read(self, path: Path) -> tuple[Wave, list[str]]:
        """Read the first seconds of a sound: mixed to mono, resampled, padded with silence."""
        sound = media.read_audio(path, self.seconds)
        notes, samples = list(sound.notes), torch.from_numpy(np.ascontiguousarray(sound.samples))
        if samples.shape[1] > 1:
            notes.append(f"mixed {samples.shape[1]} channels to one")
        wave, length = samples.float().mean(1), int(self.seconds * self.rate)
        if sound.rate != self.rate:
            wave = torchaudio.functional.resample(wave, sound.rate, self.rate)
            notes.append(f"resampled from {sound.rate} to {self.rate} Hz")
        if wave.abs().max() < SILENT:
            notes.append("silent: nothing in it is louder than -60 dB")
        if len(wave) < length:
            notes.append(f"padded {len(wave) / self.rate:.2f} s with silence")
        wave = torch.nn.functional.pad(wave[:length], (0, max(0, length - len(wave))))
        return wave[None].clamp(-1, 1), notes

    def write(self, raw: Wave, path: Path, recipe: dict, track: Any = None) -> None:
        """Write a WAV file."""
        media.write_audio(path, self.show(raw), self.rate, recipe)

    def log(self, writer: Any, tag: str, raw: Wave, step: int) -> None:
        """Play the sound, and show its spectrum."""
        writer.add_audio(tag, raw[0], step, self.rate)
        writer.add_image(f"{tag}/mel", self.picture(raw), step)

    def picture(self, raw: Wave) -> Float[Tensor, "1 mels columns"]:
        """Return the mel spectrum of the first sound as gray, low frequencies at the bottom.

        1 is the loudest place, 0 is 60 dB below it and less, and the whole of a silent sound.
        """
        window = int(self.rate * 0.064)
        mel = torchaudio.transforms.MelSpectrogram(
            self.rate, window, hop_length=window // 4, n_mels=64, power=1.0
        )
        magnitude = mel(raw[:1].float().cpu()) * (4 / window)  # about 1 for a full-scale tone
        level = 20 * (magnitude / magnitude.amax().clamp(min=1e-4)).clamp(min=1e-9).log10()
        return (1 + level / 60).clamp(0, 1).flip(1)

    def show(self, raw: Wave) -> np.ndarray:
        """Return float32 [samples]."""
        return raw[0].numpy()


class Audio(Sounds):
    """Mono sound of `seconds` at `rate` samples a second."""

    quietest = 1e-3  # amplitude below which the spectrum counts as silence

    def __init__(
        self,
        seconds: float = 2.0,
        rate: int = 16_000,
        window: int = 1024,  # samples of an analysis window
        hop: int = 250,  # samples between windows
        patch: int = 2,  # windows of a patch
        merge: int = 4,  # patches of a token
        channels: int = 32,
        width: tuple[int, int] | list[int] = (128, 192),
        depth: tuple[int, int] | list[int] = (1, 2),
        foreground: float = 6.0,  # loss weight of what is not silence
        mix: float = 0.5,  # share of training sounds that are laid over another one
        iterations: int = 32,  # of Griffin-Lim
        **common,  # shared, noise_mean: see Modality
    ):
        """Build the codec; latents are seconds * rate / (hop * patch * merge) tokens.

        Raises UsageError for a length that is not made of whole tokens.
        """
        self.windows = int(seconds * rate) // hop
        if self.windows % (patch * merge):
            raise UsageError(
                f"{seconds:g} s at rate={rate} are {self.windows} windows of hop={hop}, no "
                f"multiple of patch x merge = {patch * merge}, those of a token; choose a hop or "
                "a length so that they are."
            )
        super().__init__(seconds, rate, self.windows // patch // merge, channels, **common)
        self.hop, self.patch = hop, patch
        self.foreground, self.mix, self.bins = foreground, mix, window // 2 + 1
        self.codec = PatchCodec(
            patch * self.bins, self.tokens, merge, channels, width=width, depth=depth
        )
        spectral = {"n_fft": window, "hop_length": hop, "power": 1.0}
        self.analyze = torchaudio.transforms.Spectrogram(**spectral)
        self.synthesize = torchaudio.transforms.GriffinLim(
            **spectral, n_iter=iterations, rand_init=False, length=int(seconds * rate)
        )
        for transform in (self.analyze, self.synthesize):
            transform.register_buffer("window", transform.get_buffer("window"), persistent=False)

    def features(self, raw: Wave) -> Float[Tensor, "b n c"]:
        """Return the latents before normalization."""
        return self.codec.encode(self._patches(self.front(raw)))

    def restore(self, features: Float[Tensor, "b n c"]) -> Wave:
        """Return a waveform with these magnitudes; its phase is made consistent (Griffin-Lim)."""
        return self.wave(self._spectrum(self.codec.decode(features))).clamp(-1, 1)

    def codec_loss(
        self, front: Float[Tensor, "b f k"], generator: torch.Generator | None
    ) -> Float[Tensor, ""]:
        """Return the error of the log magnitudes, heavier where there is or was made sound.

        Both count: a weight on what there is alone would paint tones wherever one is possible.
        Some sounds are laid over another, so that no tones are learned as always together.
        """
        front = self._mixed(front, generator)
        z = self.codec.encode(self._patches(front))
        made = self._spectrum(self.codec.decode(perturb(z, generator)))
        heard = (front > 0.1) | (made.detach() > 0.1)
        return weighted_error(made, front, 1 + self.foreground * heard.float(), generator)

    @torch.no_grad()
    def front(self, raw: Wave) -> Float[Tensor, "b f k"]:
        """Return log magnitudes, 0 for silence and about 2 for a full-scale tone."""
        window = self.analyze.get_buffer("window")
        magnitude = self.analyze(raw)[..., : self.windows] * (2 / window.sum())
        return (magnitude / self.quietest).log1p().transpose(1, 2) * 0.3

    def wave(self, spectrum: Float[Tensor, "b f k"]) -> Wave:
        """Return a waveform with these log magnitudes."""
        magnitude = (spectrum / 0.3).clamp(0, 8).expm1() * self.quietest
        magnitude = magnitude * (self.analyze.get_buffer("window").sum() / 2)
        padded = torch.cat([magnitude, magnitude[:, -1:]], 1)  # the window at the very end
        return self.synthesize(padded.transpose(1, 2))

    def _mixed(self, front: Tensor, generator: torch.Generator | None) -> Tensor:
        """Lay some sounds over another: of two magnitudes the larger one."""
        chance = draw(torch.rand, (len(front), 1, 1), generator, front.device)
        return torch.where(chance < self.mix, torch.maximum(front, front.roll(1, 0)), front)

    def _patches(self, spectrum: Tensor) -> Tensor:
        return rearrange(spectrum, "b (n f) k -> b n (f k)", f=self.patch)

    def _spectrum(self, patches: Tensor) -> Tensor:
        return rearrange(patches, "b n (f k) -> b (n f) k", f=self.patch)
