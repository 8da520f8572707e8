"""Energies, forces and virials for i-PI: path integrals, replica exchange and other methods.

python -m tesseral.md_examples.ipi_client structure.extxyz model.safetensors -u NAME

A ready input is in md_examples/ipi/input.xml.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.calculators.socketio import SocketClient
from rich.console import Console

from tesseral.calculators.ase import TesseralCalculator
from tesseral.data.neighbors import species_index
from tesseral.data.sources.opening import read_last_frame
from tesseral.process import ctrl_c, keep_freed_memory

PORT = 31415


def connect(
    unix: str | None = None, host: str = "localhost", port: int = PORT, wait: float = 60.0
) -> SocketClient:
    """A client of a running i-PI.

    Args:
        unix: name of the UNIX socket, the file ``/tmp/ipi_NAME``; replaces host and port.
        host: host on which i-PI listens.
        port: port on which i-PI listens.
        wait: time (s) for which to retry while i-PI does not listen.

    Raises:
        ConnectionError: i-PI does not listen.
    """
    end = time.monotonic() + wait
    while True:
        with warnings.catch_warnings():
            # After a failed attempt ASE leaves the socket to the garbage collector.
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                return SocketClient(host=host, port=port, unixsocket=unix)
            except OSError as error:
                reason = str(error)
        if time.monotonic() >= end:
            place = f"at /tmp/ipi_{unix}" if unix else f"at {host}, port {port}"
            raise ConnectionError(
                f"no i-PI listens {place} ({reason}); start i-pi first, with the same address"
            )
        time.sleep(0.2)


def serve(client: SocketClient, atoms: Atoms, console: Console | None = None) -> int:
    """Answer the requests of the server until it ends; returns the number of evaluations.

    Args:
        client: connected client.
        atoms: structure with a calculator, which defines elements and periodicity. Positions and
            cell come from the server.
        console: console for the number of evaluations.
    """
    count = 0
    status = (console or Console(quiet=True)).status("waiting for i-PI")
    with status, ctrl_c() as check:
        # A virial needs a volume.
        for _ in client.irun(atoms, use_stress=bool(atoms.pbc.any()) and atoms.cell.rank == 3):
            count += 1
            energy = float(atoms.get_potential_energy())
            status.update(f"{count} evaluations, last energy {energy:.4f} eV")
            check()
    return count


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    keep_freed_memory()
    console = Console()
    try:
        calculator = TesseralCalculator(
            arguments.model, device=arguments.device, dtype=arguments.dtype
        )
        atoms = read_atoms(arguments.structure)
        species_index(atoms.numbers, calculator.card.elements)
        atoms.calc = calculator
        client = connect(arguments.unix, arguments.host, arguments.port, arguments.wait)
        count = serve(client, atoms, console)
    except (ValueError, OSError) as error:
        return _complain(f"error: {error}", 2)
    except CalculationFailed as error:
        return _complain(f"stopped: {error}", 1)
    except KeyboardInterrupt:
        return _complain("stopped by Ctrl-C", 130)
    console.print(f"i-PI has ended after {count} evaluations here")
    return 0


def read_atoms(path: Path) -> Atoms:
    """The last structure of a file that ASE reads.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no structure file {path}")
    return read_last_frame(path)


def _complain(text: str, status: int) -> int:
    print(text, file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tesseral.md_examples.ipi_client",
        description="Compute energies, forces and virials for i-PI.",
    )
    add = parser.add_argument
    add("structure", type=Path, help="structure of the simulation, in any format ASE reads")
    add("model", type=Path, help="model file, or universal")
    add("-u", "--unix", metavar="NAME", help="address of i-PI's UNIX socket (mode='unix')")
    add("--host", default="localhost", help="host of i-PI (mode='inet'; %(default)s)")
    add("--port", type=int, default=PORT, help="port of i-PI (%(default)s)")
    add("--wait", type=float, default=60.0, help="seconds to wait for i-PI (%(default)s)")
    add("--device", help="cpu, cuda, …. Default: a GPU if available")
    add("--dtype", choices=("float32", "float64"), help="precision. Default: that of the model")
    return parser


if __name__ == "__main__":
    sys.exit(main())
