"""`jlstm evaluate RUN --folds K`: cross-validation of labelled sequences."""

import json

from command_line import command


def test_folds_are_trained_once_and_judged_together(tmp_path):
    rows = [(s, t) for s in range(40) for t in range(5)]
    lines = [f"{s},{t},{(3 * t + s % 2) % 5},{'ab'[s % 2]}" for s, t in rows]
    (tmp_path / "kinds.csv").write_text("\n".join(["id,step,x,kind", *lines]) + "\n")
    flags = ["--id", "id", "--time", "step", "--label", "kind", "--hidden", 4, "--steps", 4]
    flags += ["--out", tmp_path, "--name", "run"]
    assert command("train", "sequences", tmp_path / "kinds.csv", *flags).status == 0
    run = tmp_path / "run"

    status, out, err = command("evaluate", run, "--folds", 2)
    assert (status, err) == (0, "")
    assert "every sequence of the run, those of its test part included, is judged once" in out
    assert "Mean ± standard deviation over 2 folds" in out
    found = json.loads((run / "evaluation" / "folds-2.json").read_text())
    assert (found["sequences"], found["steps"], len(found["folds"])) == (40, 200, 2)
    assert sum(map(sum, found["confusion"])) == 40
    assert found["verdict"].endswith(" of 2 folds.")

    status, again, err = command("evaluate", run, "--folds", 2)
    assert (status, err) == (0, "")
    assert "step 1/4" in out
    assert "step 1/4" not in again
    assert json.loads((run / "evaluation" / "folds-2.json").read_text()) == found

    ended = command("evaluate", run, "--folds", 41)
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert "--folds: expected at most the 40 sequences, got 41" in ended.err
