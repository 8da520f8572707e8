"""The page of pictures, docs/howto/pictures.md: runs the commands that make pictures.

    python -m benchmarks.gallery [--minutes 3] [--output runs/gallery] [--universal MODEL]

Trains a model on the shipped data of SiC, uses it and the universal potential, and writes the
pictures, smaller, to docs/images/gallery.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from ase.build import bulk, molecule
from PIL import Image

from tesseral.files import write_text, write_whole

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images" / "gallery"
PAGE = ROOT / "docs" / "howto" / "pictures.md"
WIDE, NARROW = 640, 340  # pixels
COLORS = 128  # of a palette; lines and text need few

HEAD = """\
# Pictures

The pictures that the commands make, here of a model trained for some minutes on the
[shipped data](../start/quickstart.md) of SiC. The files are larger.
"""


class Entry(NamedTuple):
    """A command, and where its pictures are."""

    title: str
    command: str  # as on the page
    pattern: str  # files of the pictures, or an HTML page that contains them
    where: str  # sentence about the files


ENTRIES = (
    Entry(
        "Training",
        "train-potential fit --data.train set.h5 --output model.safetensors --trainer.max_time 3m",
        "runs/model/learning_curves.png",
        "`runs/model/learning_curves.png`, renewed during the training.",
    ),
    Entry(
        "Errors on test structures",
        "train-potential evaluate model.safetensors test.h5 --plots plots",
        "plots/*.png",
        "`plots/energy.png`, `forces.png`, `stress.png`, and `uncertainty.png` if the model has a\n"
        "calibration.",
    ),
    Entry(
        "Properties of crystals",
        "train-potential properties sic.cif --model model.safetensors",
        "sic-properties/structures/*.png",
        "`sic-properties/structures`: equation of state, stiffness, phonons. See "
        "[properties](properties.md).",
    ),
    Entry(
        "Barriers",
        "train-potential neb start.extxyz end.extxyz --model model.safetensors",
        "start-neb/structures/*.png",
        "`start-neb/structures`: an atom beside a vacancy of SiC moves into it. See "
        "[barriers](barriers.md).",
    ),
    Entry(
        "Vibrations of molecules",
        "train-potential properties water.xyz",
        "water-properties/structures/*.png",
        "`water-properties/structures`, here with the universal potential.",
    ),
    Entry(
        "Report",
        "train-potential report model.safetensors --data test.h5 -o report",
        "report/report.html",
        "`report/report.html`, beside tables and verdicts. See [evaluate and report](report.md).",
    ),
)


def main() -> int:
    """Run the commands, and write images and page; returns 0, or 1 if a command failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gallery", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="time of the training")
    parser.add_argument("--output", type=Path, default=Path("runs/gallery"))
    parser.add_argument("--universal", default="universal", help="model for the molecule")
    options = parser.parse_args()
    folder = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    bulk("SiC", "zincblende", a=4.38, cubic=True).write(folder / "sic.cif")
    molecule("H2O").write(folder / "water.xyz")
    _write_hop(folder)
    examples = Path(str(files("tesseral.data.examples")))
    for name, source in (("set.h5", "sic_pbe.h5"), ("test.h5", "sic_pbe_test.h5")):
        (folder / name).write_bytes((examples / source).read_bytes())
    IMAGES.mkdir(parents=True, exist_ok=True)
    parts = [HEAD]
    for entry in ENTRIES:
        words = entry.command.replace("3m", f"{options.minutes}m").split()[1:]
        if "water" in entry.command:
            words += ["--model", options.universal]
        if not list(folder.glob(entry.pattern)):
            subprocess.run([sys.executable, "-m", "tesseral.commands.main", *words], cwd=folder)
        names = [_write(name, image) for name, image in _images(folder, entry.pattern)]
        if not names:
            sys.stderr.write(f"benchmarks.gallery: no pictures from {entry.command}\n")
            return 1
        shown = "\n".join(f"![{text}](../images/gallery/{name})" for name, text in names)
        parts.append(
            f"## {entry.title}\n\n```sh\n{entry.command}\n```\n\n{entry.where}\n\n{shown}\n"
        )
    write_text(PAGE, "\n".join(parts))
    return 0


def _write_hop(folder: Path) -> None:
    """A vacancy of carbon in SiC, before and after one of its neighbours of the same kind moves."""
    crystal = bulk("SiC", "zincblende", a=4.38, cubic=True).repeat(2)
    carbon = [atom.index for atom in crystal if atom.symbol == "C"]
    places = crystal.get_distances(carbon[0], carbon[1:], mic=True)
    near = carbon[1 + int(places.argmin())]
    start, end = crystal.copy(), crystal.copy()
    end.positions[near] += crystal.get_distance(near, carbon[0], mic=True, vector=True)
    for name, atoms in (("start", start), ("end", end)):
        del atoms[carbon[0]]
        atoms.write(folder / f"{name}.extxyz")


def _images(folder: Path, pattern: str) -> Iterator[tuple[str, Image.Image]]:
    """Names and pictures of files, or in pages."""
    for path in sorted(folder.glob(pattern)):
        if path.suffix == ".png":
            yield path.stem, Image.open(path)
        else:
            text = path.read_text(encoding="utf-8")
            found = re.findall(r'src="data:image/png;base64,([^"]+)" alt="([^"]*)"', text)
            for data, name in found:
                words = re.sub("[^a-z0-9]+", "-", f"report {name}".lower()).strip("-")
                yield words, Image.open(io.BytesIO(base64.b64decode(data)))


def _write(name: str, image: Image.Image) -> tuple[str, str]:
    """Write a smaller picture with few colours; returns its file name and its description."""
    small = image.convert("RGB")
    width = WIDE if image.width > 1.6 * image.height else NARROW
    height = round(image.height * width / image.width)
    small = small.resize((width, height), Image.Resampling.LANCZOS)
    with write_whole(IMAGES / f"{name}.png") as temporary:
        small.quantize(COLORS).save(temporary, format="png", optimize=True)
    return f"{name}.png", name.replace("-", " ").replace("_", " ")


if __name__ == "__main__":
    sys.exit(main())
