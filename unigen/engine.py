"""How many processes train one module: torch's DDP or FSDP2 around a lesson, or nothing at all.

A lesson is the module that learns with its loss as the forward pass, so that the wrappers of torch
see one call a pass. DDP holds everything on every process; FSDP2 gives each a share of the rows of
every weight, gradient, average and optimizer state, and gathers a block when it is used.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from unigen.errors import UsageError
from unigen.layers import Block
from unigen.model import UniGen
from unigen.team import Team, Torchrun

ENGINES = ("ddp", "fsdp")


class Lesson(nn.Module):
    """A module that learns, called by its loss."""

    def __init__(self, module: nn.Module, model: UniGen, objective: Any):
        """`module`: the part of the model that the objective teaches."""
        super().__init__()
        self.module = module
        self._rest = (model, objective)  # in a tuple: no parameters of this module

    def forward(self, batch: dict, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the losses of a share of a batch."""
        model, objective = self._rest
        return objective.loss(model, batch, generator)


class Engine:
    """One process, or one of several that hold the same weights (DDP)."""

    def __init__(
        self, team: Team | None = None, checkpointing: bool = False, compile: bool = False
    ):
        """checkpointing: blocks forget what they computed and compute it again going back.

        compile: torch.compile for every block.
        """
        self.team = team or Team()
        self.checkpointing, self.compile = checkpointing, compile

    def wrap(self, lesson: Lesson, average: nn.Module) -> nn.Module:
        """Return the lesson as it is to be called, after changing its blocks in place."""
        self._change(lesson)
        if self.team.size == 1:
            return lesson
        return DistributedDataParallel(
            lesson, find_unused_parameters=True, broadcast_buffers=False, init_sync=True
        )

    @contextmanager
    def passing(self, lesson: nn.Module, last: bool) -> Iterator[None]:
        """Keep gradients to this process until the last pass of a step."""
        wrapped = isinstance(lesson, DistributedDataParallel) and not last
        with cast(DistributedDataParallel, lesson).no_sync() if wrapped else nullcontext():
            yield

    def clip(self, module: nn.Module, most: float) -> Tensor:
        """Scale the gradient to a norm of at most so much; return the norm before."""
        return nn.utils.clip_grad_norm_(module.parameters(), most)

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors whole, on process 0 at least."""
        return tensors

    def split(self, groups: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Return what this process is to write of a state: process 0 everything, others nothing."""
        return groups if self.team.rank == 0 else {}

    @property
    def place(self) -> tuple[int, int]:
        """Return which rows of sharded tensors this process holds: its rank, of how many."""
        return (0, 1)

    def adopt(self, own: Tensor, value: Tensor) -> Tensor:
        """Return a saved tensor in the form of one of this process, of which it may be the rows."""
        return value

    @contextmanager
    def averaged(self, model: UniGen, module: nn.Module, average: nn.Module) -> Iterator[UniGen]:
        """Give the model with averaged weights; afterwards everything is as before."""
        kept = {k: v.clone() for k, v in module.state_dict().items()}
        module.load_state_dict(average.state_dict())
        try:
            yield model
        finally:
            module.load_state_dict(kept)

    def _change(self, lesson: Lesson) -> None:
        for block in blocks(lesson):
            if self.checkpointing:
                block.forward = _forgetful(block.forward)
            if self.compile:
                block.compile()


