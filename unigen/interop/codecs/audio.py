"""Sound through an autoencoder that others have trained, of mel spectra or of waves."""

import math

import torch
import torchaudio
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from unigen.interop.codecs.image import settle
from unigen.interop.codecs.network import Network
from unigen.modalities.audio import Sounds, Wave

_FLOOR = 1e-5  # of a mel magnitude, before its logarithm (AudioLDM, Liu et al. 2023)


class MelAudio(Sounds):
    """Sound as AudioLDM has it: an `AutoencoderKL` of log mel spectra, and a vocoder back."""

    def __init__(
        self,
        codec: Network,
        vocoder: Network,  # a `SpeechT5HifiGan`, whose configuration tells rate, hop and mels
        seconds: float = 10.24,
        window: int = 1024,  # samples of an analysis window
        patch: int = 2,  # latent steps of time of a token
        **common,  # shared, noise_mean: see Modality
    ):
        """A token holds all latents of `patch` steps of time."""
        sound = vocoder.config
        rate, mels = sound.sampling_rate, sound.model_in_dim
        hop = math.prod(sound.upsample_rates)
        with torch.no_grad():
            z = codec.encode(torch.zeros(1, 1, 64, mels))
        channels, ratio, height = z.shape[1], 64 // z.shape[2], z.shape[3]
        tokens = math.ceil(seconds * rate / hop / ratio / patch)
        super().__init__(seconds, rate, tokens, channels * patch * height, **common)
        self.codec, self.vocoder, self.patch, self.height = codec, vocoder, patch, height
        self.windows = tokens * patch * ratio
        self.analyze = torchaudio.transforms.MelSpectrogram(
            rate, window, hop_length=hop, f_max=rate / 2, n_mels=mels, power=1.0, norm="slaney",
            mel_scale="slaney",
        )  # fmt: skip
        for transform, name in (
            (self.analyze.spectrogram, "window"),
            (self.analyze.mel_scale, "fb"),
        ):
            transform.register_buffer(name, transform.get_buffer(name), persistent=False)
        settle(self, codec, patch * height)

    def mel(self, raw: Wave) -> Float[Tensor, "b f m"]:
        """Return log mel magnitudes, as many steps as the tokens hold."""
        log = self.analyze(raw).clamp_min(_FLOOR).log().transpose(1, 2)[:, : self.windows]
        missing = self.windows - log.shape[1]
        return torch.nn.functional.pad(log, (0, 0, 0, missing), value=math.log(_FLOOR))

    def features(self, raw: Wave) -> Float[Tensor, "b n c"]:
        """Return the latents before they are normalized."""
        z = self.codec.encode(self.mel(raw)[:, None])
        return rearrange(z, "b c (n p) m -> b n (c p m)", p=self.patch)

    def restore(self, features: Float[Tensor, "b n c"]) -> Wave:
        """Return a waveform."""
        z = rearrange(features, "b n (c p m) -> b c (n p) m", p=self.patch, m=self.height)
        made = self.vocoder.net(self.codec.decode(z)[:, 0])
        return fitted(made, self.samples).clamp(-1, 1)


class CodecAudio(Sounds):
    """Sound as an autoencoder of waves has it: `AutoencoderOobleck` (Stable Audio)."""

    def __init__(self, codec: Network, seconds: float = 10.0, patch: int = 1, **common):
        """patch: latents of a token. common: shared, noise_mean: see Modality."""
        config = codec.config
        self.hop = math.prod(config.downsampling_ratios)
        tokens = math.ceil(seconds * config.sampling_rate / self.hop / patch)
        channels = config.decoder_input_channels
        super().__init__(seconds, config.sampling_rate, tokens, patch * channels, **common)
        self.codec, self.patch, self.tracks = codec, patch, config.audio_channels
        settle(self, codec, patch)

    def features(self, raw: Wave) -> Float[Tensor, "b n c"]:
        """Return the latents before they are normalized."""
        wave = fitted(raw, self.tokens * self.patch * self.hop)
        z = self.codec.encode(repeat(wave, "b s -> b k s", k=self.tracks))
        return rearrange(z, "b c (n p) -> b n (c p)", p=self.patch)

    def restore(self, features: Float[Tensor, "b n c"]) -> Wave:
        """Return a waveform; what comes in several channels is mixed to one."""
        z = rearrange(features, "b n (c p) -> b c (n p)", p=self.patch)
        return fitted(self.codec.decode(z).mean(1), self.samples).clamp(-1, 1)


def fitted(wave: Wave, samples: int) -> Wave:
    """Return a sound cut, or padded with silence, to a number of samples."""
    return torch.nn.functional.pad(wave[:, :samples], (0, max(0, samples - wave.shape[1])))
