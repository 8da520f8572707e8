"""The pair style beside other commands of LAMMPS, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io.lammpsdata import write_lammps_data

from tesseral.calculators.ase import TesseralCalculator
from tesseral.deploy.lammps.verify import call_lammps

A = 5.42  # Å, zinc blende of the stable model
Numbers = dict[str, np.ndarray]

PAIR = "pair_style tesseral\npair_coeff * * model.pt C Si"
ATOMS = "units metal\natom_style atomic\nread_data sic.data\nneighbor 1.0 bin\n"
FORCES = """
dump forces all custom 1 {name}.forces id fx fy fz
dump_modify forces sort id format float %.17g
run 0 post no
print "values {name} $(pe:%.17g) $(pxx:%.17g) $(pxy:%.17g)"
undump forces
"""


@pytest.fixture
def folder(lammps_model: Path, tmp_path: Path) -> Path:
    """A folder with a model and a rattled crystal."""
    (tmp_path / "model.pt").symlink_to(lammps_model)
    atoms = bulk("SiC", "zincblende", a=A, cubic=True) * (2, 1, 1)
    atoms.rattle(0.1, seed=0)
    write_lammps_data(
        tmp_path / "sic.data", atoms, specorder=["C", "Si"], masses=True, atom_style="atomic"
    )
    return tmp_path


def run(folder: Path, script: str, ranks: int = 1) -> Numbers:
    """What the lines ``values NAME NUMBER …`` of a run say, by name."""
    (folder / "in.test").write_text(script, encoding="utf-8")
    output = call_lammps(["-in", "in.test", "-log", "none"], ranks, folder, limit=60.0)
    lines = [line.split() for line in output.splitlines() if line.startswith("values ")]
    return {line[1]: np.array(line[2:], dtype=float) for line in lines}


def forces(folder: Path, name: str) -> np.ndarray:
    """Forces (N, 3) eV/Å that ``FORCES`` has written."""
    return np.loadtxt(folder / f"{name}.forces", skiprows=9)[:, 1:]


def test_an_overlay_is_the_sum_of_its_styles(folder: Path) -> None:
    zbl = "pair_coeff 1 1 {0} 6 6\npair_coeff 1 2 {0} 6 14\npair_coeff 2 2 {0} 14 14"
    styles = {
        "model": PAIR,
        "zbl": "pair_style zbl 1.0 3.0\n" + zbl.format(""),
        "both": "pair_style hybrid/overlay tesseral zbl 1.0 3.0\n"
        + "pair_coeff * * tesseral model.pt C Si\n"
        + zbl.format("zbl"),
    }
    scripts = [ATOMS + style + FORCES.format(name=name) for name, style in styles.items()]
    values = run(folder, "\nclear\n".join(scripts))
    assert abs(values["zbl"][0]) > 0.1
    np.testing.assert_allclose(values["both"], values["model"] + values["zbl"], rtol=1e-6)
    total = forces(folder, "model") + forces(folder, "zbl")
    np.testing.assert_allclose(forces(folder, "both"), total, atol=1e-5)


def test_a_restart_goes_on_as_if_nothing_had_happened(folder: Path) -> None:
    settings = f"timestep 0.001\nneighbor 1.0 bin\n{PAIR}\nfix move all nve\n"
    start = ATOMS + settings + "velocity all create 300 1\nrun 10 post no\n"
    script = (
        start
        + "write_restart ten.restart\nrun 5 post no\n"
        + FORCES.format(name="one")
        + "clear\nread_restart ten.restart\n"
        + settings
        + "run 5 post no\n"
        + FORCES.format(name="two")
    )
    values = run(folder, script)
    np.testing.assert_allclose(values["two"], values["one"], rtol=1e-6)
    np.testing.assert_allclose(forces(folder, "two"), forces(folder, "one"), atol=2e-5)


@pytest.mark.parametrize("ranks", [1, 2])
def test_energies_and_stresses_of_atoms_sum_to_the_totals(folder: Path, ranks: int) -> None:
    script = f"""{ATOMS}{PAIR}
