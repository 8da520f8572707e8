"""ASE's trajectories and databases, the latter in LMDB too: raw forces, and no pickles."""

import builtins
import pickle
import zlib
from collections import Counter
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db.row import AtomsRow
from ase.io.jsonio import encode

from tesseral.data.sources.ase_files import read_aselmdb, read_database, read_trajectory

FILES = Path(__file__).parent / "files"
FORCES = np.array([[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])
STRESS = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])


def silicon(energy=-1.0):
    """Two atoms, the first of them fixed."""
    atoms = Atoms("Si2", positions=[[0, 0, 0], [1.4, 1.3, 1.4]], cell=4 * np.eye(3), pbc=True)
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=FORCES, stress=STRESS)
    assert np.all(atoms.get_forces()[0] == 0)
    return atoms


def packed(value):
    return zlib.compress(encode(value).encode())


def write_aselmdb(path, frames, deleted=()):
    """The form that ase-db-backends documents by its code: JSON by zlib under numbers from 1."""
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(path), subdir=False, map_size=1 << 20, lock=False) as environment:
        with environment.begin(write=True) as transaction:
            for number, atoms in enumerate(frames, 1):
                row = AtomsRow(atoms)
                entry = {k: row[k] for k in row.__dict__ if k[0] != "_" and k != "id"}
                entry |= {"cell": np.asarray(atoms.cell), "data": {"sid": f"s{number}"}}
                entry["constraints"] = [constraint.todict() for constraint in atoms.constraints]
                entry["key_value_pairs"] = {"config_type": "bulk"}
                if number not in deleted:
                    transaction.put(str(number).encode(), packed(entry))
            transaction.put(b"nextid", packed(len(frames) + 1))
            if deleted:
                transaction.put(b"deleted_ids", packed(list(deleted)))
    return str(path)


def write_db(path, frames):
    with ase.db.connect(path) as database:
        for atoms in frames:
            database.write(atoms)
    return str(path)


def write_traj(path, frames):
    ase.io.write(path, frames)
    return str(path)


@pytest.mark.parametrize(
    "write, read, name",
    [
        (write_traj, read_trajectory, "a.traj"),
        (write_db, read_database, "a.db"),
        (write_db, read_database, "a.json"),
        (write_aselmdb, read_aselmdb, "a.aselmdb"),
    ],
)
def test_results_are_the_raw_ones(tmp_path, write, read, name):
    found = list(read(write(tmp_path / name, [silicon(-1.0), silicon(-2.0)]), Counter()))
    assert [atoms.calc.results["energy"] for atoms in found] == [-1.0, -2.0]
    for atoms in found:
        np.testing.assert_array_equal(atoms.calc.results["forces"], FORCES)
        np.testing.assert_array_equal(atoms.calc.results["stress"], STRESS)
        np.testing.assert_array_equal(atoms.positions, silicon().positions)


def test_rows_of_lmdb_keep_their_texts_and_deleted_ones_are_gone(tmp_path):
    frames = [silicon(-1.0), silicon(-2.0), silicon(-3.0)]
    found = list(read_aselmdb(write_aselmdb(tmp_path / "a.aselmdb", frames, (2,)), Counter()))
    assert [atoms.calc.results["energy"] for atoms in found] == [-1.0, -3.0]
    assert found[1].info["data"] == {"sid": "s3"}
    assert found[1].info["key_value_pairs"] == {"config_type": "bulk"}


def test_a_database_cut_off_is_refused(tmp_path):
    path = Path(write_aselmdb(tmp_path / "a.aselmdb", [silicon()] * 9))
    path.write_bytes(path.read_bytes()[:-4096])
    with pytest.raises(ValueError, match="truncated"):
        list(read_aselmdb(str(path), Counter()))


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_pickles_are_refused_unopened(tmp_path, monkeypatch):
    lmdb = pytest.importorskip("lmdb")
    monkeypatch.chdir(tmp_path)
    with lmdb.open("a.lmdb", subdir=False, map_size=1 << 20, lock=False) as environment:
        with environment.begin(write=True) as transaction:
            transaction.put(b"length", pickle.dumps(1))
            transaction.put(b"0", pickle.dumps(Bomb()))
            transaction.put(b"nextid", pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="pickles, which can run any code"):
        list(read_aselmdb("a.lmdb", Counter()))
    assert not Path("exploded").exists()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without_lmdb(name, *rest):
        if name == "lmdb":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_lmdb)
    with pytest.raises(ValueError, match=r"pip install lmdb"):
        list(read_aselmdb(str(tmp_path / "a.aselmdb"), Counter()))


def test_a_trajectory_tells_its_settings():
    (atoms, *_) = read_trajectory(str(FILES / "gpaw_si.traj"), Counter())
    assert atoms.info["settings"] == "code GPAW; functional PBE; cutoff 200 eV"
    assert atoms.info["theory"] == "GPAW PBE 200 eV"


def test_a_theory_in_the_file_stands(tmp_path):
    atoms = silicon()
    atoms.calc.name, atoms.calc.parameters = "gpaw", {"xc": "LDA"}
    atoms.info["theory"] = "mine"
    (found,) = read_trajectory(write_traj(tmp_path / "a.traj", [atoms]), Counter())
    assert found.info["theory"] == "mine"
