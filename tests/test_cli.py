import contextlib
import errno
import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import psutil
import pytest

import archtuna.driver
from archtuna import __version__
from archtuna.cli import HIDDEN, _hide_passwords, main
from archtuna.cli.searching import _next_steps, _rounded_up
from archtuna.errors import ArchtunaError
from archtuna.schedule import Schedule
from archtuna.study import Study
from forked import archtuna as forked
from pictures import folder
from searches import TWO, instant, pictures, slow
from spaces import SEED, SMALL


def run(capsys, *arguments):
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def started(*arguments, **options):
    """Run the command line in a process of its own, as a user does."""
    return forked(*arguments, **options)


@pytest.fixture()
def seed_file(tmp_path):
    path = tmp_path / "seed.yaml"
    path.write_text(SEED)
    return path


def test_check_prints_the_table_or_json(capsys, seed_file):
    code, out, err = run(capsys, "check", seed_file, "--input-size", 32, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["default"]["params"], found["default"]["macs"], found["default"]["output"]) == (
        4210998,
        7081920,
        [1, 6],
    )
    code, out, _ = run(capsys, "check", seed_file)
    assert code == 0
    assert "215,317,440 multiply-accumulates at 3x224x224" in out
    assert "rungs: 1, 2, 4, 7, 10, 13, 16 of 20 epochs" in out
    seed_file.write_text(SEED + "\nsearch: {stopping: false}\n")
    assert "rungs: none of 20 epochs" in run(capsys, "check", seed_file)[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "backbone:\n  - [1, Conv, {channels: 8, kernal: 3}]",
            "m.yaml:2: backbone[0].kernal: unknown argument of Conv\nhint: did you mean 'kernel'?",
        ),
        ("backbone:\n  - [1, MaxPool, [9]]\ninput_size: 4", "m.yaml:2: backbone[0]: row 0"),
        ("backbone: [", "m.yaml:2: not YAML"),
        ("", "m.yaml:1: the file is empty"),
    ],
)
def test_a_mistake_is_one_error_without_traceback(capsys, tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.yaml").write_text(text)
    code, out, err = run(capsys, "check", "m.yaml")
    assert (code, out) == (1, "")
    assert err.startswith(f"archtuna: {said}")
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"], ["check"], ["search", "f.yaml"], ["check", "f", "--input-size", "big"], ["search", "f", "--out", "o", "--trials", "0"],
        ["search", "f", "--out", "o", "--first-rung", "0"], ["search", "f", "--out", "o", "--first-rung", "2", "--no-stopping"],
        ["search", "f", "--out", "o", "--fraction", "2"], ["show", "run", "x"], [], ["repeat"], ["repeat", "run", "--seeds", "0"],
        ["repeat", "run", "--numbers", "3,x"], ["search", "f", "--out", "o", "--repeats", "0"],
    ],
)  # fmt: skip
def test_a_mistake_in_the_arguments_is_exit_code_2(capsys, arguments):
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = ended.code
    assert code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "none.yaml"], "none.yaml: no such file"),
        (["front", "none"], "no study in none\nhint: archtuna search makes one"),
        (["pick", "none"], "no study in none"),
        (["pick", "none", "--max", "params"], "max: 'params' is not a bound\nhint: write for example: params=300k"),
        (["repeat", "none"], "no study in none"),
        (["evaluate", "none.safetensors"], "none.safetensors"),
        (["search", "s.yaml", "--out", "o"], "no pictures to search on\nhint: name them with --data"),
        (["search", "s.yaml", "--out", "o", "--data", "none"], "none"),
        (["search", "s.yaml", "--out", "o", "--data", "digits", "--objectives", "f2"], "unknown objective 'f2'"),
        (["search", "s.yaml", "--out", "o", "--data", "digits", "--limit", "f1<=2"], "'f1' cannot be limited"),
        (["search", "t.yaml", "--out", "o", "--data", "digits", "--time", "soon"], "'soon' is not a duration"),
        (["search", "t.yaml", "--out", "o", "--data", "digits", "--sampler", "tpee"], "did you mean 'tpe'?"),
        (["search", "s.yaml", "--out", "o", "--data", "digits"], "ends in 4 values, and the pictures have 10 classes"),
        (["init", "s.yaml", "--classes", "3"], "s.yaml: exists already"),
        (["blocks", "Cnov"], "no block is named 'Cnov'\nhint: did you mean 'Conv'?"),
    ],
)
def test_our_errors_are_exit_code_1_and_one_line_with_a_hint(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(SMALL)
    (tmp_path / "t.yaml").write_text(SMALL.replace("[4, 1", "[10, 1"))
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "stopping"), [([], None), (["--no-stopping"], False), (["--first-rung", "3"], Schedule(first=3))]
)
def test_what_the_arguments_say_of_early_stopping_reaches_the_search(
    capsys, tmp_path, monkeypatch, arguments, stopping
):
    given = []

    def search(*_, **options):
        given.append(options["stopping"])
        raise ArchtunaError("enough")

    monkeypatch.setattr("archtuna.driver.search", search)
    (tmp_path / "s.yaml").write_text(SMALL)
    run(capsys, "search", tmp_path / "s.yaml", "--out", tmp_path / "o", "--data", "digits", *arguments)
    assert given == [stopping]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["worker"], "no study is named"),
        (["worker", "--study", "photos"], "no storage is named"),
        (["status"], "name either the folder of a run or its study"),
        (["status", "runs/x", "--study", "photos"], "name either the folder of a run or its study"),
    ],
)
def test_what_a_worker_and_a_status_need(capsys, monkeypatch, arguments, said):
    monkeypatch.delenv("ARCHTUNA_STORAGE", raising=False)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (1, "")
    assert said in err
    assert "hint: " in err


