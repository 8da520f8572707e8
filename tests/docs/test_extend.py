"""The worked examples of ``docs/extend``: what their files say, put in place, works."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.io import write
from markdown_it import MarkdownIt

from tesseral.data.units import stress_voigt

EXTEND = Path(__file__).resolve().parents[2] / "docs" / "extend"


def blocks(page: str, language: str) -> list[str]:
    content = MarkdownIt("commonmark").parse((EXTEND / page).read_text(encoding="utf-8"))
    return [t.content for t in content if t.type == "fence" and t.info.split()[:1] == [language]]


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Makes a module of the block that begins with its path."""

    def make(page: str, path: str) -> ModuleType:
        (text,) = (t for t in blocks(page, "python") if t.startswith(f"# {path}\n"))
        file = tmp_path / Path(path).name
        file.write_text(text, encoding="utf-8")
        name = "tesseral." + path.removesuffix(".py").replace("/", ".")
        spec = spec_from_file_location(name, file)
        module = module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return make


def test_a_format(install, monkeypatch, tmp_path):
    from tesseral.data.imports.importer import ImportConfig, import_structures
    from tesseral.data.sources.common import UNCONVERGED
    from tesseral.data.sources.formats import FORMATS
    from tesseral.data.store.read import open_store

    module = install("format.md", "data/sources/mycode.py")
    monkeypatch.setitem(FORMATS, module.FORMAT.name, module.FORMAT)
    (output,) = blocks("format.md", "text")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "sic.out").write_text(output, encoding="utf-8")
    report = import_structures(
        ImportConfig(
            sources=[str(tmp_path / "runs")],
            output=str(tmp_path / "set.h5"),
            allow_missing=["stress"],
            processes=1,
        )
    )
    store = open_store(tmp_path / "set.h5")
    assert store.energies.tolist() == [-12.5, -12.61]
    np.testing.assert_array_equal(store[1].forces, [[0.05, 0, 0], [-0.05, 0, 0]])
    np.testing.assert_array_equal(np.diag(store[0].cell), [4.4, 4.4, 4.4])
    assert store.texts("theory") == ["mycode PBE"] * 2
    assert report.left_out[UNCONVERGED].total() == 1


def test_a_command(install, monkeypatch, stable_model, tmp_path, capsys):
    from tesseral import TesseralCalculator
    from tesseral.commands import main

    install("command.md", "commands/energy.py")
    monkeypatch.setitem(main.COMMANDS, "energy", "print energies of structures")
    monkeypatch.chdir(tmp_path)
    atoms = bulk("SiC", "zincblende", a=5.42)
    write("sic.extxyz", atoms)
    assert main.main(["energy", "sic.extxyz", "--model", str(stable_model)]) == 0
    atoms.calc = TesseralCalculator(stable_model)
    assert f"{atoms.get_potential_energy() / 2:.4f} eV/atom" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main.main(["energy", "sic.extxyz", "--modl", "x"])
    assert "did you mean --model?" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_an_architecture(install, monkeypatch, tmp_path, dtype):
    from tesseral.data.neighbors import atomic_graph
    from tesseral.deploy.card import ModelCard
    from tesseral.deploy.modelfile import build_potential, load_model, save_model
    from tesseral.potentials import testing
    from tesseral.potentials.architectures import table
    from tesseral.potentials.derivatives import predict

    module = install("architecture.md", "potentials/architectures/spectrum.py")
    (text,) = (t for t in blocks("architecture.md", "python") if t.startswith("ARCHITECTURES"))
    names = {**vars(table), **vars(module)}
    exec(text, names)
    monkeypatch.setitem(table.ARCHITECTURES, "spectrum", names["ARCHITECTURES"]["spectrum"])

    card = ModelCard(
        config=table.make_config("spectrum", cutoff=4.0, channels=8, l_max=2),
        elements=(6, 14),
        reference_energies=(-1.5, -2.5),
        energy_scale=1.0,
        mean_neighbors=20.0,
        dtype=str(dtype).removeprefix("torch."),
    )
    torch.manual_seed(0)
    potential = build_potential(card)
    atoms = bulk("SiC", "zincblende", a=4.4) * (2, 1, 1)
    atoms.rattle(0.1, seed=0)
    graph = atomic_graph(
        atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, card.elements, 4.0
    )
    scale = float(predict(potential, graph).forces.abs().max())
    assert scale > 0.01
    single = dtype == torch.float32
    errors = testing.physics_report(potential, graph, step=5e-3 if single else 1e-4)
    assert max(errors.values()) < (1e-3 if single else 1e-6) * scale, errors

    save_model(tmp_path / "model.safetensors", potential, card)
    loaded, _ = load_model(tmp_path / "model.safetensors")
    torch.jit.script(loaded)
    assert torch.equal(predict(loaded, graph).forces, predict(potential.eval(), graph).forces)


