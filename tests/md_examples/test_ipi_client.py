"""The i-PI client: against ASE's server of the same protocol, and against i-PI itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.socketio import SocketIOCalculator

from tesseral.calculators.ase import TesseralCalculator
from tesseral.deploy.modelfile import build_potential, read_card, save_model
from tesseral.md_examples import ipi_client

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "md_examples" / "ipi"
IPI = "from ipi.engine.simulation import Simulation as s; s.load_from_xml(open('input.xml')).run()"


@pytest.fixture
def name() -> Iterator[str]:
    """A socket of this test's own."""
    name = f"tesseral-{uuid4().hex[:12]}"
    yield name
    Path(f"/tmp/ipi_{name}").unlink(missing_ok=True)


def crystal() -> Atoms:
    atoms = bulk("SiC", "zincblende", a=4.36)
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.mark.parametrize("periodic", [True, False])
def test_server_gets_what_the_calculator_says(
    periodic: bool, small_model: Path, tmp_path: Path, name: str
) -> None:
    atoms = crystal()
    if not periodic:
        atoms.pbc, atoms.cell[:] = False, 0
        atoms.positions += 50.0
    atoms.write(tmp_path / "start.extxyz")
    expected = TesseralCalculator(small_model)
    words = [str(tmp_path / "start.extxyz"), str(small_model), "-u", name, "--wait", "30"]
    statuses: list[int] = []
    client = threading.Thread(target=lambda: statuses.append(ipi_client.main(words)), daemon=True)
    with SocketIOCalculator(unixsocket=name) as server:
        client.start()
        for step in range(3):
            atoms.positions[0] += 0.02 * step
            atoms.set_cell(atoms.cell.array * 1.01, scale_atoms=True)
            atoms.calc = server
            answer = [atoms.get_potential_energy(), atoms.get_forces()]
            answer += [atoms.get_stress()] if periodic else []
            atoms.calc = expected
            assert answer[0] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
            np.testing.assert_allclose(answer[1], atoms.get_forces(), atol=1e-6)
            if periodic:
                np.testing.assert_allclose(answer[2], atoms.get_stress(), atol=1e-8)
    client.join(30)
    assert statuses == [0]


def test_nobody_listening_is_one_sentence(
    small_model: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    crystal().write(tmp_path / "start.extxyz")
    words = [str(tmp_path / "start.extxyz"), str(small_model), "-u", name, "--wait", "0"]
    assert ipi_client.main(words) == 2
    error = capsys.readouterr().err
    assert f"no i-PI listens at /tmp/ipi_{name}" in error and len(error.strip().splitlines()) == 1


@pytest.mark.slow
def test_ready_input_runs_with_i_pi(small_model: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("ipi", reason='needs pip install "tesseral[ipi]"')
    card = read_card(small_model)
    card = replace(card, energy_scale=0.01 * card.energy_scale)
    torch.manual_seed(1)
    model = tmp_path / "gentle.safetensors"
    save_model(model, build_potential(card), card)
    folder = shutil.copytree(FOLDER, tmp_path / "run")
    text = (folder / "input.xml").read_text()
    for old, new in (("> 100 <", "> 2 <"), ("> tesseral <", f"> {name} <"), ("'10'", "'1'")):
        assert old in text
        text = text.replace(old, new)
    (folder / "input.xml").write_text(text)
    command = [sys.executable, "-c", IPI]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        words = [str(folder / "sic.extxyz"), str(model), "-u", name, "--wait", "60"]
        assert ipi_client.main(words) == 0
        assert server.wait(60) == 0, (folder / "log").read_text()
    finally:
        server.kill()
    potentials = np.loadtxt(folder / "sic.out")[:, 5]
    assert len(potentials) == 3
    calculator = TesseralCalculator(model)
    for step, potential in enumerate(potentials):
        energies = []
        for bead in range(8):
            atoms = ase.io.read(folder / f"sic.pos_{bead}.extxyz", index=step)
            atoms.calc = calculator
            energies.append(atoms.get_potential_energy())
        # i-PI's electronvolt differs from ASE's by a tenth of a millionth.
        assert potential == pytest.approx(np.mean(energies), rel=3e-7)
