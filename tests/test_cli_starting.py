"""init at the command line: flags, JSON, questions at a terminal, and pictures that cannot be used."""

import json
import os
import re

import pytest

from archtuna.beginning.advice import PLACES
from archtuna.cli import main, questions
from archtuna.data import cache_folder
from archtuna.errors import SpecError
from archtuna.space import SearchSpace
from data_pictures import class_folders
from kinds import KINDS
from pictures import folder
from terminal import at_terminal


@pytest.fixture()
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *arguments):
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_flags_answer_everything_and_the_file_says_what_they_said(capsys, here):
    folder(here / "photos", each=12)
    arguments = ["--for", "phone", "--objectives", "quality,speed,memory", "--time", "1h", "--workers", "2"]
    code, out, _ = run(capsys, "init", "s.yaml", "--data", "photos", *arguments, "--no-trial-run")
    assert code == 0
    assert out.endswith("wrote s.yaml; next: archtuna check s.yaml, then archtuna search s.yaml --out runs/first\n")
    assert "36 pictures in 3 classes, 12 each" in out
    assert re.search(r"\nspace          mobilenetv3  +depthwise convolutions", out)
    space = SearchSpace.read(here / "s.yaml")
    assert space.settings.objectives == ("f1", "macs", "peak_memory_mb")
    assert dict(space.settings.search) == {"time": "1h", "trials": 40, "workers": 2}
    assert run(capsys, "check", "s.yaml")[0] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_check_accepts_what_init_writes_for_any_pictures(capsys, here, kind):
    place = list(PLACES)[list(KINDS).index(kind) % len(PLACES)]
    data = KINDS[kind](here)
    assert run(capsys, "init", "s.yaml", "--data", data, "--for", place, "--no-trial-run")[0] == 0
    code, out, err = run(capsys, "check", "s.yaml", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["choices"] > 0


def test_json_has_everything_and_the_two_keys_of_old(capsys, here):
    code, out, _ = run(capsys, "init", "s.yaml", "--data", "digits", "--trial-run", "2s", "--time", "2m", "--json")
    found = json.loads(out)
    assert (code, found["file"], found["space"]) == (0, "s.yaml", None)
    assert found["data"]["classes"]["7"] == 179
    assert found["proposals"]["time"] == {"value": "2m", "reason": ""}
    assert found["trial_run"]["device"] == "cpu"
    assert found["trial_run"]["networks"][0]["train"] > 0
    assert found["estimate"]["fitting"][0] <= found["estimate"]["fitting"][2]
    assert SearchSpace.read(here / "s.yaml").settings.search["trials"] == found["estimate"]["trials"]


def test_without_data_and_terminal_it_is_as_it_always_was(capsys, here):
    code, out, err = run(capsys, "init")
    assert (code, out) == (1, "")
    assert err == "archtuna: how many classes?\nhint: name the pictures with --data, or say --classes N\n"
    assert list(here.iterdir()) == []
    assert run(capsys, "init", "--classes", "3", "--json")[1] == '{"file": "search.yaml", "space": null}\n'
    assert dict(SearchSpace.read(here / "search.yaml").settings.search) == {"trials": 40}


def empty(root):
    (root / "photos").mkdir()


def one_class(root):
    class_folders(root / "photos", each=3, classes=("only",))


def one_picture_each(root):
    class_folders(root / "photos", each=1)


def all_broken(root):
    class_folders(root / "photos", each=3)
    for file in (root / "photos" / "red").iterdir():
        file.write_bytes(b"not a picture")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (empty, "there are no class folders\nhint: make photos/<class>/<picture> of it"),
        (one_class, "there is only one class, 'only'\nhint: a classifier needs two classes or more"),
        (one_picture_each, "class 'blue' has 1 different pictures, too few for val, train\nhint: add pictures"),
        (all_broken, "every picture of class 'red' is broken\nhint: replace them, or the class"),
        (lambda root: None, "photos: no such file or folder"),
    ],
)
def test_pictures_that_cannot_be_used_are_one_error_and_no_file(capsys, here, make, said):
    make(here)
    code, out, err = run(capsys, "init", "s.yaml", "--data", "photos")
    assert (code, out) == (1, "")
    assert said in err
    assert "Traceback" not in err
    assert not (here / "s.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--time", "soon"], "'soon' is not a duration"),
        (["--time", "2s"], "'2s' is too short for a search"),
        (["--objectives", "f2"], "unknown objective 'f2'"),
        (["--objectives", "size"], "no objective says how right a network is"),
        (["--trial-run", "long"], "'long' is not a duration"),
        (["--space", "mirco"], "did you mean 'micro'?"),
        (["--for", "server", "--input-size", "16"], "'resnet' is for 32 pixels or more"),
    ],
)
def test_mistakes_in_flags_are_found_before_anything_is_measured(capsys, here, monkeypatch, arguments, said):
    monkeypatch.setattr("archtuna.beginning.trial_run.trial_run", lambda *_, **__: pytest.fail("it was measured"))
    code, _, err = run(capsys, "init", "s.yaml", "--data", "digits", *arguments)
    assert code == 1
    assert said in err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["--for", "toaster"], ["--workers", "0"], ["--trial-run", "9s", "--no-trial-run"]]
)
def test_impossible_arguments_are_exit_code_2(capsys, here, arguments):
    with pytest.raises(SystemExit) as ended:
        main(["init", "s.yaml", "--data", "digits", *arguments])
    assert ended.value.code == 2