compute energies all pe/atom
compute stresses all stress/atom NULL virial
compute energy all reduce sum c_energies
compute stress all reduce sum c_stresses[*]
compute pressure all pressure NULL virial
thermo_style custom pe vol c_energy c_stress[*] c_pressure[*]
run 0 post no
print "values energy $(pe:%.17g) $(c_energy:%.17g)"
print "values sums $(c_stress[1]) $(c_stress[2]) $(c_stress[3]) $(c_stress[4]) $(c_stress[6])"
variable v equal vol
variable xx equal -c_pressure[1]*v_v
variable yy equal -c_pressure[2]*v_v
variable zz equal -c_pressure[3]*v_v
variable xy equal -c_pressure[4]*v_v
variable yz equal -c_pressure[6]*v_v
print "values totals $(v_xx) $(v_yy) $(v_zz) $(v_xy) $(v_yz)"
"""
    values = run(folder, script, ranks)
    assert values["energy"][1] == pytest.approx(values["energy"][0], rel=1e-10)
    largest = np.abs(values["totals"]).max()
    np.testing.assert_allclose(values["sums"], values["totals"], atol=1e-8 * largest)


@pytest.mark.parametrize("ranks", [1, 2])
def test_relative_energies_leave_out_those_of_single_atoms(
    folder: Path, stable_model: Path, ranks: int
) -> None:
    calculator = TesseralCalculator(stable_model, device="cpu")
    vacuum = 8 * sum(calculator.get_potential_energy(Atoms(name)) for name in ("C", "Si"))
    scripts = []
    for name, word in (("whole", ""), ("relative", "relative"), ("portable", "relative portable")):
        scripts.append(ATOMS + PAIR.replace("tesseral", f"tesseral {word}"))
        scripts[-1] += FORCES.format(name=name)
    values = run(folder, "\nclear\n".join(scripts), ranks)
    for name in ("relative", "portable"):
        assert values["whole"][0] - values[name][0] == pytest.approx(vacuum, abs=1e-4)
        np.testing.assert_allclose(values[name][1:], values["whole"][1:], atol=1.0)
        np.testing.assert_allclose(forces(folder, name), forces(folder, "whole"), atol=2e-5)


def test_minimisation_relaxes_atoms_and_box(folder: Path) -> None:
    script = f"""{ATOMS}{PAIR}
