"""Outputs of VASP, written in its own form from known numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest

KINDS = [("PAW_PBE Si 05Jan2001", 1), ("PAW_PBE C_s 06Sep2000", 2)]
RULE = 83 * "-"


class Step(NamedTuple):
    """An ionic step in VASP's units: eV, Å and kB, the stress positive under compression."""

    cell: np.ndarray
    positions: np.ndarray
    forces: np.ndarray
    kbar: np.ndarray  # (3, 3), symmetric
    energy: float  # energy(sigma->0)
    free_energy: float
    converged: bool = True


def make_steps(count: int) -> list[Step]:
    """Steps of a cell of SiC2, with as many digits as an OUTCAR shows."""
    rng = np.random.default_rng(3)
    steps = []
    for i in range(count):
        kbar = rng.normal(scale=50, size=(3, 3))
        steps.append(
            Step(
                cell=np.round(4 * np.eye(3) + rng.normal(scale=0.3, size=(3, 3)), 8),
                positions=np.round(rng.uniform(0.3, 3.5, size=(3, 3)), 5),
                forces=np.round(rng.normal(size=(3, 3)), 6),
                kbar=np.round(kbar + kbar.T, 5),
                energy=-21.5 - i,
                free_energy=-21.53 - i,
            )
        )
    return steps


def electronic_steps(step: int, count: int, mark: str) -> str:
    lines = []
    for i in range(1, count + 1):
        lines += [
            f"{39 * '-'} Iteration {step:6d}({i:4d})  {39 * '-'}",
            " Free energy of the ion-electron system (eV)",
            "  free energy    TOTEN  =        -1.00000000 eV",
            "  energy without entropy =       -2.00000000  energy(sigma->0) =       -3.00000000",
        ]
    return "\n".join([*lines, *([f"{24 * '-'} aborting loop {mark} {30 * '-'}"] if mark else [])])


def ionic_step(step: Step, learned: bool = False) -> str:
    """Stress, cell, positions, forces and energies; of a learned force field if it says so."""
    xx, yy, zz, xy, yz, zx = (
        step.kbar[i] for i in ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0))
    )
    reciprocal = np.linalg.inv(step.cell).T
    ml = "ML " if learned else ""
    lines = [
        f"  {ml}FORCE on cell =-STRESS in cart. coord.  units (eV):",
        "  Direction    XX          YY          ZZ          XY          YZ          ZX",
        "  in kB   " + "".join(f"{x:12.5f}" for x in (xx, yy, zz, xy, yz, zx)),
        f"  external pressure = {np.trace(step.kbar) / 3:11.2f} kB  Pullay stress =        0.00 kB",
        " VOLUME and BASIS-vectors are now :",
        "      direct lattice vectors                 reciprocal lattice vectors",
        *(
            "   " + "".join(f"{x:13.9f}" for x in a) + "   " + "".join(f"{x:13.9f}" for x in b)
            for a, b in zip(step.cell, reciprocal, strict=True)
        ),
        f" POSITION {38 * ' '}TOTAL-FORCE (eV/Angst){' (ML)' * learned}",
        f" {RULE}",
        *(
            "".join(f"{x:13.5f}" for x in r) + "   " + "".join(f"{x:14.6f}" for x in f)
            for r, f in zip(step.positions, step.forces, strict=True)
        ),
        f" {RULE}",
        f"  {ml}FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)",
        "  ---------------------------------------------------",
        f"  free  energy {ml or '  '}TOTEN  = {step.free_energy:18.8f} eV",
        "",
        f"  {ml}energy  without entropy={step.free_energy + 1:18.8f}"
        f"  {ml}energy(sigma->0) ={step.energy:18.8f}",
        "",
    ]
    return "\n".join(lines)


