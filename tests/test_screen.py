"""Tables on terminals of 80 and of 200 columns: nothing is cut, and no word is broken."""

from __future__ import annotations

import io
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from tesseral.calculators.simulations import band, dynamics, properties, relaxation
from tesseral.calculators.simulations.runs import RunResult
from tesseral.commands import md, neb, relax, runs
from tesseral.commands import properties as properties_command
from tesseral.commands.symmetry import symmetry_table
from tesseral.deploy.lammps.verify import Difference, table
from tesseral.screen import print_facts, print_table
from tesseral.training.display import error_table

SMALL, LARGE = -4.95312e-05, 1234567.891
NAME = "a-structure-with-quite-a-long-name-0123"

Printer = Callable[[Console], list[str]]  # prints, and returns what must be found unbroken


def plain_table(console: Console) -> list[str]:
    heads = ["name", *(f"quantity {n}" for n in range(12))]
    values = [f"{SMALL * 10**n:.3e}" for n in range(12)]
    print_table(console, heads, [[NAME, *values]])
    return [*heads[1:], *values]


def errors(console: Console) -> list[str]:
    part: dict[str, Any] = {
        name: {"mae": abs(SMALL) * 1.2345, "rmse": LARGE}
        for name in ("energy_per_atom", "forces", "stress")
    }
    part["n_structures"] = 1234567
    parts = {NAME: part, "Si": part}
    console.print(error_table({**part, "by_config_type": parts, "by_element": parts}, NAME))
    return ["6.115e-05", "1.235e+06", "1234567", "meV/atom"]


def lammps(console: Console) -> list[str]:
    one = Difference("kokkos, compiled", 16, "silicon carbide", 1e-10, 2e-10, 3e-10, True)
    console.print(table([one]))
    return ["1.0e-10", "2.0e-10", "3.0e-10", "kokkos, compiled", "pass"]


def symmetries(console: Console) -> list[str]:
    each = {"layer": 1, "mixing": 1, "degree": 2, "size": 0.123, "axis": (0.6, 0.8, 0.0)}
    console.print(symmetry_table({"components": [{**each, "share": 0.5}]}, NAME))
    return ["0.12", " 0.600  0.800  0.000", "50%"]


def facts(console: Console) -> list[str]:
    digest = "7052cb42b7b3be42b40b97fa0d21077a48c54b5548948fc4dcf346629f813c36"
    words = " ".join(f"word{n}" for n in range(40))
    print_facts(console, [("short", words), ("a name that is far longer than others", "value")])
    print_facts(console, [("digest", digest)])
    return [*words.split(), digest, "a name that is far longer than others"]


def shown_columns(command: Any) -> list[runs.Column]:
    """Columns of the summary that a command shows."""
    caught: list[runs.Column] = []

    def catch(run: Any, columns: Any, *others: Any) -> int:
        caught.extend(columns)
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "run_on_screen", catch)
        patch.setattr(runs, "ready_on_screen", lambda model, console: None)
        patch.setattr(command, "build", lambda kind, values: SimpleNamespace(model=""))
        patch.setattr(command, "keep_freed_memory", lambda: None)
        command.run({}, Console(file=io.StringIO()))
    return caught


def summary(command: Any, names: tuple[str, ...]) -> Printer:
    """Prints the summary of a run with large values in all columns."""

    def printer(console: Console) -> list[str]:
        row = dict.fromkeys(names, str(LARGE))
        row |= {"name": NAME, "file": "x", "frame": "0", "formula": "Al2Si2O9H4Na12", "atoms": "99"}
        row |= {
            "steps": "12345",
            "outcome": "not converged",
            "reason": "",
            "note": "",
            "theory": "PBE",
        }
        row |= {"space_group": "I4_1/amd (141)", "kept_cell": ""}
        columns = shown_columns(command)
        assert columns
        runs._show(RunResult([row], "not converged", []), columns, console, str)
        if "a_A" in names:
            relax.show_cells(console, [row])
        return [f"{LARGE:.{column.decimals}f}" for column in columns]

    return printer


def property_tables(console: Console) -> list[str]:
    expected = []
    for name, each in properties.PROPERTIES.items():
        row = {"name": NAME, **dict.fromkeys(each.columns, str(LARGE))}
        properties_command._show_property(console, name, each.columns, [row])
        expected += [f"{LARGE:.{decimals}f}" for _, decimals in each.columns.values()]
    return expected


TABLES: dict[str, Printer] = {
    "table": plain_table,
    "errors": errors,
    "lammps": lammps,
    "symmetry": symmetries,
    "facts": facts,
    "relax": summary(relax, tuple(relaxation.COLUMNS)),
    "md": summary(md, tuple(dynamics.COLUMNS)),
    "neb": summary(neb, band.COLUMNS),
    "properties": property_tables,
}


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("name", TABLES)
def test_tables_fit_and_nothing_is_cut(name: str, columns: int) -> None:
    file = io.StringIO()
    expected = TABLES[name](Console(file=file, width=columns, color_system=None))
    text = file.getvalue()
    assert max(map(cell_len, text.splitlines())) <= columns
    assert "…" not in text
    assert [value for value in expected if value not in text] == []