class Original(Calculator):
    """The other program: SchNet with a network of Gaussians for its filters, in float64."""

    implemented_properties = ["energy", "forces", "stress"]

    def __init__(self, path):
        super().__init__()
        self.weights = {name: torch.from_numpy(value) for name, value in np.load(path).items()}

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        from tesseral.data.neighbors import atomic_graph
        from tesseral.potentials.derivatives import predict, stress_from_virial

        super().calculate(atoms, properties, system_changes)
        cell, elements = atoms.cell.array, tuple(self.weights["elements"].tolist())
        cutoff = float(self.weights["cutoff"])
        graph = atomic_graph(atoms.numbers, atoms.positions, cell, atoms.pbc, elements, cutoff)
        self.cutoff = cutoff
        answer = predict(self, graph)
        self.results = {
            "energy": float(answer.energy),
            "forces": answer.forces.numpy(),
            "stress": stress_voigt(stress_from_virial(answer.virial, graph.cell)[0].numpy()),
        }

    def __call__(self, species, edges):
        w, x = self.weights, self.weights["embedding"][species]
        radii = edges.vectors.norm(dim=1, keepdim=True)
        for number in range(int(w["layers"])):
            a, offset, b, centers, width, enter, hidden, hidden_offset, leave, leave_offset = (
                w[f"block{number}.{name}"] for name in BLOCK
            )
            gaussians = torch.exp(-(((radii - centers) / width) ** 2))
            smooth = (1 - (radii / w["cutoff"]) ** 2).clamp(min=0) ** 3
            sent = (x @ enter.T)[edges.senders] * (
                torch.tanh(gaussians @ a.T + offset) @ b.T * smooth
            )
            messages = torch.zeros_like(x).index_add(0, edges.receivers, sent)
            inner = torch.nn.functional.softplus(messages @ hidden.T + hidden_offset)
            x = x + (inner - np.log(2)) @ leave.T + leave_offset
        return w["shifts"][species] + x @ w["energy"]


BLOCK = (
    *("a", "a_offset", "b", "centers", "width"),
    *("enter", "hidden", "hidden_offset", "leave", "leave_offset"),
)


def test_a_converter(install, monkeypatch, tmp_path):
    from tesseral.commands.main import main
    from tesseral.deploy import convert
    from tesseral.deploy.modelfile import read_card

    module = install("converter.md", "deploy/other/convert.py")
    other = ModuleType("other")
    other.Calculator = Original
    monkeypatch.setitem(sys.modules, "other", other)
    entry = convert.Converter((), (".npz",), module.convert, module.originals)
    monkeypatch.setitem(convert.CONVERTERS, "other", entry)

    rng = np.random.default_rng(0)
    shapes = {"a": (6, 10), "a_offset": (6,), "b": (4, 6), "hidden_offset": (4,),
              "leave_offset": (4,), "enter": (4, 4), "hidden": (4, 4), "leave": (4, 4)}  # fmt: skip
    weights = {"embedding": rng.normal(size=(2, 4)), "energy": rng.normal(size=4)}
    for number in range(2):
        for name, shape in shapes.items():
            weights[f"block{number}.{name}"] = 0.4 * rng.normal(size=shape)
        weights[f"block{number}.centers"] = np.linspace(0, 4, 10)
        weights[f"block{number}.width"] = np.array(0.8)
    constants = {"cutoff": 4.0, "layers": 2, "elements": [6, 14], "shifts": [-1.5, -2.5]}
    checkpoint, output = tmp_path / "checkpoint.npz", tmp_path / "model.safetensors"
    np.savez(checkpoint, **weights, **constants)
    assert main(["convert", str(checkpoint), "-o", str(output), "--intervals", "60"]) == 0
    found = read_card(output).training["largest difference from the original"]
    assert found["energy (meV/atom)"] < 0.1
    assert 0 < found["forces (meV/Å)"] < 1

    np.savez(checkpoint, **weights, **constants, attention=np.ones(3))
    with pytest.raises(ValueError, match="weights that are not known: attention"):
        module.convert(checkpoint, intervals=60)
