"""What a training step costs, before it is taken: parameters, operations, memory, bytes, seconds.

Operations and activations are counted by walking the denoiser once on tensors that hold no data,
for every presence set, weighted by how often training draws it. Nothing here is measured; seconds
follow from the speeds that are assumed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from unigen.configure import build, find
from unigen.engine import blocks
from unigen.errors import UsageError
from unigen.optim import optimizers
from unigen.tokens import modality_of
from unigen.uvit import Denoiser

PROCESSES = (1, 8, 64, 512)
FLOAT = 4  # bytes of a weight, a gradient, a moment and an average


@dataclass(frozen=True)
class Speed:
    """What the seconds of a plan assume of a processor and of the network."""

    tflops: int | float = 989.0  # a second at most: an H100 SXM, bfloat16, dense, as published
    share: int | float = 0.4  # of it that a step reaches
    network: int | float = 50.0  # GB a second that each sends: a port of 400 Gb/s

    def __post_init__(self) -> None:
        """Raise UsageError for what is no speed."""
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
                raise UsageError(f"assume.{name}={value} is no number; type one such as 1.")
            if not value > 0 or (name == "share" and value > 1):
                most = "at most 1 and " if name == "share" else ""
                raise UsageError(f"assume.{name}={value} is no speed; it is {most}more than 0.")

    def seconds(self, flops: float, moved: float = 0.0, processes: int = 1) -> float:
        """Return how long a step takes that computes first and sends then.

        flops: operations of all processes together. moved: bytes that each of them sends.
        """
        return flops / (processes * self.tflops * 1e12 * self.share) + moved / (self.network * 1e9)


class Step:
    """The cost of one step of a denoiser, of a whole batch, and of its state."""

    def __init__(
        self,
        denoiser: Denoiser,
        tokens: Mapping[str, int],  # of a sample, by part
        sets: Sequence[tuple[float, list[str]]],  # how often a batch shows some modalities
        batch: int,
        muon: bool = True,
        checkpointing: bool = False,
        bf16: bool = True,
        passes: int = 1,  # in which a process takes its share of the batch
    ):
        """Walk the denoiser."""
        self.batch = batch
        self.parameters = sum(p.numel() for p in denoiser.parameters())
        self.weights = self.gradients = self.average = float(FLOAT * self.parameters)
        made = optimizers(denoiser, 0.02 if muon else None, 1e-3, 0.0)
        self.moments = float(FLOAT) * sum(
            p.numel() * (1 if isinstance(each, torch.optim.Muon) else 2)
            for each in made
            for group in each.param_groups
            for p in group["params"]
        )
        self.block = FLOAT * max(sum(p.numel() for p in b.parameters()) for b in blocks(denoiser))
        self.tokens = self.flops = self.activations = 0.0
        for share, names in sets:
            parts = {p: n for p, n in tokens.items() if modality_of(p) in names}
            self.tokens += share * batch * sum(parts.values())
            flops, kept = walk(denoiser, parts, checkpointing)
            self.flops += share * batch * flops
            size = batch / passes * kept * (0.5 if bf16 else 1.0)
            self.activations = max(self.activations, size)  # the greatest set decides

    def memory(self, processes: int, sharded: bool) -> dict[str, float]:
        """Return the bytes of one process by part; `sharded`: its rows only, one block whole."""
        state = {"weights": self.weights, "gradients": self.gradients,
                 "optimizer": self.moments, "average": self.average}  # fmt: skip
        if sharded:
            state = {k: v / processes for k, v in state.items()}
            state["gathered"] = 2.0 * self.block if processes > 1 else 0.0  # in use, and the next
        state["activations"] = self.activations / processes
        return {**state, "total": sum(state.values())}

    def moved(self, processes: int, sharded: bool) -> float:
        """Return the bytes that one process sends in a step, by ring algorithms.

        DDP adds up all gradients: twice (n - 1)/n of them. FSDP2 gathers every weight going
        forward and going back, and scatters the sums of the gradients: three times.
        """
        share = (processes - 1) / processes
        return (3 if sharded else 2) * share * self.gradients

    def seconds(self, processes: int, sharded: bool, speed: Speed) -> float:
        """Return how long a step takes at some speed; nothing is sent while it computes."""
        return speed.seconds(self.flops, self.moved(processes, sharded), processes)


def walk(
    denoiser: Denoiser, tokens: Mapping[str, int], checkpointing: bool = False
) -> tuple[float, float]:
    """Return the operations of one sample's step, and the bytes kept for the way back in float32.

    Both are of the denoiser on the tokens of some parts; a product and its sum are two operations.
    checkpointing: blocks keep their input, and one of them everything while it is done again.
    """
    kept: dict[nn.Module | None, float] = {None: 0.0}  # by the block that keeps it
    entered: dict[nn.Module, float] = {}
    inside: list[nn.Module | None] = [None]
    seen: dict[int, Any] = {}  # storages, held so that no other one takes their place

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in seen:
            kept[inside[-1]] = kept.get(inside[-1], 0.0) + storage.nbytes()
        seen[storage._cdata] = storage
        return x

    def enter(block: nn.Module, inputs: tuple) -> None:
        inside.append(block)
        entered[block] = inputs[0].untyped_storage().nbytes()

    hooks = [b.register_forward_pre_hook(enter) for b in blocks(denoiser)]
    hooks += [b.register_forward_hook(lambda *_: inside.pop() and None) for b in blocks(denoiser)]
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), _operations() as counter:
            weights = {
                name: torch.empty(p.shape, requires_grad=True)
                for name, p in denoiser.named_parameters()
            }
            seen |= {w.untyped_storage()._cdata: w for w in weights.values()}
            x = {p: torch.randn(1, n, denoiser.parts[p]) for p, n in tokens.items()}
            t = {p: torch.rand(1, n) for p, n in tokens.items()}
            places = {p: torch.rand(n, 3) for p, n in tokens.items()}
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
                out = torch.func.functional_call(denoiser, weights, (x, t, places))
            forward = counter.get_total_flops()
            torch.stack([y.sum() for y in out.values()]).sum().backward()
            flops = counter.get_total_flops() + (forward if checkpointing else 0)
    finally:
        for hook in hooks:
            hook.remove()
    if not checkpointing:
        return float(flops), sum(kept.values())
    largest = max(kept[block] for block in entered)
    return float(flops), kept[None] + sum(entered.values()) + largest


def _operations() -> FlopCounterMode:
    """Return torch's counter, told of the attention kernel that it does not count."""
    aten = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: (
                sdpa_flop_count(q, k, v)
            ),
            aten._scaled_dot_product_flash_attention_for_cpu_backward: (
                lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)
            ),
        },
    )


