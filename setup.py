"""Compiles the C++ when the package is installed; everything else is in pyproject.toml.

The results are plain shared libraries (no Python in them): ``_kernels`` holds each kernel for
several instruction sets, of which the best one is chosen when it is loaded; ``_cell_list`` searches
for neighbours. Without a C++17 compiler the installation goes on without them, and the package runs
in plain PyTorch and with the search of matscipy.
"""

import os
import platform
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

SOURCES = Path("potentials", "ops", "csrc")
POTENTIALS = Path("potentials", "engine", "csrc")  # headers of whole potentials
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-g0"]
FLAGS += ["-fno-math-errno", "-fno-trapping-math"]
WISHES = ["-fopenmp", "-mprefer-vector-width=512"]  # used where the compiler knows them
# Of no use for unrolled sums, and a quarter of the time of compilation.
WISHES += ["-fno-tree-pre", "-fno-gcse", "-fno-tree-vrp", "-fno-tree-dominator-opts", "-fno-ipa-cp"]
WISHES += ["-fno-ipa-modref", "-fno-tree-slp-vectorize", "-fno-predictive-commoning"]
WISHES += ["-fno-cse-follow-jumps", "-fno-rerun-cse-after-loop", "-fno-crossjumping"]
WISHES += ["-fno-thread-jumps", "--param=ggc-min-expand=300"]
# A call of memset for the few vectors of a sum costs more than the sum.
WISHES += ["-fno-tree-loop-distribute-patterns"]
AVX2 = ["-mavx2", "-mfma", "-mbmi", "-mbmi2"]
AVX512 = [*AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl"))]
X86 = platform.machine().lower() in ("x86_64", "amd64")
# x86 processors without AVX2 are too rare for the time that optimising takes.
SMALL = ["-O1", "-DTESSERAL_SMALL"]
INSTRUCTION_SETS = {"baseline": SMALL, "avx2": AVX2, "avx512": AVX512} if X86 else {"baseline": []}


class BuildKernels(build_ext):
    """One object for each instruction set and type, linked to one library."""

    def get_ext_filename(self, fullname: str) -> str:
        """No Python version in the name: the library does not depend on it."""
        return str(Path(*fullname.split("."))) + (sysconfig.get_config_var("SHLIB_SUFFIX") or ".so")

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """The library says itself what is visible."""
        return []

    def build_extension(self, ext: Extension) -> None:
        """Compile and link."""
        if ext.name.endswith("_kernels"):
            objects = self.kernels(ext)
        else:
            objects = self.compiler.compile(
                ext.sources, output_dir=self.build_temp, extra_postargs=FLAGS
            )
        output = Path(self.get_ext_fullpath(ext.name))
        output.parent.mkdir(parents=True, exist_ok=True)
        # Not linked to OpenMP: PyTorch has loaded its own, and two in a process get in each
        # other's way. The symbols are found when the library is loaded.
        extra = ["-undefined", "dynamic_lookup"] if platform.system() == "Darwin" else []
        self.compiler.link_shared_object(
            objects, str(output), target_lang="c++", extra_postargs=extra
        )

    def kernels(self, ext: Extension) -> list[str]:
        """Objects of the kernels, compiled in parallel."""
        known = [flag for flag in WISHES if self.knows(flag)]
        jobs = [("dispatch.cpp", "dispatch", [("TESSERAL_X86", "1")] if X86 else [], [])]
        for isa, flags in INSTRUCTION_SETS.items():
            for kind in ("float", "double"):
                macros = [("TESSERAL_ISA", isa), ("TESSERAL_TYPE", kind)]
                jobs.append(("kernels.cpp", f"{isa}_{kind}", macros, flags))

        def compile_one(job: tuple) -> list[str]:
            source, name, macros, flags = job
            return self.compiler.compile(
                [str(SOURCES / source)],
                output_dir=str(Path(self.build_temp, name)),
                macros=macros,
                include_dirs=[str(SOURCES), str(POTENTIALS)],
                extra_postargs=[*FLAGS, *known, *flags],
                depends=ext.depends,
            )

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return [path for paths in pool.map(compile_one, jobs) for path in paths]

    def knows(self, flag: str) -> bool:
        """Whether the compiler takes a flag."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "empty.cpp")
            source.write_text("int main() { return 0; }\n")
            try:
                self.compiler.compile([str(source)], output_dir=folder, extra_postargs=[flag])
            except CompileError:
                return False
        return True


class OneWheel(bdist_wheel):
    """A wheel for every version of Python: its libraries do not depend on the version."""

    def get_tag(self) -> tuple[str, str, str]:
        """Python, ABI and platform in the name of the file."""
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension(
            "tesseral.potentials.ops._kernels",
            sources=[str(SOURCES / "kernels.cpp"), str(SOURCES / "dispatch.cpp")],
            depends=[str(path) for path in sorted((*SOURCES.glob("*.h"), *POTENTIALS.glob("*.h")))],
            language="c++",
            optional=True,
        ),
        Extension(
            "tesseral.data._cell_list",
            sources=[str(Path("data", "csrc", "cell_list.cpp"))],
            language="c++",
            optional=True,
        ),
    ],
    cmdclass={"bdist_wheel": OneWheel, "build_ext": BuildKernels},
)