change_box all triclinic
min_style fire
minimize 0 1e-4 500 2000
print "values atoms $(fnorm) $(press)"
min_style cg
fix box all box/relax tri 0.0 vmax 0.002
minimize 0 1e-4 200 2000
minimize 0 1e-4 200 2000
print "values box $(fnorm) $(pxx) $(pyy) $(pzz) $(pxy) $(pxz) $(pyz) "
print "values lengths $(lx/2) $(ly) $(lz)"
"""
    values = run(folder, script)
    assert values["atoms"][0] < 1e-4 < 100 < abs(values["atoms"][1])
    assert np.abs(values["box"][1:]).max() < 20  # bar
    np.testing.assert_allclose(values["lengths"], values["lengths"].mean(), rtol=1e-4)


def test_excluded_neighbors_are_worth_a_warning(folder: Path) -> None:
    (folder / "in.test").write_text(f"{ATOMS}{PAIR}\nneigh_modify exclude type 1 1\nrun 0\n")
    output = call_lammps(["-in", "in.test", "-log", "none"], 1, folder)
    assert "does not see the neighbors that neigh_modify exclude removes" in output


HYBRID = """pair_style hybrid tesseral zbl 1.0 2.0
pair_coeff * * tesseral model.pt C Si
"""
REFUSED = {
    "units": ("units real\nread_data sic.data\n" + PAIR, "use 'units metal', not 'units real'"),
    "newton": ("units metal\nnewton off\nread_data sic.data\n" + PAIR, "needs 'newton on'"),
    "word": (
        ATOMS + "pair_style tesseral quick",
        "no arguments but 'gpu', 'portable' and 'relative'; found 'quick'",
    ),
    "element": (
        ATOMS + PAIR.replace("Si", "Ge"),
        "type 2 is 'Ge', which model.pt does not support",
    ),
    "one element": (
        ATOMS + PAIR.replace(" Si", ""),
        "names 1 elements, but there are 2 atom types",
    ),
    "no model": (ATOMS + PAIR.replace("model", "none"), "none.pt cannot be used: it cannot be op"),
    "text": (
        ATOMS + PAIR.replace("model", "text"),
        "text.pt cannot be used: it is not a TorchScript",
    ),
    "truncated": (
        ATOMS + PAIR.replace("model", "short"),
        "short.pt .* archive, or it is truncated",
    ),
    "lost middle": (
        ATOMS + PAIR.replace("model", "middle"),
        "middle.pt cannot be used: it is truncated",
    ),
    "other weights": (
        ATOMS + PAIR.replace("model", "bent"),
        "bent.pt cannot be used: it gives different energies and",
    ),
    "some pairs": (ATOMS + HYBRID + "pair_coeff 1 1 zbl 6 6", "use pair_style hybrid/overlay"),
    "some atoms": (ATOMS + HYBRID + "pair_coeff 1 * zbl 6 6", "use pair_style hybrid/overlay"),
    "uncertainty": (
        ATOMS
        + PAIR.replace("tesseral", "tesseral portable")
        + "\ncompute u all tesseral/uncertainty",
        "does not know its uncertainty here: .* the keyword portable does not compute it",
    ),
    "heat flux": (
        ATOMS
        + PAIR
        + "\ncompute ke all ke/atom\ncompute pe all pe/atom\ncompute s all stress/atom NULL virial"
        "\ncompute flux all heat/flux ke pe s",
        "compute heat/flux is not right .* use get_heat_flux of TesseralCalculator",
    ),
    "insertion": (
        ATOMS + PAIR + "\nfix mc all gcmc 1 1 0 1 1 300 0 0.1",
        "fix gcmc compares .* use 'pair_style tesseral relative'",
    ),
    "pairs": (
        ATOMS + PAIR + "\ncompute g all group/group all\nthermo_style custom c_g",
        "Pair style does not support compute group/group",  # of LAMMPS itself
    ),
    "centroid": (
        ATOMS + PAIR + "\ncompute s all centroid/stress/atom NULL\ndump d all custom 1 d c_s[1]",
        "does not support compute centroid/stress/atom",
    ),
    "bonds": (
        "units metal\natom_style bond\nregion r block 0 9 0 9 0 9\ncreate_box 2 r\nmass * 1.0\n"
        "create_atoms 1 single 1 1 1\n" + PAIR,
        "bonded atoms would not see each other: set 'special_bonds",
    ),
    "group": (
        ATOMS + PAIR + "\ngroup c type 1\natom_modify first c\nneigh_modify include c",
        "no neigh_modify include",
    ),
}


def write_damaged_models(folder: Path) -> None:
    """No model, half of one, one without its middle, one with wrong weights."""
    whole = (folder / "model.pt").read_bytes()
    (folder / "text.pt").write_text("no model\n")
    (folder / "short.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "middle.pt").write_bytes(whole[:5000] + whole[-5000:])
    start = whole.index(b"tesseral", whole.index(b"tesseral_weights.bin") + 20) + 4096
    wrong = 1.5 * np.frombuffer(whole[start : start + 8192], dtype=np.float32)
    (folder / "bent.pt").write_bytes(whole[:start] + wrong.tobytes() + whole[start + 8192 :])


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_what_to_do(name: str, folder: Path) -> None:
    script, message = REFUSED[name]
    write_damaged_models(folder)
    with pytest.raises(ValueError, match=message):
        run(folder, script + "\nrun 0")


def test_nothing_is_refused_without_a_reason(folder: Path) -> None:
    assert run(folder, ATOMS + PAIR + FORCES.format(name="plain"))["plain"][0] < 0
