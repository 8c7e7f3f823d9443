import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from metarl.experiment import checkpoints
from metarl.experiment.checkpoints import CheckpointStore, DamagedCheckpointError, list_checkpoints, load_checkpoint
from metarl.experiment.errors import UserError

STATE = {
    "inner/mlp0.kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "optimizer/step": np.asarray(7, np.int64),
    "best": np.asarray(-0.0),
    "generator": np.asarray('{"state": 123456789012345678901234567890}'),
    "empty": np.zeros((0, 4)),
    "file": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "flag": np.asarray([True, False]),
}


def same(one, other):
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and one[name].tobytes() == other[name].tobytes()
        for name in one
    )


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints", keep=3)


def save_some(store, *iterations):
    return [store.save(i, {"x": np.full(500, i, np.float32), "iteration": np.asarray(i)}) for i in iterations]


def test_a_state_comes_back_bit_for_bit(store, tmp_path):
    path = store.save(25, STATE)
    assert path.name == "checkpoint_00000025.npz"
    assert list_checkpoints(tmp_path) == {25: path}
    checkpoint = load_checkpoint(path)
    assert checkpoint.iteration == 25
    assert same(checkpoint.arrays, STATE)
    assert same(store.restore().arrays, STATE)
    with np.load(path, allow_pickle=False) as plain:
        np.testing.assert_array_equal(plain["inner/mlp0.kernel"], STATE["inner/mlp0.kernel"])


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20).filter(lambda name: "\0" not in name and name.isprintable()),
        arrays_of.arrays(
            st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]), arrays_of.array_shapes(min_dims=0)
        ),
        max_size=4,
    )
)
def test_any_plain_arrays_under_any_names_come_back(tmp_path_factory, state):
    store = CheckpointStore(tmp_path_factory.mktemp("any"))
    assert same(load_checkpoint(store.save(3, state)).arrays, state)


def test_equal_states_give_equal_files(store):
    first = store.save(1, STATE).read_bytes()
    assert store.save(1, STATE).read_bytes() == first


def test_the_newest_are_kept(store):
    save_some(store, 0, 5, 10, 15, 20)
    assert store.iterations() == [10, 15, 20]
    everything = CheckpointStore(store._folder, keep=0)
    save_some(everything, 25)
    assert everything.iterations() == [10, 15, 20, 25]


def test_python_objects_are_not_written(store):
    with pytest.raises(TypeError, match="'x' of dtype object"):
        store.save(1, {"x": np.asarray([{}])})
    assert os.listdir(store._folder) == []


def damage_by_truncation(path, rng):
    data = path.read_bytes()
    path.write_bytes(data[: rng.integers(0, len(data))])