def report(cfg: dict) -> str:
    """Return in words what a step costs as configured; UsageError where no denoiser learns."""
    plugins = cfg.get("plugins") or ()
    model, objective = outline(cfg["model"], plugins), build(cfg["objective"], plugins)
    if objective.module(model) is not model.denoiser:
        raise UsageError("plan=true counts the steps of a denoiser; type objective=denoise.")
    options, speed = cfg["trainer"], Speed(**cfg["assume"])
    tokens = {p: model.shape(p)[0] for p in model.denoiser.parts}
    sets, muon = objective.sets([*model.modalities]), options["muon_lr"] is not None
    passes, forget, bf16 = options["accumulate"], options["checkpointing"], options["bf16"]
    step = Step(
        model.denoiser, tokens, sets, options["batch"], muon, forget, bf16 is not False, passes
    )
    return "\n".join(lines(step, speed))


def outline(node: Mapping[str, Any], plugins: Sequence[str] = ()) -> Any:
    """Build a model as configured, whose denoiser has shapes and no weights, so that any fits."""
    rest = {key: value for key, value in node.items() if key not in ("_target_", "denoiser")}
    with torch.device("meta"):
        denoiser = build(node["denoiser"], plugins)
    return find(node["_target_"], plugins)(**build(rest, plugins), denoiser=denoiser)


def lines(step: Step, speed: Speed) -> list[str]:
    """Return a plan in words: one line a fact, then one a number of processes and engine."""
    text = [
        f"parameters of the denoiser  {step.parameters:,}",
        f"batch                       {step.batch} samples",
        f"tokens a step               {step.tokens:,.0f} on average over presence sets",
        f"operations a step           {step.flops / 1e12:.4g} TFLOP on average",
        f"assumed of each processor   {speed.share:g} of {speed.tflops:g} TFLOP a second, "
        f"{speed.network:g} GB a second sent",
        "computed, not measured; GB of each process, GB that it sends in a step, and seconds:",
        "processes engine  weights gradients optimizer average activations   total    sent seconds",
    ]
    for processes in PROCESSES:
        for sharded in (False, True) if processes > 1 else (False,):
            part = step.memory(processes, sharded)
            gb = {k: f"{v / 1e9:.3g}" for k, v in part.items()}
            text.append(
                f"{processes:9} {'fsdp' if sharded else 'ddp':6}  {gb['weights']:>7} "
                f"{gb['gradients']:>9} {gb['optimizer']:>9} {gb['average']:>7} "
                f"{gb['activations']:>11} {gb['total']:>7} "
                f"{step.moved(processes, sharded) / 1e9:>7.3g} "
                f"{step.seconds(processes, sharded, speed):>7.3g}"
            )
    return text