def header(**tags: str) -> str:
    """What an OUTCAR says before its first step; ``ISIF="1"`` and so on replace lines."""
    values = {"ENCUT": "520.0 eV", "ISPIN": "2", "ISIF": "3", "NELM": "60", "GGA": "PE", **tags}
    lines = [" vasp.6.3.0 20Jan22 (build May 08 2022 00:08:36) complex", " INCAR:"]
    lines += [f" POTCAR:    {title}" for title, _ in KINDS + KINDS]
    for title, _ in KINDS:
        lines += [f"   TITEL  = {title}", "   ENMAX  =  245.345; ENMIN  =  184.009 eV"]
    lines += [
        "   ions per type =            " + "".join(f"{count:4d}" for _, count in KINDS),
        " generate k-points for:    3    3    2",
        "   k-points           NKPTS =      9   k-points in BZ     NKDIM =      9",
        f"   ENCUT  =  {values.pop('ENCUT')}  38.22 Ry    6.18 a.u.",
        f"   ISPIN  =      {values.pop('ISPIN')}    spin polarized calculation?",
        f"   NELM   =     {values.pop('NELM')};   NELMIN=  2; NELMDL= -5     # of ELM steps",
        f"   ISIF   =      {values.pop('ISIF')}    stress and relaxation",
        "   ISMEAR =     0;   SIGMA  =   0.05  broadening in eV -4-tet -1-fermi 0-gaus",
        f"   GGA     =    {values.pop('GGA')}    GGA type",
        "   METAGGA=      F    non-selfconsistent MetaGGA calc.",
        *(f"   {name} = {value}" for name, value in values.items()),
    ]
    return "\n".join(lines) + "\n"


def outcar(steps: list[Step], mark: str = "", ended: bool = True, **tags: str) -> str:
    """An OUTCAR; ``mark`` is what VASP says after the electronic steps of those not converged."""
    text = header(**tags)
    for i, step in enumerate(steps, 1):
        said = "because EDIFF is reached" if step.converged else mark
        text += electronic_steps(i, 4 if step.converged else 60, said) + "\n" + ionic_step(step)
    return text + " General timing and accounting informations for this job:\n" * ended


def vectors(name: str, rows: Any) -> str:
    inner = "".join("<v>" + " ".join(f"{x:.8f}" for x in row) + "</v>\n" for row in rows)
    return f'<varray name="{name}">\n{inner}</varray>\n'


def vasprun(steps: list[Step], ended: bool = True, pstress: float = 0.0, **tags: str) -> str:
    """A vasprun.xml; VASP puts P·V into the last energies, and a wrong e_0_energy."""
    values = {"ENMAX": "520.0", "ISPIN": "2", "NELM": "60", "ISIF": "3", "GGA": "PE"}
    values |= {"ISMEAR": "0", "SIGMA": "0.05", "PSTRESS": f"{pstress}", **tags}
    symbols = ["Si", "C", "C"]
    text = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n<generator>'
    text += '<i name="program" type="string">vasp </i><i name="version" type="string">6.3.0  </i>'
    text += '</generator>\n<kpoints><generation param="Gamma"><v type="int" name="divisions">'
    text += " 3 3 2 </v></generation></kpoints>\n<parameters><separator name='general'>"
    text += "".join(f'<i name="{name}">{value}</i>\n' for name, value in values.items())
    text += '</separator></parameters>\n<atominfo><array name="atoms"><set>'
    text += "".join(f"<rc><c>{symbol} </c><c>{1 + (symbol == 'C')}</c></rc>" for symbol in symbols)
    text += '</set></array><array name="atomtypes"><set>'
    text += "".join(f"<rc><c>{n}</c><c>{t.split()[1]}</c><c>{t} </c></rc>" for t, n in KINDS)
    text += "</set></array></atominfo>\n<structure name='initialpos'><crystal>"
    start = vectors("positions", steps[0].positions @ np.linalg.inv(steps[0].cell))
    text += vectors("basis", steps[0].cell) + f"</crystal>{start}"
    text += '<varray name="selective"><v type="logical">F F F</v></varray></structure>\n'
    for step in steps:
        text += calculation(step, pstress)
    return text + "</modeling>\n" * ended


