"""The door: what arrives at a task is what was typed, and a wrong line says so and exits with 2."""

import logging
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from unigen import arguments, cli, exits
from unigen.errors import CheckpointError, MediaError, ResourceError, UsageError
from unigen.owner import lock

ROOT = Path(__file__).resolve().parents[1]
GENERATE = "unigen.generate"


class Tasks:
    """Stands where the tasks will be called, and keeps what arrives."""

    def __init__(self, monkeypatch):
        self.seen: list[tuple[str, dict]] = []
        self.answer = lambda cfg: None
        for verb in arguments.VERBS.values():
            name, function = verb.task.split(":")
            module = sys.modules.get(name)
            if not isinstance(module, types.ModuleType) or not hasattr(module, "is_stub"):
                module = types.ModuleType(name)
                module.is_stub = True
                monkeypatch.setitem(sys.modules, name, module)
            setattr(module, function, self._task(function))

    def _task(self, function):
        def task(cfg):
            self.seen.append((function, cfg))
            return self.answer(cfg)

        return task

    @property
    def cfg(self) -> dict:
        """The one configuration that arrived."""
        ((_, cfg),) = self.seen
        return cfg


@pytest.fixture
def tasks(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNIGEN_TRACEBACK", raising=False)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield Tasks(monkeypatch)
    for handler in set(root.handlers) - set(handlers):  # those `train` asks Hydra for
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


def run_python(*args: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=120
    )


ACCEPTED = [
    "a large red circle bounces, and a low hum",
    "",
    " ",
    "  spaces around  ",
    "a, b; c: d. e! f?",
    "it's a 'quoted' \"prompt\"",
    "'",
    '"',
    "\"'`",
    "back\\slash \\' \\\" \\",
    "{a: 1, b: [2]}",
    "[blue",
    "(small) ]}",
    "ratio = 2",
    "x = y = z",
    "seeed is 3, a=b c=d",
    "$HOME ${oc.env:HOME} ${seed} $$",
    "\\${seed} \\\\${seed} ${",
    "${now:%Y} ${oc.decode:'1'}",
    "???",
    "null",
    "true",
    "3.14",
    "1e309",
    "line one\nline two\n",
    "\r\n\ttab",
    "naïve café",
    "e\u0301 combining, not é",
    "红球在跳，低沉的嗡嗡声",
    "כדור אדום \u202e right to left",
    "крупный красный круг",
    "🔴🎵👩‍👩‍👧‍👦",
    "\u00a0\u200b\ufeff",
    "\x1b[31mred\x07",
    "@ home",
    "-x",
    "--help",
    "~not, +this",
    "#hash %percent &and *star <tag> |pipe",
    "é" * 4096,
]
REFUSED = {
    "nul \0 inside": "NUL",
    "lone \ud83d surrogate": "not Unicode",
    "x" * 4097: "4,097 characters",
    "y" * 1_000_000: "1,000,000 characters",
}


def test_there_are_forty_prompts():
    assert len(set(ACCEPTED)) == 40 and len(REFUSED) == 4


@pytest.mark.parametrize("text", ACCEPTED, ids=range(40))
def test_a_prompt_arrives_byte_for_byte(tasks, text):
    assert cli.main(["generate", f"given.text={text}", "want=[image,audio]"]) == 0
    assert tasks.cfg["given"] == {"text": text}
    assert tasks.cfg["want"] == ["image", "audio"]


@pytest.mark.parametrize("text", ACCEPTED, ids=range(40))
def test_a_bare_prompt_arrives_byte_for_byte_after_two_dashes(text):
    typed = "@" + text if text.startswith("@") else text
    command = arguments.sort_arguments("generate", ["seed=3", "--", typed])
    assert command.data == {("given", "text"): text}
    assert command.overrides == ["seed=3"] and command.flags == []


@pytest.mark.parametrize("text", REFUSED, ids=REFUSED.values())
@pytest.mark.parametrize("form", ["{}", "given.text={}", "given.text:question={}"])
def test_a_prompt_that_is_no_text_is_refused(tasks, capsys, text, form):
    assert cli.main(["generate", form.format(text)]) == 2
    out, err = capsys.readouterr()
    assert REFUSED[text] in err and err.count("\n") == 1 and out == ""
    assert not tasks.seen


@pytest.mark.parametrize(
    ("typed", "text"),
    [("a red ball", "a red ball"), ("@", "@"), ("@@home", "@home"), ("@@", "@"), ("a@b", "a@b")],
)
def test_a_bare_argument_is_the_prompt(tasks, typed, text):
    assert cli.main(["generate", typed, "seed=7"]) == 0
    assert tasks.cfg["given"] == {"text": text} and tasks.cfg["seed"] == 7


def test_a_prompt_comes_from_a_file_or_from_standard_input(tasks, tmp_path, monkeypatch):
    file = tmp_path / "prompt.txt"
    file.write_bytes("two\nlines, ${seed} é\n".encode())
    assert cli.main(["generate", f"@{file}"]) == 0
    with file.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert cli.main(["generate", "-"]) == 0
    assert [cfg["given"]["text"] for _, cfg in tasks.seen] == ["two\nlines, ${seed} é"] * 2


def test_a_prompt_file_that_cannot_be_one(tasks, tmp_path, capsys):
    binary, long = tmp_path / "binary", tmp_path / "long"
    binary.write_bytes(b"\xff\xfe\x00")
    long.write_text("é" * 100_000, encoding="utf-8")
    assert cli.main(["generate", f"@{binary}"]) == 3
    assert cli.main(["generate", f"@{long}"]) == 2
    assert cli.main(["generate", "@nowhere.txt"]) == 2
    assert "'nowhere.txt'" in capsys.readouterr().err
    assert not tasks.seen


def test_paths_and_regions_are_data_too(tasks):
    line = ["given.image=my, photo [1].png", "keep.video=0:1", "out=a b/${c}", "model=me/my=model"]
    line += ["given.depth=x.npy", "given.text:question=how, many?", "negative.text=a [b], c=d"]
    assert cli.main(["generate", *line]) == 0
    assert tasks.cfg["negative"] == {"text": "a [b], c=d"}
    assert tasks.cfg["given"] == {
        "image": "my, photo [1].png",
        "depth": "x.npy",
        "text:question": "how, many?",
    }
    assert tasks.cfg["keep"] == {"video": "0:1"}
    assert tasks.cfg["out"] == "a b/${c}" and tasks.cfg["model"] == "me/my=model"


@pytest.mark.parametrize("verb", ["caption", "embed", "replay"])
def test_bare_arguments_are_files(tasks, tmp_path, verb):
    (tmp_path / "seed=1, [x].png").touch()
    (tmp_path / "sound=1.wav").touch()
    files = ["sound=1.wav", "photo one.png", "./seed=1, [x].png"]
    assert cli.main([verb, *files]) == 0
    assert tasks.cfg["files"] == files


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("generate|sede=3|x", "'seed'"),
        ("generate|gvien.text=x", "'given'"),
        ("generate|seed.x=3", "'seed'"),
        ("caption|modle=x|a.png", "'model'"),
        ("train|trainer.stesp=3", "'trainer.steps'"),
        ("train|trainr.steps=3", "'train"),
        ("train|hydra.runn.dir=x", "'hydra.run.dir'"),
        ("train|modell=small", "'model'"),
        ("train|model=smal", "'small'"),
        ("train|model", "'model'"),
        ("evaluate|ful=true", "'full'"),
        ("generate|--cgf|x", "'--cfg'"),
        ("generat|x", "'generate'"),
    ],
)
def test_a_misspelt_word_fails_and_names_the_nearest(tasks, capsys, line, said):
    assert cli.main(line.split("|")) == 2
    out, err = capsys.readouterr()
    assert f"did you mean {said}" in err and err.count("\n") == 1 and err.startswith("unigen: ")
    assert out == "" and not tasks.seen


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("generate|a|b", "put the whole prompt in quotes"),
        ("generate|a|given.text=b", "came twice"),
        ("caption", "wants a file"),
        ("train|trainer.steps=[", "trainer.steps=["),
        ("train|trainer.steps=1,2", "--multirun"),
        ("generate|x|seed=${oc.env:UNIGEN_NOT_SET}", "UNIGEN_NOT_SET"),
        ("generate|x|--config-dir|nowhere", "nowhere"),
        ("generate|x|--config-dir", "wants a value"),
        ("train|--cfg|job|-m", "Only one of"),
        ("train|objective=codec", "objective.modality is not set; type objective.modality="),
    ],
)
def test_a_wrong_line_gets_one_sentence(tasks, capsys, line, said):
    assert cli.main(line.split("|")) == 2
    out, err = capsys.readouterr()
    assert said in err and err.count("\n") == 1
    assert out == "" and not tasks.seen


