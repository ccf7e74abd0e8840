"""The report as a file: whole, alone, and of any text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import archtuna as at
from archtuna.cli import main
from archtuna.errors import ArchtunaError, MissingExtraError
from archtuna.page import write_report
from archtuna.page.bundle import bundle
from archtuna.page.charts import charts
from archtuna.page.write import html
from reports import made, many

pytest.importorskip("vl_convert")


def test_the_page_its_facts_and_its_figures_are_written(study: at.Study, tmp_path: Path) -> None:
    written = write_report(study, tmp_path / "page" / "r.html", device="cpu", figures=tmp_path / "figures")
    assert written.json == tmp_path / "page" / "r.json"
    assert json.loads(written.json.read_text()) == json.loads(json.dumps(written.facts))
    text = written.html.read_text()
    assert json.loads(re.search(r'id="facts">(.*?)</script>', text)[1])["name"] == study.name  # type: ignore[index]
    names = set(charts(written.facts))
    assert {path.stem for path in written.figures} == names
    for path in written.figures:
        start = path.read_bytes()[:8]
        assert start.startswith(b"\x89PNG" if path.suffix == ".png" else b"<svg")


def test_a_page_loads_nothing_and_of_500_trials_has_less_than_3_megabytes() -> None:
    facts = many(500)
    page = html(facts, charts(facts), bundle())
    assert len(page.encode()) < 3e6
    own = page.replace(bundle(), "")
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", own)
    assert "@import" not in own
    assert "url(" not in own


def test_text_of_a_run_stays_text() -> None:
    facts = many(3) | {"name": "</script><script>alert(1)</script>{{script}}&<b>", "notes": ["{{facts}}"]}
    page = html(facts, charts(facts), "/* </script> */")
    assert page.count("<script") == 4
    assert page.count("</script>") == 4
    assert "<title>archtuna: &lt;/script>&lt;script>alert(1)" in page
    assert json.loads(re.search(r'id="facts">(.*?)</script>', page)[1])["name"] == facts["name"]  # type: ignore[index]


def test_the_bundle_is_put_together_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vl_convert

    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path))
    calls = []
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda *given: calls.append(given) or "code")
    assert [bundle(), bundle()] == ["code", "code"]
    assert len(calls) == 1


def test_what_draws_may_be_absent(study: at.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vl_convert", None)
    with pytest.raises(
        MissingExtraError, match=r"vl-convert-python is not installed\nhint: pip install 'archtuna\[report\]'"
    ):
        write_report(study, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_place_that_cannot_be_written_is_one_error(study: at.Study, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchtunaError, match=r"cannot be written .*\nhint: archtuna report RUN --out"):
        write_report(study, tmp_path / "file" / "r.html", pictures=False)


def test_the_command_writes_into_the_folder_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(tmp_path, trials=3).folder
    assert main(["report", str(run), "--no-pictures"]) == 0
    assert re.fullmatch(rf"{run}/report.html \(\d\.\d MB\), {run}/report.json", capsys.readouterr().out.strip())
    assert main(["report", str(run), "--no-pictures", "--json", "--figures", str(tmp_path / "f")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["html"] == f"{run}/report.html"
    assert told["bytes"] == (run / "report.html").stat().st_size
    assert all(Path(figure).exists() for figure in told["figures"])
    assert main(["report", str(tmp_path / "none")]) == 1
    assert "no study in" in capsys.readouterr().err


def test_a_number_that_is_not_finite_is_null(study: at.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = many(12)
    trial = next(trial for trial in facts["trials"] if trial.get("front"))
    trial["curve"][3]["mine"], trial["metrics"]["mine"] = float("nan"), float("inf")
    monkeypatch.setattr("archtuna.page.write.facts_of", lambda *_, **__: facts)
    written = write_report(study, tmp_path / "r.html", figures=tmp_path / "figures")
    told = json.loads(written.json.read_text())["trials"][trial["number"]]
    assert (told["curve"]["3"]["mine"], told["metrics"]["mine"]) == (None, None)
    assert '"mine":null' in written.html.read_text()
    assert written.facts["trials"][trial["number"]]["metrics"]["mine"] is None


@pytest.mark.parametrize("name", ["study.html", "search.yaml", "study.db"])
def test_a_file_that_the_run_needs_is_not_written_over(tmp_path: Path, name: str) -> None:
    run = made(tmp_path, trials=1)
    before = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.suffix in (".json", ".yaml")}
    with pytest.raises(ArchtunaError, match=r"is a file that the run needs.*\nhint: archtuna report RUN --out"):
        write_report(run, run.folder / name, pictures=False)
    after = {
        path.name: path.read_bytes() for path in run.folder.iterdir() if path.suffix in (".json", ".yaml", ".html")
    }
    assert after == before
    assert at.Study.open(run.folder).counts()["complete"] == 1


def test_the_page_and_its_facts_need_two_files(study: at.Study, tmp_path: Path) -> None:
    with pytest.raises(ArchtunaError, match=r"the page cannot be .*page\.json: its facts go there\nhint: "):
        write_report(study, tmp_path / "page.json", pictures=False)
    with pytest.raises(ArchtunaError, match=r"is a folder, not a file for the page\nhint: "):
        write_report(study, tmp_path, pictures=False)
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):  # Outside of a run a page may have any name.
        assert write_report(study, tmp_path / "study.html", pictures=False).json == tmp_path / "study.json"