def calculation(step: Step, pstress: float) -> str:
    last = f'<i name="e_fr_energy">{step.free_energy:.8f}</i><i name="e_wo_entrp">-1.0</i>'
    scf = f"<scstep><energy>{last}<i name='e_0_energy'>{step.energy:.8f}</i></energy></scstep>\n"
    work = pstress * 0.0006241509 * abs(np.linalg.det(step.cell))
    text = "<calculation>\n" + (scf * (4 if step.converged else 60))
    text += f"<structure><crystal>{vectors('basis', step.cell)}</crystal>"
    text += vectors("positions", step.positions @ np.linalg.inv(step.cell)) + "</structure>"
    text += vectors("forces", step.forces) + vectors("stress", step.kbar)
    text += f'<energy><i name="e_fr_energy">{step.free_energy + work:.8f}</i>'
    text += '<i name="e_wo_entrp">-1.0</i><i name="e_0_energy">-1.0</i></energy>\n'
    return (
        text + "<eigenvalues><array><set><r>1.0 1.0</r></set></array></eigenvalues></calculation>\n"
    )


def ml_ab(steps: list[Step], name: str = "SiC2", types: Any = (("Si", 1), ("C", 2))) -> str:
    """An ML_AB, all of whose configurations are of one system."""
    header = {
        "The number of configurations": [f"{len(steps):10d}"],
        "The maximum number of atom type": [f"{len(types):8d}"],
        "The atom types in the data file": [" ".join(symbol for symbol, _ in types)],
        "Basis set for Si": ["         1      1", "         2      1"],
    }
    text = " 1.0 Version\n" + "".join(ml_block("*", *block) for block in header.items())
    return text + "".join(configuration(i, step, name, types) for i, step in enumerate(steps, 1))


def configuration(number: int, step: Step, name: str, types: Any) -> str:
    """A configuration as ML_AB lists it."""
    free = f"{step.free_energy:.12f}"
    blocks = {
        f"Configuration num. {number:6d}": [],
        "System name": [name],
        "The number of atom types": [f"{len(types)}"],
        "The number of atoms": [f"{len(step.positions)}"],
        "Atom types and atom numbers": [f"{symbol:5s}{count:6d}" for symbol, count in types],
        "CTIFOR": ["  1.000000000000000E-002"],
        "Primitive lattice vectors (ang.)": ml_rows(step.cell),
        "Atomic positions (ang.)": ml_rows(step.positions),
        "Total energy (eV)": [free],
        "Forces (eV ang.^-1)": ml_rows(step.forces),
    }
    text = "".join(ml_block("*" if not i else "=", *b) for i, b in enumerate(blocks.items()))
    diagonal, (xy, yz, zx) = np.diag(step.kbar), (step.kbar[i] for i in ((0, 1), (1, 2), (2, 0)))
    text += "=" * 50 + "\n     Stress (kbar)\n" + "-" * 50 + "\n     XX YY ZZ\n" + "-" * 50 + "\n"
    text += ml_rows([diagonal])[0] + "\n" + "-" * 50 + "\n     XY YZ ZX\n" + "-" * 50 + "\n"
    return text + ml_rows([[xy, yz, zx]])[0] + "\n"


def ml_block(rule: str, title: str, lines: list[str]) -> str:
    body = "-" * 50 + "\n" + "\n".join(lines) + "\n" if lines else ""
    return rule * 50 + f"\n     {title}\n" + body


def ml_rows(rows: Any) -> list[str]:
    return ["".join(f"{x:23.15E}" for x in row) for row in rows]


RELAXATION = ("free energy    TOTEN   ", "energy without entropy", "energy(sigma->0)")
DYNAMICS = ("ion-electron   TOTEN", "kinetic energy EKIN", "temperature    TEIN")


