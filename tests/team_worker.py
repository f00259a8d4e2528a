"""One process of a team: trains the tiny model as told and writes what came out.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=... MASTER_PORT=... python team_worker.py CASES.json OUT.json

Without RANK it is alone. A case is {name, objective, engine, steps, options, ...}.
"""

import json
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import torch
from tiny import tiny_model, tiny_spec, tiny_world

from unigen import registry
from unigen.data.latents import Latents
from unigen.engine import engine_of
from unigen.errors import UsageError
from unigen.objectives import Align, Codec, Denoise
from unigen.runs import latest_step, load_step, save_step
from unigen.team import team_of
from unigen.trainer import Trainer
from unigen.validate import Validation, samples

OBJECTIVES = {
    "image": lambda: Codec("image"),
    "video": lambda: Codec("video"),
    "align": lambda: Align("text"),
    "denoise": Denoise,
}


def trainer_of(case: dict, team) -> Trainer:
    """Return a fresh trainer of the tiny model."""
    torch.manual_seed(0)
    model, objective = registry.build(tiny_spec()), OBJECTIVES[case.get("objective", "denoise")]()
    data = Latents(tiny_model(), objective, tiny_world(), 24) if objective.cached else tiny_world()
    options = {"steps": 40, "batch": 8, "warmup": 2, "lr": 1e-3, "bf16": False, "muon_lr": None}
    switches = {k: case[k] for k in ("checkpointing", "compile") if k in case}
    engine = engine_of(case.get("engine", "ddp"), team, **switches)
    trainer = Trainer(model, objective, data, engine=engine, **{**options, **case["options"]})
    for step in case.get("poison", ()):  # the loss of one process only is not finite then
        _poison(trainer, step)
    return trainer


def held_out(trainer: Trainer) -> list[dict]:
    """Return a few scenes that are not learned."""
    return samples(trainer.model, trainer.objective, tiny_world(seed=1), "cpu", 4)


def _poison(trainer: Trainer, step: int) -> None:
    """Make the loss of the last process NaN at one step."""
    loss, team = trainer.objective.loss, trainer.engine.team

    def poisoned(*inputs):
        losses = loss(*inputs)
        if trainer.step == step and team.rank == team.size - 1:
            return {k: x * float("nan") for k, x in losses.items()}
        return losses

    trainer.objective.loss = poisoned


def train(case: dict, team) -> dict:
    """Train as a case says; return losses, weights and what else was asked."""
    try:
        trainer = trainer_of(case, team)
    except UsageError as error:
        return {"error": str(error)}
    run = case.get("run")
    if case.get("load"):
        trainer.load_state(*load_step(latest_step(run).folder, *trainer.engine.place))
    losses = []
    with suppress(StopIteration):
        for _ in range(case["steps"]):
            losses.append(trainer.train_step())
    validated, here = {}, team.rank == 0
    if case.get("validate"):
        validated = Validation(held_out(trainer) if here else [], 1, 4).losses(trainer)
        losses.append(trainer.train_step())
    team.meet()
    if run:
        groups, meta = trainer.state()
        sharded = trainer.engine.place[1] > 1
        own = trainer.engine.split(groups)
        save_step(run, trainer.step, own, meta, team=team, sharded=sharded)
    with trainer.engine.averaged(trainer.model, trainer.module, trainer.ema.module) as model:
        values = model.state_dict().values() if team.rank == 0 else ()
        average = sum(v.double().abs().sum().item() for v in values)
    whole = trainer.engine.whole(trainer.module.state_dict())
    return {
        "losses": losses,
        "validated": validated,
        "step": trainer.step,
        "skipped": trainer.skipped,
        "average": average,
        "weights": sum(v.double().abs().sum().item() for v in whole.values()),
        "sharded": sum(p.numel() for p in trainer.module.parameters())
        - sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in trainer.module.parameters()),
    }


def main() -> None:
    """Run the cases one after another."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    cases, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    with team_of(120) as team:
        results = {case["name"]: train(case, team) for case in cases}
        if team.rank == 0:
            out.write_text(json.dumps(results))
    threads = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
    assert not any("gloo" in name for name in threads), threads  # one that outlasts Python aborts


if __name__ == "__main__":
    main()
