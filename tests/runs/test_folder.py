"""The folder of a run: made whole or not at all, and what it says of itself."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event

import pytest

from jlstm.runs.folder import (
    changed,
    is_locked,
    locked,
    logged,
    make_folder,
    read_config,
    summaries,
    write_config,
    write_sums,
)
from jlstm.runs.kinds import kind_of
from jlstm.tasks.config import Training
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.text.config import TextConfig

CONFIGS = {
    "text": TextConfig(
        steps=7, tokens="word", dropout=0.25, tied=True, out=Path("a/b"), name="run", warmup=0
    ),
    "table": TableConfig(
        time="when", target="load, wind", horizon=4, group=["place"], quantiles=(0.9, 0.2),
        validation="2020-01-01", test=0.25, calendar=False, lookback=None,
    ),
    "sequences": SequencesConfig(
        id="who", time="step", label="kind", features="x,y", split="part", epochs=2.5
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_was_asked_for_is_read_as_it_was_written(tmp_path, kind):
    write_config(tmp_path, CONFIGS[kind], [Path("some/file.csv"), Path("other.csv")])
    found = read_config(tmp_path)
    assert found == CONFIGS[kind]
    assert type(found) is type(CONFIGS[kind])
    assert [type(v) for v in asdict(found).values()] == [
        type(v) for v in asdict(CONFIGS[kind]).values()
    ]
    told = json.loads((tmp_path / "config.json").read_text())
    assert (told["kind"], told["files"]) == (kind, ["some/file.csv", "other.csv"])
    assert kind_of(found) == kind


def test_only_a_configuration_of_a_kind_has_one():
    for other in (Training(), "text", None):
        with pytest.raises(TypeError, match=r"^config: expected one of TextConfig, TableConfig"):
            kind_of(other)


def written(folder, change):
    write_config(folder, CONFIGS["text"], [])
    told = json.loads((folder / "config.json").read_text())
    change(told)
    (folder / "config.json").write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: told["options"].update(depth=3), "options of this version.* in: depth$"),
        (lambda told: told["options"].pop("tied"), "options of this version.* in: tied$"),
        (lambda told: told["options"].update(hidden=0), "got: hidden: expected at least 1, got 0"),
        (lambda told: told["options"].update(hidden="many"), "got: hidden: expected an int"),
        (lambda told: told["options"].update(tokens=["byte"]), "got: tokens: expected one of"),
        (lambda told: told.update(kind="dance"), "the configuration of a run, got: 'dance'"),
        (lambda told: told.update(options=3), "the configuration of a run, got: "),
        (lambda told: told.pop("kind"), "the configuration of a run, got: 'kind'"),
    ],
)
def test_a_configuration_that_is_none_is_named_with_its_file(tmp_path, change, said):
    written(tmp_path, change)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/config\.json: expected .*{said}"):
        read_config(tmp_path)


def test_a_folder_that_is_none_of_a_run_is_named(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for folder, said in (
        (tmp_path, "holds no config.json"),
        (tmp_path / "no", "is not there"),
        (file, "is a file"),
    ):
        with pytest.raises(FileNotFoundError, match=rf"^run: .* but {folder} {said}$"):
            read_config(folder)


def fill(folder):
    (folder / "data").mkdir()
    (folder / "data" / "numbers").write_text("1 2 3")


def test_a_folder_is_there_as_a_whole(tmp_path):
    seen = []

    def look(folder):
        fill(folder)
        seen.extend(path.name for path in tmp_path.iterdir())

    folder = make_folder(TextConfig(out=tmp_path, name="run"), look)
    assert folder == tmp_path / "run"
    assert (folder / "data" / "numbers").read_text() == "1 2 3"
    assert [*tmp_path.iterdir()] == [folder]
    assert len(seen) == 1
    assert seen[0].startswith(".run.")  # while it was made it had another name


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_what_stops_the_filling_leaves_nothing_behind(tmp_path, error):
    def half(folder):
        fill(folder)
        raise error("stop")

    with pytest.raises(error, match="stop"):
        make_folder(TextConfig(out=tmp_path / "new" / "runs"), half)
    assert not list(tmp_path.iterdir())
    # What was there before stays, be it empty or not.
    (tmp_path / "empty").mkdir()
    (tmp_path / "runs" / "other").mkdir(parents=True)
    for out in ("empty", "runs"):
        with pytest.raises(error, match="stop"):
            make_folder(TextConfig(out=tmp_path / out), half)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == [
        *("empty", "runs", "runs/other")
    ]


def test_two_runs_in_the_same_second_have_two_folders(monkeypatch, tmp_path):
    now = time.gmtime(0)
    strftime = time.strftime
    monkeypatch.setattr("jlstm.runs.folder.clock.strftime", lambda form: strftime(form, now))
    names = [make_folder(replace(CONFIGS["table"], out=tmp_path), fill).name for _ in range(3)]
    first = "table-19700101-000000"
    assert names == [first, f"{first}-2", f"{first}-3"]


def test_a_name_that_is_taken_and_an_out_that_is_a_file_are_refused(tmp_path):
    make_folder(TextConfig(out=tmp_path, name="run"), fill)
    with pytest.raises(FileExistsError, match=r"^name: there is a run .*run already"):
        make_folder(TextConfig(out=tmp_path, name="run"), lambda folder: pytest.fail("it began"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"^out: expected a folder to write in, got .*file"):
        make_folder(TextConfig(out=tmp_path / "file"), fill)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "file"}


def test_what_was_changed_is_what_is_not_the_default():
    assert changed(TextConfig(out="elsewhere", name="run")) == {}
    assert changed(TextConfig(steps=7, hidden=TextConfig.hidden)) == {"steps": 7}
    assert changed(CONFIGS["sequences"]) == {
        "id": "who", "time": "step", "label": "kind", "features": ("x", "y"), "split": "part",
        "epochs": 2.5,
    }  # fmt: skip


def test_a_folder_is_locked_by_one_at_a_time(tmp_path):
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        assert is_locked(tmp_path)
        with (
            pytest.raises(ValueError, match="is being trained by another process"),
            locked(tmp_path),
        ):
            pass
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_to_look_whether_a_folder_is_locked_leaves_nothing_behind(tmp_path):
    assert not is_locked(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_look_at_the_lock_is_waited_for(tmp_path):
    looked = Event()

    def look():
        with locked(tmp_path):
            looked.set()
            time.sleep(0.3)

    with ThreadPoolExecutor(1) as other:
        other.submit(look)
        assert looked.wait(10)
        with locked(tmp_path):
            pass


def test_what_is_said_is_also_in_the_log(tmp_path):
    said = []
    say = logged(tmp_path, said.append)
    say("one")
    say("zwei – zwei")
    assert said == ["one", "zwei – zwei"]
    assert (tmp_path / "log.txt").read_text("utf-8") == "one\nzwei – zwei\n"


def test_runs_are_listed_the_oldest_first_and_unfinished_ones_not(tmp_path):
    for n, name in enumerate(("b", "c", "a", ".d.1.part")):
        folder = tmp_path / name
        (folder / "data").mkdir(parents=True)
        write_config(folder, CONFIGS["text"], [])
        write_sums(folder, [])
        os.utime(folder, (1000 + n, 1000 + n))
    found = summaries(tmp_path)
    assert not list(tmp_path.glob("*/.lock"))  # only looked at
    assert [one.folder.name for one in found] == ["b", "c", "a"]
    assert {(one.kind, one.status, one.step, one.best_loss) for one in found} == {
        ("text", "stopped", 0, None)
    }


def test_what_killed_processes_left_is_cleared_away_in_time(tmp_path):
    old, young, living = (tmp_path / f".x.{n}.part" for n in (2**22 + 1, 2**22 + 2, os.getpid()))
    for path in (old, young, living):
        path.mkdir()
        (path / "tokens.npy").write_text("")
    for path in (old, living):
        os.utime(path, (0, 0))
    make_folder(TextConfig(out=tmp_path, name="new"), lambda folder: None)
    assert {p.name for p in tmp_path.iterdir()} == {"new", young.name, living.name}
