"""Pictures of computed properties."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tesseral.calculators.properties.band import Profile
from tesseral.calculators.properties.eos import EquationOfState
from tesseral.calculators.properties.phonons import Bands
from tesseral.files import write_whole

Floats = NDArray[np.float64]

BLUE, RED = "#2a6fb0", "#b03a2a"
NAMED_MODES = 12  # modes of a molecule whose wavenumbers are written; more would overlap
CLOSE = 0.06  # of the width: names of ticks at a smaller distance would overlap
UNSTABLE = -0.05  # THz; smaller negative frequencies are rounding errors of acoustic modes


@contextmanager
def _picture(path: Path, size: tuple[float, float] = (4.5, 3.4)) -> Iterator[Any]:
    """Axes of a picture that is written at the end; no window system is used."""
    import matplotlib  # imported here, because it takes a third of a second
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        yield figure.add_subplot()
        with write_whole(path) as temporary:
            figure.savefig(temporary, dpi=150, format="png")


def draw_eos(result: EquationOfState, path: Path) -> None:
    """Energy against volume, with the fit."""
    n, fit = result.n_atoms, result.fit
    fine = np.linspace(result.volumes.min(), result.volumes.max(), 200)
    with _picture(path) as axis:
        axis.plot(fine / n, 1000 * (fit(fine) - fit.energy) / n, color=BLUE, label="fit")
        above = 1000 * (result.energies - fit.energy) / n
        axis.plot(result.volumes / n, above, "o", ms=4, color=RED, label="model")
        axis.set(xlabel="volume (Å³/atom)", ylabel="energy above the minimum (meV/atom)")
        title = f"B₀ = {fit.bulk_modulus:.1f} GPa, B₀′ = {fit.pressure_derivative:.2f}"
        axis.set_title(title.replace("-", "−"))
        axis.legend()


def draw_stiffness(stiffness: Floats, path: Path) -> None:
    """The stiffness tensor as a coloured table."""
    order = ("xx", "yy", "zz", "yz", "xz", "xy")
    largest = float(np.abs(stiffness).max())
    with _picture(path, (4.2, 3.8)) as axis:
        axis.imshow(stiffness, cmap="RdBu", vmin=-1.5 * largest, vmax=1.5 * largest)
        axis.set_xticks(range(6), order)
        axis.set_yticks(range(6), order)
        for (i, j), value in np.ndenumerate(stiffness):
            text = f"{round(value, 1) + 0.0:.1f}".replace("-", "−")  # no negative zeros
            axis.text(j, i, text, ha="center", va="center")
        axis.set_title("stiffness (GPa)")


def draw_bands(bands: Bands, path: Path) -> None:
    """Phonon frequencies along the standard path."""
    # The path may jump from one point to another at the same distance: both are named, not joined.
    jumps = np.flatnonzero(np.diff(bands.distances) == 0) + 1
    parts = zip(np.split(bands.distances, jumps), np.split(bands.frequencies, jumps), strict=True)
    names: dict[float, str] = {}
    for tick, label in zip(bands.ticks.tolist(), bands.labels, strict=True):
        label = label.replace("G", "Γ")
        names[tick] = f"{names[tick]}|{label}" if tick in names else label
    with _picture(path, (5.0, 3.4)) as axis:
        for distances, frequencies in parts:
            axis.plot(distances, frequencies, color=BLUE, lw=1)
        axis.axhline(0, color="0.6", lw=0.6)
        for tick in names:
            axis.axvline(tick, color="0.8", lw=0.6)
        axis.set_xticks(list(names), _staggered(names, CLOSE * float(bands.distances[-1])))
        unstable = ", unstable below 0" if bands.frequencies.min() < UNSTABLE else ""
        axis.set(
            ylabel=f"frequency (THz{unstable})", xlim=(bands.distances[0], bands.distances[-1])
        )


def _staggered(names: dict[float, str], close: float) -> list[str]:
    """Names of ticks, each on a lower line than a close one before it."""
    shown: list[str] = []
    before, line = float("-inf"), 0
    for tick, name in names.items():
        line = line + 1 if tick - before < close else 0
        shown.append("\n" * line + name)
        before = tick
    return shown


def draw_modes(frequencies: Floats, path: Path) -> None:
    """Frequencies of the normal modes of a molecule as lines."""
    stable = frequencies >= 0
    unstable = "" if stable.all() else ", unstable below 0"
    with _picture(path, (4.5, 2.6)) as axis:
        axis.vlines(frequencies[stable], 0, 1, color=BLUE)
        axis.vlines(frequencies[~stable], 0, 1, color=RED)
        if len(frequencies) <= NAMED_MODES:
            for value in frequencies:
                axis.text(value, 1.03, f"{value:.0f}".replace("-", "−"), rotation=90, ha="center")
        axis.spines[["left", "top", "right"]].set_visible(False)
        low, high = min(0.0, 1.1 * frequencies.min()), 1.05 * frequencies.max()
        axis.set(xlabel=f"wavenumber (cm⁻¹{unstable})", yticks=[], ylim=(0, 1.3), xlim=(low, high))


def draw_profile(result: Profile, path: Path) -> None:
    """Energies along a path, with the spline through energies and slopes."""
    with _picture(path) as axis:
        axis.plot(result.fine_distance, result.fine_energies, color=BLUE, label="spline")
        axis.plot(result.distance, result.energies, "o", ms=4, color=RED, label="structures")
        axis.axhline(0, color="0.6", lw=0.6)
        axis.set(xlabel="distance along the path (Å)", ylabel="energy above the start (eV)")
        axis.set_title(
            f"barriers {result.forward:.3f} eV forward, {result.backward:.3f} eV backward",
            fontsize=9,
        )
        axis.legend()