def test_results_go_to_standard_output_one_a_line(tasks, capsys):
    tasks.answer = lambda cfg: (Path(f"{cfg['out']}/image_{i}.png") for i in range(2))
    assert cli.main(["generate", "x", "out=here"]) == 0
    assert capsys.readouterr() == ("here/image_0.png\nhere/image_1.png\n", "")


def _raiser(error):
    def answer(cfg):
        raise error

    return answer


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no such file 'x\x1b[31m'"), 2),
        (MediaError("two\nlines"), 3),
        (CheckpointError("pickle"), 4),
        (ResourceError("full"), 5),
        (OSError(28, "No space left on device", "x"), 5),
        (PermissionError(13, "Permission denied", "x"), 5),
        (NotADirectoryError(20, "Not a directory", "x"), 2),
        (MemoryError(), 5),
        (TimeoutError("120 s"), 5),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_fault_of_the_world_is_one_line(tasks, capsys, error, code):
    tasks.answer = _raiser(error)
    assert cli.main(["generate", "x"]) == code
    err = capsys.readouterr().err
    assert err.startswith("unigen: ") and err.count("\n") == 1 and err[:-1].isprintable()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder where none can be made")
def test_where_no_folder_can_be_made_is_one_line(tasks, capsys):
    assert cli.main(["train", "model=small", "out=/proc/nowhere"]) == 2
    err = capsys.readouterr().err
    assert "/proc/nowhere" in err and err.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("ours"), FileNotFoundError(2, "no", "weights")])