def vaspout(path: Any, steps: list[Step], dynamics: bool = False, told: Any = "both", **incar: Any):
    """A vaspout.h5; ``told`` of the convergence are ``flags``, ``steps``, ``both`` or neither."""
    tags = {"ENCUT": 520.0, "GGA": b"PE", "ISPIN": 2, "ISMEAR": 0, "SIGMA": 0.05, "ISIF": 3}
    titles = "".join(f"   TITEL  = {title}\n   ENMAX  = 245.345\n" for title, _ in KINDS)
    free = np.array([step.free_energy for step in steps])
    zero = np.array([step.energy for step in steps])
    counts = [4 if step.converged else 60 for step in steps]
    with h5py.File(path, "w") as file:
        for part, number in zip(("major", "minor", "patch"), (6, 3, 0), strict=True):
            file[f"version/{part}"] = number
        for name, value in {**tags, **incar}.items():
            file[f"input/incar/{name}"] = value
        file["input/potcar/content"] = titles
        for axis, number in zip("xyz", (3, 3, 2), strict=True):
            file[f"input/kpoints/nkp{axis}"] = number
        file["results/positions/ion_types"] = np.array([b"Si", b"C "])
        file["results/positions/number_ion_types"] = [1, 2]
        group = file.create_group("intermediate/ion_dynamics")
        group["scale"] = 2.0
        group["lattice_vectors"] = np.array([step.cell / 2.0 for step in steps])
        group["position_ions"] = np.array([s.positions @ np.linalg.inv(s.cell) for s in steps])
        group["forces"] = np.array([step.forces for step in steps])
        group["stress"] = np.array([step.kbar for step in steps])
        group["energies"] = np.stack([free, free + 1, zero] if not dynamics else [free] * 3, axis=1)
        group["energies_tags"] = np.array(DYNAMICS if dynamics else RELAXATION, dtype="S")
        if told in ("both", "flags"):
            group["electronic_step_converged"] = [[0 if step.converged else 1] for step in steps]
        if told in ("both", "steps"):
            rows = [[n, -1.0, 0.0, 0.0, 1, 0.0, 0.0] for c in counts for n in range(1, c + 1)]
            group["oszicar"] = np.array(rows)
            group["oszicar_label"] = np.array("N E dE deps ncg rms rms(c)".split(), dtype="S")


@pytest.fixture(scope="session")
def vasp() -> SimpleNamespace:
    """Writers of VASP's files, and steps to write."""
    return SimpleNamespace(
        make_steps=make_steps,
        outcar=outcar,
        vasprun=vasprun,
        ml_ab=ml_ab,
        configuration=configuration,
        vaspout=vaspout,
        header=header,
        ionic_step=ionic_step,
        electronic_steps=electronic_steps,
        kinds=KINDS,
    )


@pytest.fixture(scope="session")
def every_cut() -> Callable[..., None]:
    """A check that a file cut off anywhere gives its first steps, whole, and says so."""

    def check(read: Any, text: bytes, path: Any, cuts: int = 40) -> None:
        def frames(data: bytes) -> tuple[list[Any], Counter[str]]:
            path.write_bytes(data)
            left_out: Counter[str] = Counter()
            return list(read(str(path), left_out)), +left_out

        whole, nothing = frames(text)
        assert len(whole) > 1 and not nothing
        start = text.index(b"\n", len(text) // 4)  # behind the header
        found = set()
        for cut in np.linspace(start, len(text) * 0.97, cuts).astype(int):
            part, left_out = frames(text[:cut])
            found.add(len(part))
            assert any("end before their calculation" in what for what in left_out), cut
            for one, other in zip(part, whole, strict=False):
                assert np.array_equal(one.positions, other.positions), cut
                for name, value in one.calc.results.items():
                    assert np.array_equal(value, other.calc.results[name]), (cut, name)
                assert "forces" in one.calc.results, cut
        print("steps found in the parts:", found)
        assert len(found) > 1

    return check