def test_help_names_every_command_and_version_is_the_packages():
    assert started("--version").stdout == f"archtuna {__version__}\n"
    text = started("--help").stdout
    verbs = (
        "init",
        "check",
        "search",
        "worker",
        "status",
        "repeat",
        "front",
        "pick",
        "show",
        "train",
        "evaluate",
        "predict",
        "export",
        "blocks",
        "schema",
        "cache",
        "gc",
    )
    assert [verb for verb in verbs if f"\n    {verb} " not in text] == []


def test_schema_is_printed_or_written_with_the_line_that_an_editor_wants(tmp_path, capsys):
    code, out, _ = run(capsys, "schema")
    assert code == 0
    assert json.loads(out)["required"] == ["backbone"]
    code, out, _ = run(capsys, "schema", tmp_path / "search.schema.json")
    assert json.loads((tmp_path / "search.schema.json").read_text())["title"] == "archtuna search file"
    assert f"# yaml-language-server: $schema={tmp_path / 'search.schema.json'}" in out


def test_blocks_lists_the_zoo(capsys):
    code, out, _ = run(capsys, "blocks")
    assert code == 0
    assert "InvertedResidualv3 [kernel, expansion, channels, se=false, activation=ReLU, stride=1, drop_path=0]" in out
    listed = json.loads(run(capsys, "blocks", "Conv", "--json")[1])
    assert listed[0]["arguments"][0] == {
        "name": "channels",
        "meaning": "of the output",
        "expected": "a whole number of at least 1 and at most 65536",
        "required": True,
        "default": None,
    }
    assert (listed[0]["inputs"], listed[0]["origin"]) == (1, "archtuna.blocks.convolution")
    code, out, _ = run(capsys, "blocks", "Concat")
    assert "takes two or more rows" in out
    assert re.search(r"dim +1 +axis along which they are joined", out)