def test_a_bug_of_ours_shows_its_traceback(tasks, capsys, error):
    tasks.answer = _raiser(error)
    assert cli.main(["generate", "x"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and type(error).__name__ in err and err.count("bug of unigen") == 1


def test_a_traceback_is_shown_on_request(tasks, capsys, monkeypatch):
    monkeypatch.setenv("UNIGEN_TRACEBACK", "1")
    tasks.answer = _raiser(MediaError("cut"))
    assert cli.main(["generate", "x"]) == 3
    err = capsys.readouterr().err
    assert "Traceback" in err and err.endswith("unigen: cut\n")


def test_sigterm_ends_with_143_and_cleans_up(tasks):
    cleaned = []

    def answer(cfg):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            cleaned.append(True)

    tasks.answer = answer
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        cli.main(["generate", "x"])
    assert stop.value.code == 143 and cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_sweep_calls_the_task_once_a_job_in_folders_of_their_own(tasks, capsys):
    assert cli.main(["generate", "a, b", "seed=1,2", "guidance=2,4", "-m", "out=sweep"]) == 0
    assert [(c["seed"], c["guidance"]) for _, c in tasks.seen] == [(1, 2), (1, 4), (2, 2), (2, 4)]
    assert [c["out"] for _, c in tasks.seen] == [str(Path("sweep") / str(i)) for i in range(4)]
    assert {c["given"]["text"] for _, c in tasks.seen} == {"a, b"}
    assert capsys.readouterr().out == ""


def test_a_weight_of_guidance_may_be_one_given_part_s(tasks):
    assert cli.main(["generate", "x", "guidance.text=3", "guidance.image=1.5"]) == 0
    assert cli.main(["caption", "pyproject.toml", "guidance.image=2"]) == 0
    assert [c["guidance"] for _, c in tasks.seen] == [{"text": 3, "image": 1.5}, {"image": 2}]


def test_a_sweep_stops_at_the_first_fault(tasks, capsys):
    tasks.answer = _raiser(MediaError("cut"))
    assert cli.main(["generate", "x", "seed=1,2", "-m"]) == 3
    assert len(tasks.seen) == 1 and capsys.readouterr().err == "unigen: cut\n"


def test_generate_leaves_nothing_of_hydra_behind(tasks, tmp_path):
    assert cli.main(["generate", "x"]) == 0
    assert cli.main(["caption", "a.png"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_train_keeps_its_configuration_beside_its_results(tasks, tmp_path):
    assert cli.main(["train", "out=my run", "model=small", "seed=5"]) == 0
    assert tasks.cfg["out"] == "my run" and tasks.cfg["seed"] == 5
    assert "seed: 5" in (tmp_path / "my run" / "hydra" / "config.yaml").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["my run"]


def test_a_sweep_of_train_has_a_folder_for_each_job(tasks, tmp_path):
    assert cli.main(["train", "out=sweep", "model=small", "seed=1,2", "-m"]) == 0
    assert [cfg["out"] for _, cfg in tasks.seen] == [str(Path("sweep") / job) for job in "01"]
    for job, seed in (("0", 1), ("1", 2)):
        text = (tmp_path / "sweep" / job / "hydra" / "config.yaml").read_text()
        assert f"seed: {seed}" in text


def test_cfg_job_shows_the_data_and_calls_nothing(tasks, capsys):
    assert cli.main(["generate", "a ${seed}, b", "seed=3", "--cfg", "job", "--resolve"]) == 0
    out = capsys.readouterr().out
    assert "text: a ${seed}, b" in out and "seed: 3" in out
    assert not tasks.seen


@pytest.mark.parametrize("how", ["--config-dir={}", "hydra.searchpath=[file://{}]"])
def test_groups_of_the_users_own(tasks, tmp_path, how):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "tiny.yaml").write_text("# @package _global_\nseed: 41\n")
    line = [how.format(tmp_path / "mine"), "experiment=tiny", "plugins=[my.module,other]"]
    assert cli.main(["train", *line]) == 0
    assert tasks.cfg["seed"] == 41 and tasks.cfg["plugins"] == ["my.module", "other"]


def test_a_plugin_may_lie_in_the_working_folder(tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    assert cli.main(["train"]) == 0
    assert str(tmp_path) not in sys.path
    for _ in range(2):
        assert cli.main(["train", "plugins=[my.module]"]) == 0
        assert sys.path.count(str(tmp_path)) == 1 and sys.path[-1] == str(tmp_path)


def test_a_sampler_is_a_group(tasks):
    assert cli.main(["generate", "x", "sampler=euler"]) == 0
    assert cli.main(["generate", "x"]) == 0
    assert [cfg["sampler"] for _, cfg in tasks.seen] == ["euler", None]


@pytest.mark.parametrize(
    ("line", "options"),
    [("unigen ge", ["generate"]), ("unigen train model=", ["model=base", "model=small"])],
)
def test_shell_completion(monkeypatch, capsys, line, options):
    monkeypatch.setenv("COMP_LINE", line)
    assert cli.main(["-sc", "query=bash"]) == 0
    assert set(options) <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize("argv", [[], ["--help"], *([verb, "--help"] for verb in arguments.VERBS)])
def test_help_is_static(argv):
    code = (
        "import sys; from unigen.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'hydra', 'omegaconf', 'numpy', 'PIL', 'av'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = run_python("-c", code, *argv)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("unigen")


def test_composing_imports_no_torch(tmp_path):
    code = (
        "import sys; from unigen.cli import main;"
        "code = main(['train', '--cfg', 'job']) or main(['generate', 'x', 'sede=1']);"
        "sys.exit('imported torch' if 'torch' in sys.modules else code)"
    )
    assert run_python("-c", code, cwd=tmp_path).returncode == 2


def test_a_second_run_in_a_folder_is_refused_before_torch_is_loaded(tmp_path):
    code = (
        "import sys; from unigen.cli import main;"
        "code = main(['train', 'out=run', *sys.argv[1:]]);"
        "sys.exit('imported torch' if 'torch' in sys.modules else code)"
    )
    with lock(tmp_path / "run"):
        done = run_python("-c", code, cwd=tmp_path)
    assert done.returncode == 2 and "is used by another run" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_torchrun_would_begin_anew_is_refused_before_torch_is_loaded(tmp_path):
    code = (
        "import sys; from unigen.cli import main; code = main(['train', 'model=small']);"
        "sys.exit('imported torch' if 'torch' in sys.modules else code)"
    )
    done = run_python("-c", code, cwd=tmp_path, TORCHELASTIC_MAX_RESTARTS="3")
    assert done.returncode == 2 and "type out=runs/<name>." in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_key_and_group(capsys):
    for verb in arguments.VERBS:
        assert cli.main([verb, "--help"]) == 0
        text = capsys.readouterr().out
        assert all(f"  {key}" in text for key in arguments.known_keys(verb) if key != "hydra")
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == "unigen 0.1.0\n"


def test_every_group_the_help_names_has_options():
    for group in ("model", "modality", "flow", "sampler", "objective", "data", "trainer"):
        assert list((arguments.conf_dir() / group).glob("*.yaml")), group


def test_a_long_message_is_cut(capsys):
    assert exits.say("x" * 10_000, 2) == 2
    assert len(capsys.readouterr().err) <= exits.LONGEST + len("unigen: \n")


@pytest.mark.slow
def test_a_thousand_random_overrides_end_in_a_configuration_or_in_2(tasks, capsys):
    from random import Random

    random = Random(0)
    pieces = ["seed", "n", "want", "given", "steps", "=", "=", "=", "[", "]", "{", "}", ",", ":"]
    pieces += ["${", "$", "'", '"', "\\", "+", "~", "@", "/", ".", "1", "1e9", "null", " ", "\n"]
    pieces += ["é", "\u202e", "\x1b", "x", "oc.env:HOME", "hydra", "_target_", "-", "a" * 300]
    for _ in range(1000):
        line = ["".join(random.choices(pieces, k=random.randint(1, 8))) for _ in range(2)]
        if any(set(arg.split("=")[0]) & set("@") or arg in {"-", ""} for arg in line):
            continue
        code = cli.main(["generate", "--cfg", "job", *line])
        err = capsys.readouterr().err
        assert code in {0, 2} and "Traceback" not in err and err.count("\n") <= 1, line
    assert not tasks.seen
