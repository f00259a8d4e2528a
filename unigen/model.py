"""UniGen: modalities around one denoiser. Any subset given, any subset wanted, one call."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unigen import checkpoint, interop, registry, sampling
from unigen.errors import UsageError
from unigen.flow import RectifiedFlow
from unigen.given import encoded, taken
from unigen.lens import Lens
from unigen.modalities.base import Modality
from unigen.plugins import import_plugins
from unigen.presence import draw_clocks
from unigen.sampler import upward
from unigen.share import draw, share_of
from unigen.tokens import GLOBAL, Clocks, Positions, Tokens, modality_of, role_of
from unigen.uvit import Denoiser

EMBEDDED = Path(__file__).parent / "embedded"  # the model that ships with the package


class UniGen(nn.Module):
    """One generative model over several kinds of media."""

    hash = "unsaved"  # of the weights, once the model has been loaded from a folder

    def __init__(
        self,
        modalities: dict[str, Modality],
        denoiser: Denoiser,
        flow: RectifiedFlow,
        sampling: dict[str, Any] | None = None,  # steps, guidance, ... it is tuned for
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

    def options(
        self, steps=None, guidance=None, sampler=None, mutual_guidance=None, order=None
    ) -> dict[str, Any]:
        """Return the sampling options, what is None replaced by the model's own."""
        asked = {"steps": steps, "guidance": guidance, "sampler": sampler,
                 "mutual_guidance": mutual_guidance, "order": order}  # fmt: skip
        return {"order": [], **self.sampling, **{k: v for k, v in asked.items() if v is not None}}

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
        return cast(Modality, self.modalities[name])

    def lens(self, part: str) -> Lens:
        """Return how the denoiser meets a part."""
        modality = self.modality(part)
        return modality.shared if role_of(part) == GLOBAL else modality.lens

    def ordered(self, part: str) -> bool:
        """Return whether the tokens of a part are settled one after another."""
        return self.modality(part).ordered and role_of(part) != GLOBAL

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        return next(self.parameters()).device

    def encode(self, raw: Mapping[str, Any]) -> Tokens:
        """Return the latents of raw media, and of every modality its point of the shared space."""
        tokens = {part: self.modality(part).encode(value) for part, value in raw.items()}
        met = [part for part in tokens if f"{part}:{GLOBAL}" in self.denoiser.parts]
        points = {f"{p}:{GLOBAL}": self.modality(p).point(raw[p], tokens[p]) for p in met}
        return {**tokens, **{part: e[:, None] for part, e in points.items()}}

    def decode(self, tokens: Tokens) -> dict[str, Any]:
        """Return raw media from latents."""
        media = (part for part in tokens if role_of(part) != GLOBAL)
        return {part: self.modality(part).decode(tokens[part]) for part in media}

    def embed(self, raw: Mapping[str, Any]) -> dict[str, Float[Tensor, "b e"]]:
        """Return the points of raw media in the shared space, squared norm e."""
        latents = {p: self.modality(p).encode(v) for p, v in raw.items()}
        return {p: self.modality(p).point(raw[p], z) for p, z in latents.items()}

    def positions(self, tokens: Mapping[str, Tensor]) -> Positions:
        """Return (second, row, column) of every token; a global token stands in the middle."""
        places = {}
        for part, x in tokens.items():
            place = self.modality(part).positions()
            place = place.mean(0, keepdim=True) if role_of(part) == GLOBAL else place
            places[part] = place.to(x.device)
        return places

    # ---- training -------------------------------------------------------------------------------

    def loss(
        self, x: Tokens, generator: torch.Generator | None = None, **often: Any
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the flow loss of every part: clocks drawn, data noised, data predicted.

        The losses of a share of a batch (`unigen.share`) are such that their mean over the shares
        is the loss of the batch. often: `conditional`, `given` and `ways` of `draw_clocks`.
        """
        share = share_of(generator)
        positions = self.positions(x)
        means = {part: self.modality(part).noise_mean for part in x}
        ordered = {part for part in x if self.ordered(part)}
        whole = {k: share.whole(z) for k, z in x.items()}
        clocks = draw_clocks(self.flow, whole, positions, means, ordered, generator, **often)
        t = {k: share.rows(clock) for k, clock in clocks.items()}
        eps = {k: draw(torch.randn, z.shape, generator, z.device) for k, z in x.items()}
        losses = self.missed(x, eps, t)
        for k, loss in losses.items():
            mass = self.lens(k).mass
            loss = loss * (share.of * mass(t[k]) / mass(clocks[k]))
            losses[k] = loss * (0.05 if role_of(k) == GLOBAL else 1.0)
        return losses

    def missed(self, x: Tokens, eps: Tokens, t: Clocks) -> dict[str, Float[Tensor, ""]]:
        """Return the flow loss of every part with this noise, at these clocks."""
        x_t = {k: self.flow.interpolate(x[k], eps[k], t[k]) for k in x}
        output = self.denoise(x_t, t)
        return {k: self.lens(k).loss(output[k], x[k], x_t[k], t[k], self.flow) for k in x}

    # ---- generation -----------------------------------------------------------------------------

    def predict(self, x: Tokens, t: Clocks) -> Tokens:
        """Return the data that the network sees behind noisy tokens, on average."""
        output = self.denoise(x, t)
        return {k: self.lens(k).data(output[k], x[k], t[k], self.flow) for k in x}

    def denoise(self, x: Tokens, t: Clocks) -> Tokens:
        """Return what the network answers to noisy tokens, in the terms of each part's lens."""
        seen = {k: self.lens(k).see(x[k], t[k], self.flow) for k in x}
        return self.denoiser(seen, t, self.positions(x))

    def sample(
        self, want: Sequence[str], given: Tokens, seeds: Sequence[int], **options: Any
    ) -> Iterator[Tokens]:
        """Yield the wanted latents after every step; options are those of `sampling.sample`."""
        return sampling.sample(self, want, given, seeds, **options)

    @torch.no_grad()
    def invert(
        self, raw: Mapping[str, Any], given: Mapping[str, Any] | None = None, steps: int = 50
    ) -> Tokens:
        """Return the noise that leads to raw media, given others, by as many steps of Euler.

        `generate(..., noise=noise, sampler="euler", steps=steps, guidance=1, order=[])` goes back;
        with other media given it makes a variation, with `slerp` of two noises one in between.
        raw, given: as `generate` takes them; several samples side by side where they are lists.
        Raises UsageError for words: they are drawn, and no noise leads to them.
        """
        for part in raw:
            if self.ordered(part):
                raise UsageError(f"{part} is drawn word by word; no noise leads to it.")
        count = max([1, *(len(v) for v in raw.values() if not isinstance(v, str | Path))])
        data, beside = (
            encoded(self, taken(self, media, count)[0], slice(None), count)
            for media in (raw, given or {})
        )
        *_, noise = self.sample(list(raw), beside, range(count), steps=steps, sampler=upward(data))
        return noise

    def shape(self, part: str) -> tuple[int, int]:
        """Return tokens and channels of a part."""
        modality = self.modality(part)
        if role_of(part) == GLOBAL:
            return (1, modality.shared.width)
        return (modality.tokens, modality.channels)

    def prior(self, part: str, seeds: Sequence[int]) -> Float[Tensor, "b n c"]:
        """Return the noise from which a part is made: a function of each seed and the name."""
        return self.modality(part).prior(part, seeds, self.shape(part)).to(self.device)

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


def load(
    name: str | Path | None = None,
    plugins: Sequence[str] = (),
    recipe: str | None = None,
    size: int | Sequence[int] | None = None,
    download: bool = False,
) -> UniGen:
    """Load the embedded model, the one in a folder, or a pipeline of diffusers that is known.

    recipe: how a pipeline samples, where there is more than one way: see `unigen.interop`.
    size: of a pipeline's pictures, a side or height and width, if not what it was trained with.
    download: the name is that of a repository of the Hugging Face hub, `owner/name`.
    """
    import_plugins(plugins)
    if download and name is not None:
        name = interop.fetched(name)
    if name is not None and interop.is_pipeline(name):
        return interop.load_pipeline(name, recipe, size)
    for key, value in (("recipe", recipe), ("size", size)):
        if value is not None:
            raise UsageError(
                f"{key}={value} is for pipelines of other projects; this model has one way to "
                "sample, and one size."
            )
    return UniGen.from_pretrained(EMBEDDED if name is None else name, plugins)