def test_a_file_that_exists_or_cannot_be_written_is_told_first(capsys, here):
    (here / "s.yaml").write_text("mine")
    assert "s.yaml: exists already" in run(capsys, "init", "s.yaml", "--data", "digits")[2]
    assert (here / "s.yaml").read_text() == "mine"
    code, _, err = run(capsys, "init", "s.yaml/deeper.yaml", "--data", "digits")
    assert code == 1
    assert "s.yaml/deeper.yaml: cannot be written there" in err


@pytest.mark.parametrize(
    ("text", "place"), [("2", "phone"), ("Micro", "microcontroller"), ("server", "server"), (" c ", "computer")]
)
def test_a_place_is_a_number_a_name_or_its_beginning(text, place):
    assert questions.place(text) == place


def test_another_place_is_an_error_with_the_nearest(capsys):
    with pytest.raises(SpecError, match="'fone' is no place\nhint: did you mean 'phone'"):
        questions.place("fone")
    with pytest.raises(SpecError, match="hint: known: computer, phone, microcontroller, server"):
        questions.place("5")


# --- at a terminal -----------------------------------------------------------------------------------


def test_at_a_terminal_it_asks_and_asks_again(here):
    folder(here / "photos", each=8)
    with at_terminal("init", "s.yaml", "--trial-run", "1s", cwd=here) as shell:
        shell.answer("or digits [photos] ", "nowhere")
        shell.expect("nowhere: no such file or folder\n  hint: give a folder of class folders")
        shell.answer("or digits [photos] ", "")
        shell.answer("[computer] ", "toaster")
        shell.expect("'toaster' is no place\n  hint: known: computer, phone")
        shell.answer("[computer] ", "3")
        shell.answer("[f1,params,macs] ", "f2")
        shell.expect("unknown objective 'f2'")
        shell.answer("[f1,params,macs] ", "")
        shell.answer("How long may the search take? [30m] ", "soon")
        shell.expect("'soon' is not a duration\n  hint: write for example 90s, 5m or 1h30m")
        shell.answer("[30m] ", "5m")
        shell.answer("How many workers at once?", "none")
        shell.expect("'none' is no number of workers")
        shell.answer("How many workers at once?", "1")
        shell.expect("24 pictures in 3 classes")
        shell.expect("wrote s.yaml; next: archtuna check s.yaml, then archtuna search s.yaml --out runs/first")
        assert shell.end() == 0
    space = SearchSpace.read(here / "s.yaml")
    assert space.settings.data["path"] == "photos"
    assert space.settings.objectives == ("f1", "params", "macs")
    assert space.settings.search["time"] == "5m"
    assert "microcontrollers run well" in space.text


def test_flags_are_not_asked_for_and_enter_takes_the_rest(here):
    arguments = ["--data", "digits", "--for", "computer", "--time", "3m", "--no-trial-run"]
    with at_terminal("init", "s.yaml", *arguments, cwd=here) as shell:
        shell.answer("[f1,params] ", "")
        shell.answer("How many workers at once?", "")
        assert shell.end() == 0
    assert "Where" not in shell.shown
    assert "How long" not in shell.shown
    assert SearchSpace.read(here / "s.yaml").settings.objectives == ("f1", "params")


@pytest.mark.parametrize("arguments", [["--yes"], ["--json"]])
def test_yes_and_json_ask_nothing(here, arguments):
    with at_terminal("init", "s.yaml", "--data", "digits", "--no-trial-run", *arguments, cwd=here) as shell:
        assert shell.end() == 0
    assert "Enter takes what stands in brackets" not in shell.shown
    assert "Where will the network run?" not in shell.shown
    assert (here / "s.yaml").exists()


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_leaving_in_the_middle_of_the_questions_leaves_nothing(here, key):
    with at_terminal("init", "new/s.yaml", "--data", "digits", cwd=here) as shell:
        shell.answer("[computer] ", "")
        shell.expect("[f1,params] ")
        assert shell.leave(key) == 130
    assert "archtuna: interrupted" in shell.shown
    assert "Traceback" not in shell.shown
    assert list(here.iterdir()) == []


def test_ctrl_c_in_the_trial_run_leaves_nothing(here):
    folder(here / "photos", each=8)
    before = sorted(os.listdir(cache_folder())) if cache_folder().exists() else []
    with at_terminal("init", "s.yaml", "--yes", "--data", "photos", "--trial-run", "60s", cwd=here) as shell:
        shell.expect("trial run of about 60 s")
        shell.type("\x03")
        assert shell.end() == 130
    assert "Traceback" not in shell.shown
    assert [path.name for path in here.iterdir()] == ["photos"]
    assert "images" in before or not (cache_folder() / "images").exists()
