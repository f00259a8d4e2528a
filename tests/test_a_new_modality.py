"""A fifth modality lives outside of the package: notebooks/depth, one class and one YAML."""

import sys
from pathlib import Path

import pytest
import torch

from unigen.cli import main
from unigen.errors import CheckpointError
from unigen.model import UniGen, load
from unigen.tensorfile import read_weights

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


@pytest.fixture(scope="module")
def depth():
    """The outside package, found as a user's is: on the path, named in plugins=[...]."""
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(NOTEBOOKS)
    import depth.depth
    import depth.oracle
    import depth.world

    from unigen.data.world.oracles import ORACLES, TELLS

    yield depth
    patch.undo()
    for known in (ORACLES, TELLS):
        known.pop("depth")
    for name in [name for name in sys.modules if name.split(".")[0] == "depth"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def folders(depth, tmp_path_factory):
    """A small model of text and image, and one that went on from it with depth."""
    path = tmp_path_factory.mktemp("fifth")
    small = ["model=small", "trainer.batch=4", "trainer.cache=16", "trainer.preview_every=0"]
    old, new = path / "old", path / "new"
    assert main(["train", *small, "modality=[text,image]", "trainer.steps=1", f"out={old}"]) == 0
    line = ["plugins=[depth]", f"hydra.searchpath=[file://{NOTEBOOKS / 'depth' / 'conf'}]",
            "modality=[text,image,depth]", "data._target_=depth.world.DepthWorld",
            "+data.parts=[text,depth]", "tune=new", "objective.must=[depth]",
            f"init=[{old / 'model'},image:depth@{old / 'model'}]",
            "trainer.steps=3", "trainer.warmup=1"]  # fmt: skip
    assert main(["train", *small, *line, f"out={new}"]) == 0
    return old / "model", new / "model"


def test_only_what_is_new_has_moved(folders):
    before, after = (read_weights(folder / "model.safetensors", folder)[0] for folder in folders)
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    new = {name: weight for name, weight in after.items() if name not in before}
    assert new and all("depth" in name for name in new)
    begun = {name: before.get(name.replace("depth", "image")) for name in new}
    assert any(w is not None and not torch.equal(w, new[name]) for name, w in begun.items())


@pytest.mark.parametrize(
    ("given", "want"),
    [("text", ["depth"]), ("image", ["depth"]), ("depth", ["text", "image"]), (None, ["depth"])],
)
def test_every_direction_works(folders, depth, given, want, tmp_path):
    model = load(folders[1], ["depth"])
    raw = depth.world.DepthWorld(seed=3).batch(torch.arange(1), ["text", "image", "depth"])
    value = {} if given is None else {given: raw[given][0] if given == "text" else raw[given]}
    (result,) = model.generate(want, value, steps=2)
    paths = result.save(tmp_path)
    assert [path.suffix for path in paths] == [{"text": ".txt"}.get(p, ".png") for p in want]
    if "depth" in want:
        assert result["depth"].shape == (1, 64, 64)
        again, _ = model.modality("depth").read(paths[0])
        assert (again - result["depth"]).abs().max() <= 0.5 / 255 + 1e-6
        assert torch.equal(again, model.modality("depth").take(str(paths[0]))[0])


def test_its_folder_is_for_those_who_name_the_module(folders):
    with pytest.raises(CheckpointError, match=r"plugins=\[\.\.\.\]\.$") as caught:
        UniGen.from_pretrained(folders[1])
    assert "'depth.depth:Depth'" in str(caught.value) and "\n" not in str(caught.value)


def test_the_commands_take_it_too(folders, tmp_path, capsys):
    line = ["generate", "a red ring", "want=[depth]", "steps=1", f"model={folders[1]}"]
    assert main([*line, f"out={tmp_path / 'a'}"]) == 4
    assert "plugins" in capsys.readouterr().err
    assert main([*line, f"out={tmp_path / 'b'}", "plugins=[depth]"]) == 0
    assert (tmp_path / "b" / "depth_0.png").is_file()


def test_its_codec_keeps_what_the_oracle_reads(depth):
    from unigen.data.world.oracles import accuracy, matches, read, truth

    codec = depth.depth.Depth()
    codec.attach(load().modalities)
    world, index = depth.world.DepthWorld(seed=5, split="held_out"), torch.arange(128)
    maps, scenes = world.batch(index, ["depth"])["depth"], truth(world.scenes(index))
    with torch.no_grad():
        again = codec.decode(codec.encode(maps))
    exact, kept = (accuracy(matches(read("depth", m), scenes)) for m in (maps, again))
    assert set(exact) == {"count", "shape", "size", "position", "all"}
    assert min(exact.values()) > 0.98 and min(kept.values()) > 0.9


def test_depth_is_that_of_the_picture(depth):
    world = depth.world.DepthWorld(seed=7, two=1.0)
    made = world.batch(torch.arange(16), ["image", "depth"])
    away = (made["image"] - made["image"][..., :1, :1]).abs().amax(1)
    assert ((away > 0.02) == (made["depth"] > 0.005)).float().mean() > 0.995
    assert torch.equal(world.batch(torch.arange(3, 5), ["depth"])["depth"], made["depth"][3:5])
