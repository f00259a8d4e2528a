"""The help texts: static, so that they appear at once."""

from unigen.arguments import conf_dir, known_keys

_OVERVIEW = """\
unigen: one generative model over image, text, video and audio; any subset from any subset.

  unigen generate "a large red circle bounces, and a low hum" want=[image,audio]
  unigen generate given.video=clip.mp4 want=[text,audio]
  unigen caption photo.png clip.mp4 sound.wav
  unigen embed photo.png sound.wav out=points
  unigen train experiment=world trainer.steps=2000 model=small
  unigen evaluate n=20 out=scores
  unigen replay results/image_0.png
  unigen convert old/unidiffuser-v1 out=unidiffuser-v1
  unigen data check data=folder data.root=media

Each verb has its own page: unigen VERB --help.
Results' paths go to standard output, one a line; everything else to standard error.
Exit codes: 0 done, 1 a bug of unigen, 2 usage, 3 bad media, 4 bad checkpoint, 5 out of a resource.
UNIGEN_TRACEBACK=1 shows the traceback of any error.
"""

_USAGE = {
    "generate": """\
unigen generate [PROMPT] [key=value ...]: make any parts from any given parts.

PROMPT is data: any text in one pair of quotes. @FILE reads it from a file, - from standard input;
@@ stands for a literal @. given.text=... is the same.
""",
    "caption": """\
unigen caption FILE ... [key=value ...]: say what images, videos and sounds show, one line a file.
""",
    "embed": """\
unigen embed FILE ... [key=value ...]: place files in the space that all modalities share.
""",
    "train": """\
unigen train [group=option ...] [key=value ...]: train a model, or one of its codecs.
""",
    "data_check": """\
unigen data check [data=SOURCE] data.root=FOLDER [key=value ...]: read all of a source and say what
is in it, and what of it is broken (exit code 3).
""",
    "data_shard": """\
unigen data shard [data=SOURCE] data.root=FOLDER out=NEW [key=value ...]: pack a source into tar
shards with an index of counts, offsets and sha256.
""",
    "data_encode": """\
unigen data encode [data=SOURCE] data.root=FOLDER out=FOLDER [key=value ...]: let a model's codecs
work once; data=latents trains on what they made.
""",
    "evaluate": """\
unigen evaluate [key=value ...]: measure every direction and write directions.json.
""",
    "replay": """\
unigen replay FILE ... [key=value ...]: make results again from the recipes they carry.
""",
    "convert": """\
unigen convert FOLDER out=NEW [key=value ...]: turn published weights that are pickles into a
pipeline folder of safetensors, which every other verb takes as model=NEW.
""",
}

_HYDRA = """\
Hydra's own flags work: --cfg job [--resolve] shows the configuration, -m sweeps (seed=0,1,2),
--config-dir DIR and hydra.searchpath=[file://DIR] add your own YAML, --info searchpath explains.
"""


def overview() -> str:
    """The text of `unigen --help`."""
    return _OVERVIEW


def options(group: str) -> list[str]:
    """The options of a group as they are typed: `world`, and `world/image` in a folder."""
    folder = conf_dir() / group
    files = folder.rglob("*.yaml")
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in files)


def usage(verb: str) -> str:
    """The text of `unigen VERB --help`: what it does, its keys, its groups and their options."""
    lines = (conf_dir() / f"{verb}.yaml").read_text(encoding="utf-8").splitlines()
    keys = [line for line in lines if line and line[0] not in " #" and line != "defaults:"]
    keys = [line for line in keys if not line.startswith("hydra:")]
    groups = []
    for group in known_keys(verb):
        if known := options(group.partition("@")[0]):
            groups.append(f"  {group}={'|'.join(known)}")
    text = _USAGE[verb] + "\nKeys:\n" + "\n".join(f"  {line}" for line in keys) + "\n"
    if groups:
        text += "\nGroups:\n" + "\n".join(groups) + "\n"
    return f"{text}\n{_HYDRA}"
