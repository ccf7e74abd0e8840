"""The templates for clusters: what they say is what the command line takes, and an end that is asked for reaches the worker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import kubernetes_validate
import yaml

from archtuna.cli import parser

CLUSTER = Path(__file__).parent.parent / "examples" / "cluster"


def test_the_commands_of_the_templates_are_taken() -> None:
    job = yaml.safe_load((CLUSTER / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    program, *arguments = pod["containers"][0]["args"]
    assert program == "archtuna"
    assert parser().parse_args(arguments).study == "photos"
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    kubernetes_validate.validate(job, "1.31", strict=True)
    assert (pod["restartPolicy"], job["apiVersion"]) == ("Never", "batch/v1")
    for text in ((CLUSTER / name).read_text() for name in ("slurm.sh", "kubernetes.yaml")):
        (line,) = re.findall(r"^# *archtuna (search .*)$", text, re.MULTILINE)
        assert parser().parse_args(line.replace('"', "").split()).workers == 0
    (line,) = re.findall(r"^archtuna (worker .*) &$", (CLUSTER / "slurm.sh").read_text(), re.MULTILINE)
    assert parser().parse_args(line.split()).quiet


def test_an_end_that_a_scheduler_asks_for_reaches_the_worker(tmp_path: Path) -> None:
    stub = tmp_path / "archtuna"
    stub.write_text(
        "#!/bin/bash\ntrap 'sleep 0.3; echo handed back; exit 130' TERM\necho begun \"$@\"\nwhile :; do sleep 0.05; done\n"
    )
    stub.chmod(0o755)
    script = CLUSTER / "slurm.sh"
    checker = Path(sys.executable).with_name("shellcheck")
    checked = subprocess.run([checker, script], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    given = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "STUDY": "photos",
        "DATA": "/mnt/photos",
        "ARCHTUNA_STORAGE": "x",
    }
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(["bash", str(script)], env=given, stdout=out, stderr=subprocess.STDOUT)
    said = tmp_path / "out"
    deadline = time.monotonic() + 30
    while "begun" not in said.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 130
    assert said.read_text() == "begun worker --study photos --data /mnt/photos --quiet\nhanded back\n"
    without = subprocess.run(["bash", str(script)], env={**given, "STUDY": ""}, capture_output=True, text=True)
    assert "the name of the study" in without.stderr