class Sharded(Engine):
    """One of several processes that share the rows of everything (FSDP2)."""

    def wrap(self, lesson: Lesson, average: nn.Module) -> nn.Module:
        """Shard the lesson and its average in place; UsageError for anything but a denoiser."""
        model, _ = lesson._rest
        if lesson.module is not model.denoiser:
            raise UsageError(
                "trainer.engine=fsdp shards a denoiser, and codecs and towers are small; type "
                "trainer.engine=ddp."
            )
        weights = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in model.parameters()}
        self._hollow = copy.deepcopy(model, weights)  # of meta weights, to be filled for samples
        self._change(lesson)
        device = next(lesson.parameters()).device.type
        mesh = cast(Torchrun, self.team).mesh(device)
        for each in (lesson, average):
            for block in blocks(each):
                fully_shard(block, mesh=mesh)
            fully_shard(each, mesh=mesh)
        return lesson

    @contextmanager
    def passing(self, lesson: nn.Module, last: bool) -> Iterator[None]:
        """Keep gradients to this process until the last pass of a step."""
        cast(FSDPModule, lesson).set_requires_gradient_sync(last)
        yield

    def clip(self, module: nn.Module, most: float) -> Tensor:
        """Scale the gradient to a norm of at most so much; return the norm before."""
        return cast(DTensor, super().clip(module, most)).full_tensor()

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors whole, on the CPU of process 0; the others return none."""
        made = {}
        for k, v in tensors.items():  # one after another: only one of them is whole on a GPU
            value = v.full_tensor() if isinstance(v, DTensor) else v
            if self.team.rank == 0:
                made[k] = value.cpu()
        return made

    def split(self, groups: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Return what this process is to write of a state: its rows, and process 0 the rest."""
        return {
            name: {
                k: v.to_local() if isinstance(v, DTensor) else v
                for k, v in group.items()
                if isinstance(v, DTensor) or self.team.rank == 0
            }
            for name, group in groups.items()
        }

    @property
    def place(self) -> tuple[int, int]:
        """Return which rows of sharded tensors this process holds: its rank, of how many."""
        return (self.team.rank, self.team.size)

    def adopt(self, own: Tensor, value: Tensor) -> Tensor:
        """Return a saved tensor in the form of one of this process, of which it may be the rows."""
        if not isinstance(own, DTensor) or value.ndim == 0:
            return value
        local = own.to_local()
        if value.shape == own.shape:
            first, last = rows(len(value), *self.place)
            value = value[first:last]
        if value.shape != local.shape:
            return value  # a misfit, which is told where it is loaded
        value = value.to(local.device)
        return DTensor.from_local(
            value, own.device_mesh, own.placements, shape=own.shape, stride=own.stride()
        )

    @contextmanager
    def averaged(self, model: UniGen, module: nn.Module, average: nn.Module) -> Iterator[UniGen]:
        """Give process 0 another model, whole, with averaged weights; the others get no weights."""
        made = copy.deepcopy(self._hollow)
        outside = {k: v for k, v in model.state_dict().items() if not k.startswith("denoiser.")}
        learned = self.whole(average.state_dict())
        if self.team.rank == 0:
            state = {**outside, **{f"denoiser.{k}": v for k, v in learned.items()}}
            made.load_state_dict(state, assign=True)
        yield made


def engine_of(name: str, team: Team, **options: Any) -> Engine:
    """Return the engine of that name for a team: `ddp` or `fsdp`; UsageError for another."""
    if name not in ENGINES:
        raise UsageError(f"trainer.engine={name} is unknown; choose ddp or fsdp.")
    return (Sharded if name == "fsdp" and team.size > 1 else Engine)(team, **options)


def blocks(module: nn.Module) -> list[nn.Module]:
    """Return the transformer blocks of a module: they are sharded, forgotten and compiled alone."""
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList)]
    return [b for each in lists for b in each] + [
        m for m in module.modules() if isinstance(m, Block)
    ]


def rows(count: int, rank: int, size: int) -> tuple[int, int]:
    """Return the first of `count` rows that a process holds, and the one after its last."""
    each = -(-count // size)
    return min(rank * each, count), min((rank + 1) * each, count)


def _forgetful(forward: Any) -> Any:
    """Return a forward pass that keeps its inputs only, and is done again for the gradient."""
    return lambda *inputs, **named: checkpoint(forward, *inputs, use_reentrant=False, **named)
