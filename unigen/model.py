"""UniGen: modalities around one denoiser. Any subset given, any subset wanted, one call."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unigen import checkpoint, registry
from unigen.errors import UsageError
from unigen.flow import RectifiedFlow
from unigen.guidance import guided
from unigen.lens import Lens
from unigen.modalities.base import Modality
from unigen.presence import draw_clocks
from unigen.sampler import named
from unigen.tokens import GLOBAL, Clocks, Positions, Tokens, modality_of, noise, pick, role_of
from unigen.uvit import UViT

EMBEDDED = Path(__file__).parent / "embedded"  # the model that ships with the package


class UniGen(nn.Module):
    """One generative model over several kinds of media."""

    hash = "unsaved"  # of the weights, once the model has been loaded from a folder

    def __init__(
        self,
        modalities: dict[str, Modality],
        denoiser: UViT,
        flow: RectifiedFlow,
        sampling: dict[str, Any] | None = None,  # steps, guidance, sampler it is tuned for
    ):
        """Join the modalities, by name, to one denoiser and one process."""
        super().__init__()
        self.modalities = nn.ModuleDict(modalities)
        for modality in modalities.values():
            modality.attach(modalities)
        self.denoiser, self.flow = denoiser, flow
        for part, width in denoiser.parts.items():
            if modality_of(part) in modalities and self.lens(part).width != width:
                raise UsageError(
                    f"parts.{part}={width}, but {modality_of(part)} shows the denoiser "
                    f"{self.lens(part).width} numbers a token; set parts.{part} to that."
                )
        self.sampling = {"steps": 16, "guidance": 1.0, "sampler": "multistep", **(sampling or {})}

    def options(self, steps=None, guidance=None, sampler=None) -> dict[str, Any]:
        """Return the sampling options, what is None replaced by the model's own."""
        asked = {"steps": steps, "guidance": guidance, "sampler": sampler}
        return {**self.sampling, **{k: v for k, v in asked.items() if v is not None}}

    # ---- raw media <-> latent tokens ------------------------------------------------------------

    def modality(self, part: str) -> Modality:
        """Return the modality of a part, or say which ones there are."""
        name = modality_of(part)
        if name not in self.modalities:
            known = ", ".join(self.modalities)
            raise UsageError(
                f"unknown modality {name!r}; this model has {known}. "
                f"Add one with modality=[...] and conf/modality/{name}.yaml."
            )
        return self.modalities[name]

    def lens(self, part: str) -> Lens:
        """Return how the denoiser meets a part."""
        modality = self.modality(part)
        return modality.shared if role_of(part) == GLOBAL else modality.lens

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        return next(self.parameters()).device

    def encode(self, raw: Mapping[str, Any]) -> Tokens:
        """Return the latents of raw media, and of every modality its point of the shared space."""
        tokens = {part: self.modality(part).encode(value) for part, value in raw.items()}
        return {**tokens, **self._globals(tokens)}

    def decode(self, tokens: Tokens) -> dict[str, Any]:
        """Return raw media from latents."""
        media = (part for part in tokens if role_of(part) != GLOBAL)
        return {part: self.modality(part).decode(tokens[part]) for part in media}

    def embed(self, raw: Mapping[str, Any]) -> dict[str, Float[Tensor, "b e"]]:
        """Return the points of raw media in the shared space, squared norm e."""
        return {p: self.modality(p).embed(self.modality(p).encode(v)) for p, v in raw.items()}

    def positions(self, tokens: Mapping[str, Tensor]) -> Positions:
        """Return (second, row, column) of every token; a global token stands in the middle."""
        places = {}
        for part, x in tokens.items():
            place = self.modality(part).positions()
            place = place.mean(0, keepdim=True) if role_of(part) == GLOBAL else place
            places[part] = place.to(x.device)
        return places

    def _globals(self, tokens: Tokens) -> Tokens:
        points = {f"{p}:{GLOBAL}": self.modality(p).embed(z)[:, None] for p, z in tokens.items()}
        return {part: e for part, e in points.items() if part in self.denoiser.parts}

    # ---- training -------------------------------------------------------------------------------

    def loss(
        self, x: Tokens, generator: torch.Generator | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the flow loss of every part: clocks drawn, data noised, data predicted."""
        positions = self.positions(x)
        means = {part: self.modality(part).noise_mean for part in x}
        t = draw_clocks(self.flow, x, positions, means, generator)
        eps = {k: torch.randn(z.shape, generator=generator, device=z.device) for k, z in x.items()}
        x_t = {k: self.flow.interpolate(x[k], eps[k], t[k]) for k in x}
        output = self._denoise(x_t, t)
        losses = {}
        for k in x:
            error = self.lens(k).error(output[k], x[k], x_t[k], t[k], self.flow) * (t[k] > 0)
            losses[k] = error.mean() * (0.05 if role_of(k) == GLOBAL else 1.0)
        return losses

    # ---- generation -----------------------------------------------------------------------------

    def predict(self, x: Tokens, t: Clocks) -> Tokens:
        """Return the data that the network sees behind noisy tokens."""
        return self._data(self._denoise(x, t), x, t)

    def _data(self, output: Tokens, x: Tokens, t: Clocks) -> Tokens:
        return {k: self.lens(k).data(output[k], x[k], t[k], self.flow) for k in x}

    def _denoise(self, x: Tokens, t: Clocks) -> Tokens:
        seen = {k: self.lens(k).see(x[k], t[k], self.flow) for k in x}
        return self.denoiser(seen, t, self.positions(x))

    @torch.no_grad()
    def sample(
        self,
        want: Sequence[str],
        given: Tokens,
        seeds: Sequence[int],
        *,
        steps: int = 16,
        guidance: float | Mapping[str, float] = 1.0,
        sampler: str | Callable[..., Iterator[Tokens]] = "multistep",
        keep: Mapping[str, Float[Tensor, " n"]] | None = None,
        joint: bool = True,
        noises: Tokens | None = None,
    ) -> Iterator[Tokens]:
        """Yield the wanted latents after every step, from noise to data.

        given: clean latents; a part that is also wanted is kept where `keep[part]` is 1, bit for
        bit. guidance: 1 is off; one number, or one per given part. joint: False puts every wanted
        part in a sequence of its own. noises: initial noise to use instead of the seeds'.
        """
        walk = named(sampler) if isinstance(sampler, str) else sampler
        if not joint and len(want) > 1:
            options = {"steps": steps, "guidance": guidance, "sampler": walk, "noises": noises}
            names = {modality_of(part) for part in want}
            walks = []
            for part in want:
                others = names - {modality_of(part)}
                own = {p: z for p, z in given.items() if modality_of(p) not in others}
                walks.append(
                    self.sample([part], own, seeds, keep=pick(keep or {}, [part]), **options)
                )
            for states in zip(*walks, strict=True):
                yield {k: z for state in states for k, z in state.items()}
            return
        wanted = [
            p for name in want for p in (name, f"{name}:{GLOBAL}") if p in self.denoiser.parts
        ]
        start = {p: (noises or {}).get(p, noise(p, seeds, self._shape(p))) for p in wanted}
        x = {p: eps.to(self.device) for p, eps in start.items()}
        masks = {p: m[None, :, None].to(x[p]) for p, m in (keep or {}).items()}
        fixed = {p: z for p, z in given.items() if p not in x}
        held = {p: given[p] for p in masks}

        def keep_held(x: Tokens) -> Tokens:
            return {**x, **{p: torch.where(m > 0, held[p], x[p]) for p, m in masks.items()}}

        def clocks(x: Tokens, t: Float[Tensor, ""]) -> Clocks:
            moving = {p: t.expand(z.shape[:2]) for p, z in x.items()}
            return {**moving, **{p: moving[p] * (1 - m[..., 0]) for p, m in masks.items()}}

        def answer(x: Tokens, t: Float[Tensor, ""], fixed: Tokens) -> Tokens:
            """Ask the network for the wanted parts at one clock, conditions at clock 0."""
            still = {p: z.new_zeros(z.shape[:2]) for p, z in fixed.items()}
            output = self._denoise({**x, **fixed}, {**clocks(x, t), **still})
            return {p: output[p] for p in x}

        answers = guided(answer, fixed, guidance, {p for p in x if self.lens(p).guided})

        def denoise(x: Tokens, t: Float[Tensor, ""]) -> Tokens:
            """Predict the data of the wanted parts."""
            x = keep_held(x)
            return keep_held(self._data(answers(x, t), x, clocks(x, t)))

        def fresh(step: int) -> Tokens:
            return {p: noise(f"{p}/{step}", seeds, z.shape[1:]).to(z.device) for p, z in x.items()}

        yield from walk(denoise, x, self.flow, self.flow.times(steps), fresh)

    def _shape(self, part: str) -> tuple[int, int]:
        modality = self.modality(part)
        if role_of(part) == GLOBAL:
            return (1, modality.shared.width)
        return (modality.tokens, modality.channels)

    def generate(self, want: Sequence[str], given: Mapping[str, Any] | None = None, **options):
        """Generate the wanted parts given the others; return one `Result` a seed.

        given: raw media, paths, or for text the sentence itself. Options and errors are those of
        `unigen.generation.generate`.
        """
        from unigen.generation import generate

        return generate(self, want, given or {}, **options)

    # ---- files ----------------------------------------------------------------------------------

    @property
    def config(self) -> dict:
        """Return the spec that builds this model again."""
        return {
            "class": "UniGen",
            "modalities": {name: registry.spec_of(m) for name, m in self.modalities.items()},
            "denoiser": registry.spec_of(self.denoiser),
            "flow": registry.spec_of(self.flow),
            "sampling": self.sampling,
        }

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.bfloat16) -> None:
        """Write config.json and model.safetensors; floating-point weights in `dtype`."""
        tensors = {
            k: v.to(dtype) if v.is_floating_point() else v for k, v in self.state_dict().items()
        }
        checkpoint.save_folder(folder, {"model": self.config}, tensors)

    @classmethod
    def from_pretrained(cls, folder: str | Path, plugins: Sequence[str] = ()) -> "UniGen":
        """Load a model folder. No code of the folder runs; see `unigen.checkpoint`."""
        config, tensors = checkpoint.load_folder(folder)
        model = registry.build(config["model"], plugins)
        checkpoint.match(model, tensors, str(folder))
        model.hash = checkpoint.folder_hash(folder)
        return model.float().eval()


def load(name: str | Path | None = None, plugins: Sequence[str] = ()) -> UniGen:
    """Load the embedded model, or the one in a folder."""
    return UniGen.from_pretrained(EMBEDDED if name is None else name, plugins)