def test_a_terminal_without_a_sign_gets_it_spelled(tmp_path):
    (tmp_path / "\u00fc.yaml").write_text("backbone: [")
    command = [sys.executable, "-m", "archtuna", "check", "\u00fc.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 1
    assert done.stderr.startswith(b"archtuna: \\xfc.yaml:2: not YAML")
    shown = subprocess.run(
        [*command[:3], "blocks", "SE"], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert (shown.returncode, b"Traceback" in shown.stderr) == (0, False)


def test_init_writes_a_file_that_check_accepts(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", each=4)
    code, out, _ = run(capsys, "init", "new/search.yaml", "--data", "photos")
    assert code == 0
    assert "archtuna check new/search.yaml" in out
    assert run(capsys, "check", "new/search.yaml")[0] == 0


def test_a_closed_pipe_is_no_error(seed_file):
    command = f"{sys.executable} -m archtuna check {seed_file} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    """A search of a small space on pictures, from the command line, as the README has it."""
    root = tmp_path_factory.mktemp("user")
    folder(root / "photos")
    (root / "small.yaml").write_text(SMALL.replace("[4, 1", "[3, 1"))
    done = started(
        "search",
        "small.yaml",
        "--data",
        "photos",
        "--out",
        "runs/one",
        "--trials",
        4,
        "--epochs",
        3,
        "--json",
        "--limit",
        "params<=1500",
        cwd=root,
    )
    assert done.returncode == 0, done.stderr
    return root, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_search_prints_an_event_a_line_and_the_result_last(a_run):
    _, events = a_run
    assert events[0]["event"] == "start"
    last = events[-1]
    assert last["trials"]["complete"] == 4
    assert set(last["trials"]) == {"complete", "stopped", "refused", "failed"}
    assert last["front"]
    assert 0 < last["hypervolume"] < 1


@pytest.mark.slow
def test_the_same_command_goes_on_and_another_is_refused(a_run):
    root, events = a_run
    arguments = [
        "small.yaml",
        "--data",
        "photos",
        "--out",
        "runs/one",
        "--epochs",
        3,
        "--limit",
        "params<=1500",
        "--trials",
    ]
    again = started("search", *arguments, 5, cwd=root)
    assert again.returncode == 0, again.stderr
    assert "trials 5/5" in again.stderr
    assert "look at the knee point:" in again.stdout
    other = started("search", *arguments, 6, "--objectives", "accuracy,macs", cwd=root)
    assert other.returncode == 1
    assert "objectives: here" in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.slow
def test_a_worker_joins_and_status_and_gc_say_how_it_stands(a_run, capsys, monkeypatch, tmp_path):
    root, _ = a_run
    shared = {**os.environ, "ARCHTUNA_STORAGE": f"sqlite:///{tmp_path / 'shared.db'}"}
    made = started(
        *("search", "small.yaml", "--data", "photos", "--out", "runs/shared", "--study", "photos", "--trials", 2),
        *("--epochs", 2, "--workers", 0),
        cwd=root, env=shared,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    status = started("status", "--study", "photos", cwd=tmp_path, env=shared)
    assert "trials of 2 wanted: no trials yet" in status.stdout
    done = started("worker", "--study", "photos", "--data", root / "photos", "--json", cwd=tmp_path, env=shared)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["trials"]["complete"] == 2
    monkeypatch.setenv("ARCHTUNA_STORAGE", shared["ARCHTUNA_STORAGE"])
    code, out, _ = run(capsys, "status", "--study", "photos", "--json")
    assert (code, json.loads(out)["trials"]["complete"]) == (0, 2)
    code, out, _ = run(capsys, "status", root / "runs" / "shared", "--watch")
    assert (code, "2 complete" in out) == (0, True)
    stale = root / "runs" / "shared" / "checkpoints" / ".0-7.safetensors"
    stale.write_bytes(b"12345")
    code, out, _ = run(capsys, "gc", root / "runs" / "shared")
    assert (code, stale.exists()) == (0, True)
    assert "5 bytes, unfinished weights of a trial that has ended" in out
    code, out, _ = run(capsys, "gc", root / "runs" / "shared", "--delete", "--json")
    assert [found["bytes"] for found in json.loads(out)] == [5]
    assert not stale.exists()
    assert run(capsys, "gc", root / "runs" / "shared")[1].startswith("0 files, 0.0 MB can go")


@pytest.mark.slow
def test_front_show_evaluate_predict_train_and_export_follow(a_run, tmp_path):
    root, events = a_run

    def ask(*arguments):
        done = started(*arguments, "--json", cwd=root)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    front = ask("front", "runs/one")
    assert {"number", "key", "values", "checkpoint", "epochs"} <= set(front[0])
    best = max(front, key=lambda t: t["values"]["f1"])
    shown = ask("show", "runs/one", best["number"])
    assert shown["key"] == best["key"]
    assert {"idx", "n", "params", "module", "arguments", "in", "out", "macs"} <= set(shown["rows"][0])
    (root / "model.yaml").write_text(started("show", "runs/one", best["number"], "--yaml", cwd=root).stdout)
    assert ask("check", "model.yaml")["default"]["key"] == best["key"]
    found = ask("evaluate", best["checkpoint"])
    assert found["f1"] == pytest.approx(best["values"]["f1"], abs=1e-6)
    assert found["split"] == "val"
    predicted = ask("predict", best["checkpoint"], "photos/dots/000.jpg")
    assert predicted["classes"][0]["class"] in ("dots", "stripes", "waves")
    trained = ask("train", "runs/one", best["number"], "--epochs", 4, "--seeds", 2)
    assert set(trained) >= {"checkpoint", "val", "test"}
    again = ask("evaluate", trained["checkpoint"], "--split", "test")
    assert {k: again[k] for k in ("loss", "accuracy", "f1")} == pytest.approx(trained["test"], abs=1e-6)
    for name in ("m.onnx", "m.ts"):
        exported = ask("export", trained["checkpoint"], tmp_path / name)
        assert {"file", "format", "max_difference", "bytes"} <= set(exported)
        assert exported["bytes"] == os.path.getsize(tmp_path / name)
        assert exported["max_difference"] < 1e-3
        assert exported["pictures"] == ask("evaluate", trained["checkpoint"])["n"]
        assert exported["metrics"] == exported["model_metrics"]
    knee = started("front", "runs/one", "--knee", cwd=root).stdout.strip()
    assert (root / knee).exists()


@pytest.mark.slow
def test_what_the_page_on_choosing_says_runs(a_run, tmp_path):
    root = tmp_path / "user"
    shutil.copytree(a_run[0], root)
    page = (Path(__file__).parent.parent / "docs" / "choosing.md").read_text()
    commands = re.search(r"```sh\n(.*?)```", page, re.DOTALL)[1].replace("runs/photos", "runs/one").splitlines()
    said = {}
    for command in commands:
        words = command.partition("#")[0].split()[1:]
        done = started(*words, cwd=root)
        assert done.returncode == 0, done.stderr
        said[" ".join(words)] = done.stdout, done.stderr
    assert "(n=3)" in said["front runs/one"][0]
    assert "of 3 runs" in said["pick runs/one --within-one-se"][0]
    assert said["repeat runs/one --seeds 3"][1].startswith("archtuna repeat, runs/one: the front again, 3 runs each")
    nothing = started("pick", "runs/one", "--max", "params=1", cwd=root)
    assert nothing.returncode == 1
    assert "networks on the front keeps params <= 1\nhint: the nearest is trial " in nothing.stderr
    picked = json.loads(started("pick", "runs/one", "--json", cwd=root).stdout)
    front = json.loads(started("front", "runs/one", "--json", cwd=root).stdout)
    assert picked["values"]["f1"] == max(one["values"]["f1"] for one in front)
    assert {one["runs"] for one in front} == {3}
    events = started("repeat", "runs/one", "--seeds", 1, "--numbers", front[0]["number"], "--json", cwd=root).stdout
    assert [json.loads(line)["event"] for line in events.splitlines()] == ["repeats", "end"]


@pytest.mark.slow
def test_predict_goes_on_after_a_broken_picture(a_run):
    root, events = a_run
    checkpoint = json.loads(started("front", "runs/one", "--json", cwd=root).stdout)[0]["checkpoint"]
    (root / "mixed").mkdir(exist_ok=True)
    (root / "mixed" / "a.jpg").write_text("no picture")
    (root / "mixed" / "b.jpg").write_bytes((root / "photos" / "dots" / "001.jpg").read_bytes())
    done = started("predict", checkpoint, "mixed", "--top", 3, cwd=root)
    assert done.returncode == 1
    assert "a.jpg" in done.stderr
    assert done.stdout.startswith("mixed/b.jpg: ")
    assert done.stdout.count(",") == 2


@pytest.mark.slow
def test_a_password_among_the_arguments_is_soon_in_no_list_of_processes(tmp_path):
    url = "postgresql://ada:hunter2@127.0.0.1:1/nets"
    for given in (["--storage", url], [f"--storage={url}"]):
        with subprocess.Popen(
            [sys.executable, "-m", "archtuna", "status", "--study", "photos", *given], stderr=subprocess.PIPE, text=True
        ) as process:
            titles, me = [], psutil.Process(process.pid)
            with contextlib.suppress(psutil.Error):
                while process.poll() is None:
                    titles.append(" ".join(me.cmdline()))
            err = process.stderr.read()
        assert process.returncode == 1
        assert "cannot open the study's storage postgresql://ada:***@127.0.0.1:1/nets" in err
        assert "hunter2" not in err
        hidden = [title for title in titles if "ada:***@" in title]
        assert hidden
        assert titles[-len(hidden) :] == hidden or titles[-1] == "", "the password came back"


def test_init_makes_a_study_for_workers_to_join(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", each=12)
    storage = f"sqlite:///{tmp_path}/all.db"
    made = ("init", "search.yaml", "--data", "photos", "--study", "photos", "--storage", storage)
    code, _, err = run(capsys, *made)
    assert (code, "a study needs a folder for its run\nhint: --out RUN" in err) == (1, True)
    for _ in range(2):  # The file is there the second time.
        code, out, err = run(capsys, *made, "--out", "run")
        assert code == 0, err
        assert out == f"made the study 'photos' in {storage}; next, anywhere: archtuna worker --study photos\n"
    code, out, _ = run(capsys, "status", "--study", "photos", "--storage", storage, "--json")
    assert (json.loads(out)["wanted"], json.loads(out)["trials"]["complete"]) == (40, 0)
    assert (tmp_path / "run" / "search.yaml").read_text() == (tmp_path / "search.yaml").read_text()


@pytest.mark.slow
def test_export_proves_on_the_pictures_that_are_there(a_run, capsys, monkeypatch, tmp_path):
    root = a_run[0]
    monkeypatch.chdir(root)
    knee = run(capsys, "front", "runs/one", "--knee")[1].strip()
    code, out, err = run(capsys, "export", knee, tmp_path / "m.py")
    assert (code, err) == (0, "")
    assert re.search(r"m\.py: module, [\d,]+ bytes, differs from the model by at most 0\.0e\+00\n", out)
    assert re.search(r"accuracy and F1 on \d+ validation pictures are the model's: [01]\.\d{4} and [01]\.\d{4}\n", out)
    assert "not compared" in run(capsys, "export", knee, tmp_path / "m.py", "--no-proof")[1]
    code, _, err = run(capsys, "export", knee, tmp_path / "m.py", "--data", tmp_path / "gone")
    assert code == 1
    assert "gone" in err
    shutil.copytree(root / "runs", tmp_path / "elsewhere")
    shutil.copytree(root / "photos", tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    checkpoint = tmp_path / "elsewhere" / Path(knee).relative_to("runs")
    (root / "photos").rename(root / "away")
    try:
        code, out, err = run(capsys, "export", checkpoint, "n.py")
        assert (code, "not compared: there were no pictures" in out) == (0, True)
        assert "accuracy and F1 are not compared" in err
        assert "--data names the pictures" in err
        assert "are the model's" in run(capsys, "export", checkpoint, "n.py", "--data", "moved")[1]
    finally:
        (root / "away").rename(root / "photos")


class Gone(StringIO):
    """An output whose reader goes away when it meets a word."""

    def __init__(self, word):
        super().__init__()
        self.word, self.gone = word, False

    def write(self, text):
        self.gone = self.gone or self.word in text
        if self.gone:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        return super().write(text)


@pytest.fixture()
def stepping(tmp_path, monkeypatch):
    """A command line that searches two networks, ten epochs each, of half a second."""
    monkeypatch.setattr("archtuna.driver.search", functools.partial(archtuna.driver.search, evaluator=slow))
    (tmp_path / "s.yaml").write_text(TWO)
    given = [tmp_path / "s.yaml", "--data", pictures(tmp_path), "--out", tmp_path / "run", "--trials", 2]
    return [str(word) for word in ("search", *given, "--no-stopping")]


@pytest.mark.parametrize(("stream", "words", "word"), [("stdout", ["--json"], '"epoch"'), ("stderr", [], "")])
def test_a_reader_that_goes_away_interrupts_a_search_and_no_trial_fails(
    capsys, tmp_path, monkeypatch, stepping, stream, words, word
):
    with monkeypatch.context() as patched:
        patched.setattr(sys, stream, Gone(word))
        code = main([*stepping, *words])
    study = Study.open(tmp_path / "run")
    assert code == 1
    assert [trial.state for trial in study.trials()] == ["waiting"], "the trial is handed back"
    if stream == "stdout":
        said = "the output could not be written (Broken pipe), and the work was interrupted without it\nhint: the same"
        assert said in capsys.readouterr().err
    assert main([*stepping, "--quiet"]) == 0
    assert study.counts()["complete"] == 2


def test_a_search_whose_last_words_are_not_read_is_whole_and_says_so(capsys, tmp_path, monkeypatch, stepping):
    monkeypatch.setattr("archtuna.driver.search", functools.partial(archtuna.driver.search, evaluator=instant))
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Gone('"end"'))
        assert main([*stepping, "--json"]) == 1
    assert "and the work went on to its end without it" in capsys.readouterr().err
    assert Study.open(tmp_path / "run").counts()["complete"] == 2


@pytest.mark.slow
def test_a_search_in_a_pipe_that_is_closed_is_interrupted(tmp_path):
    (tmp_path / "s.yaml").write_text(TWO.replace("epochs: 3", "epochs: 500"))
    pictures(tmp_path)
    search = f"{sys.executable} -m archtuna search s.yaml --data pictures.npz --out run --trials 2 --no-stopping --json"
    for end in ("| head -3", "2>&1 | head -3"):
        done = subprocess.run(
            ["bash", "-c", f"{search} {end}; exit ${{PIPESTATUS[0]}}"], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 1, done.stderr
        assert len(done.stdout.splitlines()) == 3
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
        assert ("the output could not be written (Broken pipe)" in done.stderr) == (end == "| head -3")
        assert Study.open(tmp_path / "run").counts()["failed"] == 0


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["predict", "http://127.0.0.1/18.safetensors?token=abc", "pic.png"], None),
        (["device", "add", "pi4", "http://ada:abc@pi4:8765"], None),
        (["status", "--study", "s", "--storage", "sqlite:///a.db"], None),
        (["status", "--storage", "mysql://a:abc@db/n"], ["status", "--storage", "mysql://a:***@db/n"]),
        (["status", "--storage=mysql://a:abc@db/n"], ["status", "--storage=mysql://a:***@db/n"]),
        (["status", "--stor", "mysql://a:abc@db/n"], ["status", "--stor", "mysql://a:***@db/n"]),
        (
            ["search", "--artifacts", "s3://a:abc@b", "--storage", "mysql://a:abc@db/n"],
            ["search", "--artifacts", "s3://a:abc@b", "--storage", "mysql://a:***@db/n"],
        ),
    ],
)
def test_only_the_storages_password_is_hidden_as_only_that_comes_back(monkeypatch, words, shown):
    begun = []
    monkeypatch.delenv(HIDDEN, raising=False)
    monkeypatch.setattr(sys, "argv", ["archtuna", *words])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "archtuna", *words])
    monkeypatch.setattr(os, "execve", lambda _, words, environ: begun.append((words[1:], environ[HIDDEN])))
    _hide_passwords()
    assert begun == ([] if shown is None else [(["-m", "archtuna", *shown], "mysql://a:abc@db/n")])


def test_commands_that_a_search_proposes_are_as_a_shell_takes_them(tmp_path):
    study = archtuna.driver.search(TWO, pictures(tmp_path), out=tmp_path / "it's mine", evaluator=instant, trials=1)
    commands = [shlex.split(command) for _, command in _next_steps(study, "trials") if command.startswith("archtuna ")]
    assert {command[2] for command in commands} == {str(study.folder)}


def test_what_a_search_proposes_next_goes_on_from_what_it_found(capsys, tmp_path):
    study = archtuna.driver.search(TWO, pictures(tmp_path), out=tmp_path / "run", evaluator=instant, trials=2)
    assert len(study.front()) == 2
    steps = dict(_next_steps(study, "exhausted"))
    assert steps["train it in full:"].endswith(" --epochs 12")
    assert "go on searching:" not in steps
    code, out, _ = run(capsys, *shlex.split(steps["choose another:"])[1:], "--json")
    assert code == 0
    assert json.loads(out)["number"] != study.knee().number
    alone = archtuna.driver.search(TWO, pictures(tmp_path), out=tmp_path / "one", evaluator=instant, trials=1)
    steps = dict(_next_steps(alone, "trials"))
    assert "choose another:" not in steps
    assert "go on searching:" in steps


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234564.0, "1234564"),
        (1234564, "1234564"),
        (0.1234561, "0.123457"),
        (1.5, "1.5"),
        (999999.4, "1.00001e+06"),
        (0, "0"),
    ],
)
def test_a_bound_is_short_and_not_below_what_it_was_taken_from(value, text):
    assert _rounded_up(value) == text
    assert float(text) >= value


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
def test_sigterm_ends_a_command_as_ctrl_c_does():
    done = started("blocks", first=terminated)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "archtuna: interrupted\n")


def terminated():
    """Let the command that lists blocks get SIGTERM, in whatever process this is called."""
    archtuna.cli.spaces._run_blocks = lambda _: signal.raise_signal(signal.SIGTERM)