def damage_by_bit_flip(path, rng):
    """Flips a bit of the data or of the manifest, wherever a flip changes what is read."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.infolist()[rng.integers(0, len(archive.infolist()))]
    start = info.header_offset + 30 + len(info.filename)
    data[start + rng.integers(20, info.file_size)] ^= 1 << rng.integers(0, 8)
    path.write_bytes(data)


def damage_by_emptying(path, rng):
    path.write_bytes(b"")


def damage_by_a_folder(path, rng):
    path.unlink()
    path.mkdir()


def damage_by_renaming(path, rng):
    path.write_bytes(path.with_name("checkpoint_00000000.npz").read_bytes())


DAMAGES = [damage_by_truncation, damage_by_bit_flip, damage_by_emptying, damage_by_a_folder, damage_by_renaming]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("seed", range(5))
def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_is_used(store, caplog, damage, seed):
    _, before, newest = save_some(store, 0, 5, 10)
    damage(newest, np.random.default_rng(seed))
    contents = newest.read_bytes() if newest.is_file() else None
    with caplog.at_level("WARNING", "absl"):
        checkpoint = store.restore()
    assert (checkpoint.iteration, checkpoint.path) == (5, before)
    assert f"checkpoint {newest} is damaged (" in caplog.text
    aside = newest.with_name(newest.name + ".damaged")
    assert str(aside) in caplog.text
    assert not newest.exists()
    assert contents is None or aside.read_bytes() == contents
    save_some(store, 10, 15, 20, 25, 30)
    assert store.restore().iteration == 30
    assert aside.exists()


def test_every_byte_of_a_file_counts_or_changes_nothing(store):
    path = store.save(3, {"x": np.arange(3.0)})
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])
        try:
            checkpoint = load_checkpoint(path)
        except (DamagedCheckpointError, UserError):
            continue
        assert same(checkpoint.arrays, {"x": np.arange(3.0)})
        assert checkpoint.iteration == 3


def test_when_none_is_readable_nothing_is_touched_and_nothing_starts_again(store):
    for path in save_some(store, 0, 5):
        path.write_bytes(path.read_bytes()[:-40])
    before = {path.name: path.read_bytes() for path in store._folder.iterdir()}
    with pytest.raises(UserError, match=r"none of the 2 checkpoints .* is readable: refusing to start again from 0"):
        store.restore()
    assert {path.name: path.read_bytes() for path in store._folder.iterdir()} == before


def test_no_checkpoint_at_all_is_none(store):
    assert store.restore() is None
    assert store.iterations() == []


def test_orphans_of_a_killed_process_are_cleaned_and_nothing_else(store):
    save_some(store, 5)
    orphan = store._folder / ".checkpoint_00000010.npz.tmp-4711"
    orphan.write_bytes(b"half")
    (store._folder / "notes.txt").write_text("mine")
    assert store.restore().iteration == 5
    store.clean()
    assert sorted(os.listdir(store._folder)) == ["checkpoint_00000005.npz", "notes.txt"]


def test_a_full_disk_leaves_the_earlier_checkpoints_alone(store, monkeypatch):
    save_some(store, 5)

    def refuse(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        save_some(store, 10)
    assert os.listdir(store._folder) == ["checkpoint_00000005.npz"]


class Payload:
    def __reduce__(self):
        return os.mkdir, ("payload_was_executed",)


@pytest.mark.parametrize("how", ["object array", "raw pickle"])
def test_a_pickle_in_a_checkpoint_is_refused_unread(store, tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    path = store.save(5, {"x": np.zeros(2)})
    member = io.BytesIO()
    if how == "object array":
        np.save(member, np.asarray([Payload(), 1], dtype=object), allow_pickle=True)
    else:
        import pickle

        member.write(pickle.dumps(Payload()))
    with zipfile.ZipFile(path) as archive:
        manifest = archive.read("manifest.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", manifest)
        archive.writestr("x.npy", member.getvalue())
    with pytest.raises(DamagedCheckpointError):
        load_checkpoint(path)
    assert not os.path.exists("payload_was_executed")


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "..", "a\\..\\b"])
def test_hostile_array_names_stay_inside_the_file(store, tmp_path, name):
    path = store.save(5, {name: np.ones(2)})
    assert load_checkpoint(path).arrays[name].tolist() == [1, 1]
    assert [str(found.relative_to(tmp_path)) for found in tmp_path.rglob("*") if found.is_file()] == [
        "checkpoints/checkpoint_00000005.npz"
    ]


def test_a_newer_format_is_named_and_not_skipped(store, monkeypatch):
    save_some(store, 0)
    monkeypatch.setattr(checkpoints, "FORMAT_VERSION", 2)
    save_some(store, 5)
    monkeypatch.setattr(checkpoints, "FORMAT_VERSION", 1)
    with pytest.raises(UserError, match=r"checkpoint format 2, this version reads up to 1"):
        store.restore()


def test_a_stored_checkpoint_of_format_1_still_loads():
    checkpoint = load_checkpoint(os.path.join(os.path.dirname(__file__), "..", "data", "checkpoint_00000042.npz"))
    assert checkpoint.iteration == 42
    expected = {
        "policy/kernel": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
        "optimizer/step": np.asarray(19, np.int64),
        "note": np.asarray("format 1"),
    }
    assert same(checkpoint.arrays, expected)


WRITE_FOREVER = """
import sys
import numpy as np
from pathlib import Path
from metarl.experiment.checkpoints import CheckpointStore
store = CheckpointStore(Path(sys.argv[1]), keep=3)
iteration = 0
while True:
    iteration += 1
    store.save(iteration, {"x": np.full(300_000, iteration, np.float32)})
    sys.stdout.write(f"{iteration}\\n")
    sys.stdout.flush()
"""


def test_a_kill_at_any_moment_leaves_the_last_finished_checkpoint(tmp_path):
    rng = np.random.default_rng(0)
    for trial in range(4):
        folder = tmp_path / str(trial)
        writer = subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, folder], stdout=subprocess.PIPE, text=True)
        for _ in range(3):
            writer.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        finished = 3 + len(writer.communicate()[0].splitlines())
        store = CheckpointStore(folder, keep=3)
        store.clean()
        checkpoint = store.restore()
        assert checkpoint.iteration in (finished, finished + 1)
        assert np.all(checkpoint.arrays["x"] == checkpoint.iteration)
        assert not [name for name in os.listdir(folder) if "tmp" in name or "damaged" in name]


def test_the_manifest_describes_the_contents(store):
    with zipfile.ZipFile(store.save(5, STATE)) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    assert (manifest["format_version"], manifest["iteration"], len(manifest["sha256"])) == (1, 5, 64)
    assert {"name": "inner/mlp0.kernel", "shape": [2, 3], "dtype": "<f4"} in manifest["arrays"]
