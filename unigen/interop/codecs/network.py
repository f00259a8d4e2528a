"""Networks of diffusers and transformers, by the name of their class and its configuration."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from unigen import checkpoint
from unigen.disk import named, parse_json, reading, real_path
from unigen.errors import CheckpointError, UsageError
from unigen.interop.hub import MAKE, fetched
from unigen.registry import MISFIT, brief, nearest, shown, stamp
from unigen.tensorfile import check_finite, dtypes_of

CONFIG = "config.json"
#: Classes that may be built, by the library that has them.
KINDS = {
    "AutoencoderKL": "diffusers",
    "AutoencoderDC": "diffusers",
    "AutoencoderTiny": "diffusers",
    "AutoencoderKLLTXVideo": "diffusers",
    "AutoencoderKLWan": "diffusers",
    "AutoencoderOobleck": "diffusers",
    "SpeechT5HifiGan": "transformers",
    "CLIPTextModel": "transformers",
    "CLIPVisionModelWithProjection": "transformers",
    "T5ForConditionalGeneration": "transformers",
}
#: A configuration may name a kernel of the hub for attention, which would be code: none is taken.
PLAIN = {"attn_implementation": "eager"}


class Network(nn.Module):
    """A network of another library; it is not trained further and has no dropout."""

    def __init__(self, kind: str, config: dict[str, Any]):
        """Build it with random weights.

        kind: the name of its class, one of `KINDS`. config: what its `config.json` says, without
        the keys that begin with an underscore.
        """
        super().__init__()
        cls = _class(kind)
        if KINDS[kind] == "diffusers":
            self.net = cls.from_config({**config})
        else:
            self.net = cls(cls.config_class(**{**config, **PLAIN}))
        self.eval()

    @classmethod
    def around(cls, net: nn.Module) -> "Network":
        """Return a network that is already built as one of these, with its spec."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made.net = net
        config: Any = net.config
        values = config.to_diff_dict() if hasattr(config, "to_diff_dict") else config
        values = {key: value for key, value in values.items() if not key.startswith("_")}
        plain = json.loads(json.dumps(values))  # lists for tuples, strings for numbers as keys
        stamp(made, {"class": "Network", "kind": type(net).__name__, "config": plain})
        return made.eval()

    @property
    def config(self) -> Any:
        """Return the library's configuration."""
        return self.net.config

    def train(self, mode: bool = True) -> "Network":
        """Stay in evaluation mode."""
        return super().train(False)

    def encode(self, raw: Tensor) -> Tensor:
        """Return an autoencoder's latents, the likeliest ones where it has a distribution."""
        dtype = next(self.net.parameters()).dtype
        made = self.net.encode(raw.to(dtype))
        if hasattr(made, "latent_dist"):
            return made.latent_dist.mode().float()
        return (made.latent if hasattr(made, "latent") else made.latents).float()

    def decode(self, z: Tensor, t: Tensor | None = None) -> Tensor:
        """Return what an autoencoder makes of latents, of clock t where it wants to know."""
        told = () if t is None else (t,)
        return self.net.decode(z.to(next(self.net.parameters()).dtype), *told).sample.float()

    def statistics(self, channels: int) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of an autoencoder's latents, by channel.

        They are what the library's pipelines take off and divide by: `latents_mean`,
        `latents_std`, `shift_factor` and `scaling_factor`, in the configuration or in the weights.
        """

        def value(name: str, usual: float) -> Tensor:
            own = dict(self.net.named_buffers()).get(name)
            found = self.config.get(name) if own is None else own
            found = torch.as_tensor(usual if found is None else found, dtype=torch.float32)
            return found.detach().flatten().expand(channels).clone()

        scale = value("scaling_factor", 1.0)
        return value("latents_mean", 0.0) + value("shift_factor", 0.0), (
            value("latents_std", 1.0) / scale
        )


def pretrained(folder: str | Path, download: bool = False, kind: str | None = None) -> Network:
    """Read a network from a folder of diffusers or transformers: config.json and safetensors.

    download: `folder` may be a repository of the Hugging Face hub, such as `owner/name` or
    `owner/name/vae`, and is fetched. kind: its class, if not the one that the configuration names.
    Nothing of the folder runs, and its weights are copied to memory. Raises UsageError where there
    is no folder, CheckpointError for a network not of `KINDS` or weights that are not its own.
    """
    root = fetched(folder) if download else real_path(folder)
    if not root.is_dir():
        raise UsageError(
            f"There is no folder {named(root)}; name one that holds {CONFIG}, or a repository of "
            "the hub with download=true."
        )
    with reading(root / CONFIG, root, checkpoint.MAX_CONFIG) as (file, _):
        config = parse_json(file.read(), named(root / CONFIG))
    named_there = config.get("_class_name") or next(iter(config.get("architectures") or ()), None)
    cls = _class(kind or named_there, named(root))
    files = sorted(root.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{named(root)} holds no safetensors; {MAKE}.")
    stored = {k: dtype for path in files for k, dtype in dtypes_of(path, root).items()}
    quiet = {"low_cpu_mem_usage": False}
    options = quiet if KINDS[cls.__name__] == "diffusers" else PLAIN
    try:
        with _silent(KINDS[cls.__name__]):
            net, report = cls.from_pretrained(
                root, use_safetensors=True, local_files_only=True, output_loading_info=True,
                ignore_mismatched_sizes=True, **options,
            )  # fmt: skip
    except (OSError, RuntimeError, SafetensorError, *MISFIT) as error:
        raise CheckpointError(f"{named(root)} cannot be read: {brief(error)}.") from error
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if some := sorted(_told(fault) for fault in report.get(key) or ()):
            raise CheckpointError(
                f"{named(root)} has {len(some)} {key.replace('_', ' ')}: {', '.join(some)}; "
                f"{CONFIG} and the weights are not of one network."
            )
    whole = {k: v for k, v in net.state_dict().items() if v.is_floating_point()}
    if wrong := [k for k in whole if not stored.get(k, torch.float32).is_floating_point]:
        raise CheckpointError(
            f"{named(root)} holds {wrong[0]} as {stored[wrong[0]]}; wanted is float32, bfloat16 or "
            "float16: copy it again."
        )
    check_finite(whole, f"Loading {named(root)}", CheckpointError)
    for tensor in (*net.parameters(), *net.buffers()):  # until now they are views of the file
        tensor.data = tensor.data.clone()
    return Network.around(net.float())


@contextmanager
def _silent(library: str) -> Iterator[None]:
    """Keep a library's warnings off the screen: what it finds is told in one sentence."""
    logger = logging.getLogger(library)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _told(fault: str | Sequence[Any]) -> str:
    """Return the name of a tensor, with its shapes in file and network if they differ."""
    if isinstance(fault, str):
        return fault
    name, stored, wanted = fault
    return f"{name} {list(stored)} for {list(wanted)}"


def _class(kind: Any, where: str = "A network") -> Any:
    """Return the class of a kind."""
    if kind not in KINDS:
        raise CheckpointError(f"{where} is a {shown(kind)}, and that is not known"
                              f"{nearest(str(kind), KINDS)}.")  # fmt: skip
    return getattr(import_module(KINDS[kind]), kind)
