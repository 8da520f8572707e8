"""The ctypes structs against those that a C compiler makes of kernels.h, field by field."""

import ctypes
import os
import shutil
import subprocess
import sysconfig

import pytest

from tesseral.potentials.ops import compiled, tables

STRUCTS = {
    "tesseral_convolution": compiled.Convolution,
    "tesseral_readout": compiled.ReadoutWeights,
    "tesseral_facet_mixing": compiled.FacetMixingWeights,
    "tesseral_facet_layer": compiled.FacetLayerWeights,
    "tesseral_facet": compiled.FacetWeights,
    "tesseral_nequip_layer": compiled.NequIPLayerWeights,
    "tesseral_nequip": compiled.NequIPWeights,
    "tesseral_potential": compiled.PotentialWeights,
    "tesseral_uncertainty": compiled.UncertaintyWeights,
    "tesseral_graph": compiled.Graph,
    "tesseral_kernels": compiled.Kernels,
}
HEADERS = tables.HEADER.parent


def described(struct):
    """Size of a ctypes struct, then name, offset and size of each of its fields."""
    fields = [
        (name, getattr(struct, name).offset, getattr(struct, name).size)
        for name, _ in struct._fields_
    ]
    return [("", 0, ctypes.sizeof(struct)), *fields]


def program(structs):
    """C that prints the same of kernels.h; it does not compile where a field is missing."""
    lines = ["#include <stddef.h>", "#include <stdio.h>", '#include "kernels.h"']
    lines.append("int main(void) {")
    for c_name, struct in structs.items():
        lines.append(f'  printf("{c_name}  0 %zu\\n", sizeof({c_name}));')
        for name, _ in struct._fields_:
            offset, size = f"offsetof({c_name}, {name})", f"sizeof((({c_name}*)0)->{name})"
            lines.append(f'  printf("{c_name} {name} %zu %zu\\n", {offset}, {size});')
    return "\n".join([*lines, "  return 0;", "}", ""])


@pytest.fixture(scope="module")
def in_c(tmp_path_factory):
    """What the C compiler says about each struct."""
    command = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no C compiler {command[0]}")
    folder = tmp_path_factory.mktemp("structs")
    (folder / "structs.c").write_text(program(STRUCTS))
    binary = folder / "structs"
    subprocess.run(
        [*command, f"-I{HEADERS}", str(folder / "structs.c"), "-o", str(binary)], check=True
    )
    lines = subprocess.run([binary], capture_output=True, text=True, check=True).stdout.splitlines()
    found = {name: [] for name in STRUCTS}
    for line in lines:
        c_name, field, offset, size = line.split(" ")
        found[c_name].append((field, int(offset), int(size)))
    return found


def test_every_struct_is_compared():
    made = {
        value
        for value in vars(compiled).values()
        if isinstance(value, type) and issubclass(value, ctypes.Structure)
    }
    assert made == set(STRUCTS.values())


@pytest.mark.parametrize("name", STRUCTS)
def test_fields_are_where_c_has_them(name, in_c):
    assert described(STRUCTS[name]) == in_c[name]


def test_two_fields_that_changed_places_are_seen(in_c):
    """Fields of one size, so that only their places tell."""
    fields = list(compiled.Graph._fields_)
    first, second = ([name for name, _ in fields].index(name) for name in ("senders", "receivers"))
    fields[first], fields[second] = fields[second], fields[first]
    swapped = type("Swapped", (ctypes.Structure,), {"_fields_": fields})
    assert sorted(described(swapped)) != sorted(in_c["tesseral_graph"])
