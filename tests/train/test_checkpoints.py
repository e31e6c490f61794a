"""Checkpoints: what is saved comes back; damage is noticed; what fails harms nothing."""

import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlstm.devices import place
from jlstm.train import load_checkpoint, save_checkpoint

RECORD = {"loss": 0.1 + 0.2, "name": "ä", "none": None}


def arrays(n=0.0):
    return {
        "params": (jax.random.normal(jax.random.key(1), (5, 3)) + n, None),
        "small": jnp.arange(4, dtype=jnp.bfloat16),
        "step": jnp.asarray(7, jnp.int32),
        "empty": (jnp.zeros((0, 3), jnp.float32), ()),
    }


def same(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.dtype == y.dtype and x.tobytes() == y.tobytes()
        for x, y in ((np.asarray(x), np.asarray(y)) for x, y in leaves)
    )


def saved(folder, *steps):
    for step in steps:
        save_checkpoint(folder, step, arrays(step), RECORD | {"step": step})
    return folder


def load(folder):
    said = []
    return load_checkpoint(folder, arrays(), said.append), said


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
    found, said = load(saved(tmp_path, 3))
    assert found.step == 3
    assert found.record == RECORD | {"step": 3}
    assert same(found.arrays, arrays(3))
    assert not said


@pytest.mark.usefixtures("two_devices")
def test_arrays_come_back_to_where_they_are_wanted(tmp_path):
    tree = {"w": jnp.ones((4, 3)), "h": jnp.ones((4, 3))}
    save_checkpoint(tmp_path, 1, tree, {})
    template = {"w": place(tree["w"]), "h": place(tree["h"], 0)}
    found = load_checkpoint(tmp_path, template)
    assert found.arrays["h"].sharding == template["h"].sharding
    assert len(found.arrays["h"].sharding.device_set) == 2
    assert found.arrays["w"].sharding == template["w"].sharding


@pytest.mark.parametrize("form", [lambda a: a, lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype)])
def test_no_two_places_share_memory_not_even_of_no_size(tmp_path, form):
    empty = jnp.zeros((0, 3))
    tree = {"state": {"w": jnp.ones(2), "empty": empty}, "best": {"w": jnp.ones(2), "empty": empty}}
    save_checkpoint(tmp_path, 1, tree, {})
    found = load_checkpoint(tmp_path, jax.tree.map(form, tree)).arrays
    for leaf in jax.tree.leaves(found["state"]):
        leaf.delete()  # as a step does with what is donated to it
    assert same(found["best"], tree["best"])
    assert same(tree["state"], tree["best"])


def test_the_newest_two_are_kept(tmp_path):
    saved(tmp_path, 2, 10, 9_000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["10", "10.json", "9000", "9000.json"]
    assert load(tmp_path)[0].step == 9_000


def test_there_is_none_at_first(tmp_path):
    assert load(tmp_path) == (None, [])
    assert load(tmp_path / "nowhere") == (None, [])


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("harm", [truncate, alter, lambda path: path.unlink()])
def test_damage_to_any_file_is_noticed_and_the_one_before_is_taken(tmp_path, harm):
    saved(tmp_path / "good", 1, 2)
    files = [p for p in (tmp_path / "good" / "2").rglob("*") if p.is_file() and p.stat().st_size]
    assert len(files) > 4
    for n, file in enumerate(files):
        copy = shutil.copytree(tmp_path / "good", tmp_path / f"copy{n}")
        harm(copy / file.relative_to(tmp_path / "good"))
        found, said = load(copy)
        assert found.step == 1, file
        assert same(found.arrays, arrays(1))
        (sentence,) = said
        assert sentence.startswith("Checkpoint 2 is not as it was written")


def test_a_file_too_many_is_damage(tmp_path):
    saved(tmp_path, 1, 2)
    (tmp_path / "2" / "extra").write_text("")
    assert load(tmp_path)[0].step == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": 2}', '{"sha256": 5}'])
def test_a_damaged_record_is_noticed(tmp_path, text):
    saved(tmp_path, 1, 2)
    (tmp_path / "2.json").write_text(text)
    found, said = load(tmp_path)
    assert found.step == 1
    assert "its record cannot be read" in said[0] or "is not as it was written" in said[0]


def test_without_its_record_it_does_not_count_and_is_cleared_away(tmp_path):
    saved(tmp_path, 1, 2)
    (tmp_path / "2.json").unlink()
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()  # what a process killed in the middle leaves
    assert load(tmp_path)[0].step == 1
    saved(tmp_path, 5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "1.json", "5", "5.json"]


def test_a_future_that_did_not_come_is_forgotten(tmp_path):
    saved(tmp_path, 1, 5)
    alter(tmp_path / "5" / "state" / "manifest.ocdbt")
    saved(tmp_path, 3)  # from 1 on
    found, said = load(tmp_path)
    assert (found.step, said) == (3, [])


def test_all_damaged_is_none(tmp_path):
    saved(tmp_path, 1, 2)
    for step in (1, 2):
        alter(tmp_path / str(step) / "state" / "manifest.ocdbt")
    found, said = load(tmp_path)
    assert found is None
    assert len(said) == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_saved(tmp_path, bad):
    saved(tmp_path, 1)
    tree = arrays()
    tree["small"] = tree["small"].at[2].set(bad)
    with pytest.raises(FloatingPointError, match=r"\['small'\]: expected finite numbers at step 2"):
        save_checkpoint(tmp_path, 2, tree, RECORD)
    assert load(tmp_path)[0].step == 1


def test_another_model_is_named(tmp_path):
    saved(tmp_path, 1)
    with pytest.raises(ValueError, match="expected a checkpoint of this configuration"):
        load_checkpoint(tmp_path, {"other": jnp.ones(3)})


FULL = """
import resource, sys
import jax
from jlstm.train import save_checkpoint
tree = {"w": jax.random.normal(jax.random.key(0), (300, 300))}
save_checkpoint(sys.argv[1], 1, tree, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # as if the disk were full
try:
    save_checkpoint(sys.argv[1], 2, tree, {})
except OSError as error:
    print(error)
"""


def test_where_there_is_no_room_the_last_good_one_stays(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "2: the checkpoint could not be written: " in done.stdout
    assert done.stdout.count("\n") == 1
    assert not done.stderr
    found = load_checkpoint(tmp_path, {"w": jnp.ones((300, 300), jnp.float32)})
    assert found.step == 1
    assert json.loads((tmp_path / "1.json").read_text())["step"] == 1
