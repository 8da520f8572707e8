"""The 200 structures for comparing a converted potential with its original.

They are made only with ASE and NumPy and are the same in every run, so that one file is used by all
programs. The set has all elements of SevenNet-0 with a simple crystal in ase.data, compounds,
strained cells, surfaces, molecules, alloys, cells in which atoms neighbour their own images, hot
crystals, and dimers at distances that no simulation should reach.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, graphene, hcp0001, molecule
from ase.data import atomic_numbers, reference_states
from ase.spacegroup import crystal

SEED = 2024
SIMPLE = ("fcc", "bcc", "hcp", "diamond")
WITHOUT = {"Se", "Te"}  # chains, not supported by ase.build.bulk
ROCKSALT = {"LiF": 4.03, "NaCl": 5.64, "KBr": 6.60, "MgO": 4.21, "CaO": 4.81, "SrTe": 6.66}
ROCKSALT |= {"TiN": 4.24, "FeO": 4.33, "NiO": 4.18, "PbS": 5.94, "AgCl": 5.55, "RbI": 7.34}
ZINCBLENDE = {"GaAs": 5.65, "InP": 5.87, "ZnS": 5.41, "CdTe": 6.48, "AlSb": 6.14, "SiC": 4.36}
CSCL = {"CsCl": 4.12, "TlBr": 3.97, "NiAl": 2.89, "CuZn": 2.95}
FLUORITE = {"CaF2": 5.46, "CeO2": 5.41, "UO2": 5.47, "Li2O": 4.62, "Mg2Si": 6.35}
PEROVSKITE = {"SrTiO3": 3.91, "BaTiO3": 4.00, "KTaO3": 3.99, "LaAlO3": 3.79, "CsPbI3": 6.29}
MOLECULES = ("H2O", "NH3", "CH4", "CO2", "C6H6", "CH3CH2OH", "SO2", "PH3", "SiH4", "HCN", "N2")
MOLECULES += ("O2", "CH3Cl", "BF3", "LiF", "C60", "AlCl3", "CH3COOH")
ALLOYS = ("Cu Au", "Ni Al", "Fe Cr", "Mo Ta W", "Co Ni Fe Cr V", "Mg Zn", "Ti Zr Hf", "Ag Pd Pt")
ALLOYS += ("Si Ge", "Li Na K", "Ir Rh Os", "Al Cu Mg")
DIMERS = ("H H", "C O", "Si Si", "Na Cl", "Fe Fe", "Au Au", "U O", "Cs I", "Cu Zr", "Al N")
DIMERS += ("W W", "Ga As")


def structures() -> list[Atoms]:
    """All structures; ``info`` has the ``sort`` and a ``label``."""
    generator = np.random.default_rng(SEED)
    made = [
        *_bulk(generator),
        *_compounds(generator),
        *_strained(generator),
        *_small_cells(generator),
        *_slabs(generator),
        *_molecules(generator),
        *_alloys(generator),
        *_hot(generator),
        *_dimers(generator),
        *_atoms(),
    ]
    return [_plain(atoms) for atoms in made]


def simple_elements() -> list[str]:
    """Elements with a crystal of one or two atoms in ase.data."""
    return [
        symbol
        for symbol, number in atomic_numbers.items()
        if number < len(reference_states)
        and (reference_states[number] or {}).get("symmetry") in SIMPLE
        and symbol not in WITHOUT
    ]


def _plain(atoms: Atoms) -> Atoms:
    """Atoms without data of the builders: sites of adsorbates, space groups, tags."""
    info = {name: atoms.info[name] for name in ("sort", "label")}
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=info)


def _named(atoms: Atoms, sort: str, label: str) -> Atoms:
    atoms.info |= {"sort": sort, "label": label}
    return atoms


def rattled(atoms: Atoms, width: float, generator: np.random.Generator) -> Atoms:
    """Atoms displaced by Gaussian noise of the given width (Å)."""
    atoms.positions += generator.normal(scale=width, size=atoms.positions.shape)
    return atoms


def deformed(atoms: Atoms, width: float, generator: np.random.Generator) -> Atoms:
    """Atoms strained by a random symmetric matrix."""
    strain = generator.uniform(-width, width, size=(3, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
    return atoms


def _bulk(generator: np.random.Generator) -> Iterator[Atoms]:
    """A crystal of each simple element, every third one perfect."""
    for number, symbol in enumerate(simple_elements()):
        atoms = cell_of(symbol)
        yield _named(rattled(atoms, 0.05 * (number % 3), generator), "bulk", symbol)


def cell_of(symbol: str) -> Atoms:
    """The conventional cell of an element, or twice the primitive cell for hexagonal ones."""
    if reference_states[atomic_numbers[symbol]]["symmetry"] == "hcp":
        return bulk(symbol).repeat((2, 1, 1))
    return bulk(symbol, cubic=True)


def compounds() -> Iterator[tuple[str, Atoms]]:
    """Binary and ternary crystals at known lattice constants."""
    for structure, constants in (("rocksalt", ROCKSALT), ("zincblende", ZINCBLENDE)):
        for formula, a in constants.items():
            yield f"{formula} {structure}", bulk(formula, structure, a=a, cubic=True)
    for formula, a in CSCL.items():
        yield f"{formula} cesiumchloride", bulk(formula, "cesiumchloride", a=a)
    for formula, a in FLUORITE.items():
        yield f"{formula} fluorite", fluorite(formula, a)
    for formula, a in PEROVSKITE.items():
        yield f"{formula} perovskite", perovskite(formula, a)
    yield "ZnO wurtzite", bulk("ZnO", "wurtzite", a=3.25, c=5.21)
    yield "GaN wurtzite", bulk("GaN", "wurtzite", a=3.19, c=5.19)
    yield "TiO2 rutile", rutile("Ti", 4.59, 2.96)
    yield "SnO2 rutile", rutile("Sn", 4.74, 3.19)


def fluorite(formula: str, a: float) -> Atoms:
    """CaF2 structure, or its inverse if the first element is the frequent one."""
    symbols = list(dict.fromkeys(Atoms(formula).get_chemical_symbols()))
    if formula.startswith(f"{symbols[0]}2"):
        symbols.reverse()
    places = [(0, 0, 0), (0.25, 0.25, 0.25)]
    return crystal(symbols, places, spacegroup=225, cellpar=[a, a, a, 90, 90, 90])


def perovskite(formula: str, a: float) -> Atoms:
    """Cubic perovskite cell of five atoms."""
    places = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    return Atoms(formula, scaled_positions=places, cell=[a, a, a], pbc=True)


def rutile(metal: str, a: float, c: float) -> Atoms:
    """Tetragonal rutile cell of a dioxide."""
    places = [(0, 0, 0), (0.305, 0.305, 0)]
    return crystal([metal, "O"], places, spacegroup=136, cellpar=[a, a, c, 90, 90, 90])


def _compounds(generator: np.random.Generator) -> Iterator[Atoms]:
    """Each compound with small or larger displacements."""
    for number, (label, atoms) in enumerate(compounds()):
        yield _named(rattled(atoms, (0.03, 0.12)[number % 2], generator), "compound", label)


def _strained(generator: np.random.Generator) -> Iterator[Atoms]:
    """Random strain of 3, 8 and 15%; every fourth with a volume far from equilibrium."""
    sources = [(symbol, cell_of(symbol)) for symbol in ("Si", "Cu", "Fe", "Mg", "W", "Pb")]
    sources += list(compounds())[::3]
    for number in range(24):
        label, source = sources[number % len(sources)]
        atoms = source.copy()
        if number % 4 == 3:
            scale = (0.85, 1.2)[number // 4 % 2]
            atoms.set_cell(scale * atoms.cell.array, scale_atoms=True)
        width = (0.03, 0.08, 0.15)[number % 3]
        atoms = rattled(deformed(atoms, width, generator), 0.03, generator)
        yield _named(atoms, "strained", f"{label} {atoms.get_volume() / source.get_volume():.2f} V")


def _small_cells(generator: np.random.Generator) -> Iterator[Atoms]:
    """Cells of one to four atoms, whose neighbours are their own images."""
    symbols = ["Al", "Na", "Be", "C", "Ge", "Ti", "Pt", "Zn", "V", "Sr", "Nb", "Re"]
    cells = [(symbol, bulk(symbol)) for symbol in symbols]
    cells += [("BN", bulk("BN", "zincblende", a=3.62)), ("HfC", bulk("HfC", "rocksalt", a=4.64))]
    cells += [("graphene", graphene(vacuum=6.0)), ("Sb", bulk("Sb", "sc", a=3.1))]
    for label, atoms in cells:
        yield _named(
            rattled(deformed(atoms, 0.04, generator), 0.05, generator), "small cell", label
        )


def _slabs(generator: np.random.Generator) -> Iterator[Atoms]:
    """Metal surfaces, clean and with adsorbates, and slabs cut from compounds."""
    for number, symbol in enumerate(("Al", "Cu", "Pt", "Ag", "Ni", "Pd")):
        atoms = fcc111(symbol, (2, 2, 3), vacuum=6.0)
        if number % 2:
            add_adsorbate(atoms, ("O", "H", "S")[number // 2], 1.7, "fcc")
        yield _named(rattled(atoms, 0.05, generator), "slab", f"{atoms.symbols}")
    for symbol in ("Mg", "Ru", "Zr"):
        atoms = hcp0001(symbol, (2, 2, 3), vacuum=6.0)
        yield _named(rattled(atoms, 0.05, generator), "slab", f"{atoms.symbols}")
    for label, source in list(compounds())[:9:4]:
        atoms = source.repeat((1, 1, 2))
        atoms.center(vacuum=6.0, axis=2)
        yield _named(rattled(atoms, 0.05, generator), "slab", label)


def _molecules(generator: np.random.Generator) -> Iterator[Atoms]:
    """Molecules in vacuum without a cell."""
    for name in MOLECULES:
        yield _named(rattled(molecule(name), 0.05, generator), "molecule", name)


def _alloys(generator: np.random.Generator) -> Iterator[Atoms]:
    """Random elements on the sites of the crystal of the first, with a mean lattice constant."""
    for label in ALLOYS:
        symbols = label.split()
        atoms = cell_of(symbols[0])
        atoms = atoms.repeat(2 if len(atoms) < 8 else 1)
        drawn = [symbols[i] for i in generator.integers(len(symbols), size=len(atoms))]
        volume = np.mean([cell_of(one).get_volume() / len(cell_of(one)) for one in symbols])
        scale = (volume * len(atoms) / atoms.get_volume()) ** (1 / 3)
        atoms.set_cell(scale * atoms.cell.array, scale_atoms=True)
        atoms.symbols[:] = drawn
        yield _named(rattled(atoms, 0.08, generator), "alloy", label)


def _hot(generator: np.random.Generator) -> Iterator[Atoms]:
    """Crystals whose atoms are displaced as far as in a melt."""
    for symbol in ("Si", "Al", "Mo", "Ti"):
        yield _named(rattled(cell_of(symbol).repeat((2, 1, 1)), 0.3, generator), "hot", symbol)
    for label, atoms in list(compounds())[1:10:8]:
        yield _named(rattled(atoms, 0.3, generator), "hot", label)


def _dimers(generator: np.random.Generator) -> Iterator[Atoms]:
    """Dimers from 0.7 Å to just inside the cutoff of 5 Å, denser at short distance; no cell."""
    for number, label in enumerate(DIMERS):
        distance = 0.7 + 4.25 * (number / (len(DIMERS) - 1)) ** 1.5
        direction = generator.normal(size=3)
        places = np.outer([0.0, distance], direction / np.linalg.norm(direction))
        yield _named(Atoms(label.split(), places), "dimer", f"{label} {distance:.2f} Å")


def _atoms() -> Iterator[Atoms]:
    """A single atom without a cell, and in a cell wider than the cutoff."""
    yield _named(Atoms("Si"), "atom", "Si")
    yield _named(Atoms("O", cell=[12.0, 12.0, 12.0], pbc=True), "atom", "O in a cell")
