"""``train-potential symmetry``: the symmetries a relaxed model breaks, and those that remain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tesseral.commands.parser import Parser, add_fields, build
from tesseral.files import json_text, make_folder, write_text
from tesseral.screen import Columns, print_written

if TYPE_CHECKING:
    import torch

    from tesseral.potentials.symmetry import PointGroup

TOLERANCE = 0.3


@dataclass(frozen=True, kw_only=True)
class SymmetryConfig:
    """Show which symmetries a relaxed model breaks, and the point group that remains.

    Args:
        model: model file (.safetensors), or universal.
        json: file to write the numbers to.
        plot: PNG file for a plot of the symmetry-breaking function on the sphere.
        tolerance: maximum relative change of the functions under a symmetry operation; learned
            functions are never exactly symmetric.
    """

    model: str
    json: str | None = None
    plot: str | None = None
    tolerance: float = TOLERANCE


def parser() -> Parser:
    """Options of ``symmetry``."""
    made = Parser(usage="train-potential symmetry MODEL.safetensors [options]")
    add_fields(made, SymmetryConfig, positional={"model": None})
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Show the broken components and the remaining point group; returns 0."""
    config = build(SymmetryConfig, values)
    result = symmetry(config)
    if result["components"]:
        console.print(symmetry_table(result, f"broken components of {config.model}"))
    console.print(symmetry_sentence(result), highlight=False, soft_wrap=True)
    print_written(console, config.json, config.plot)
    return 0


def symmetry(config: SymmetryConfig) -> dict[str, Any]:
    """Broken components and point group of a model; also written as JSON and drawn on request.

    Returns:
        ``relaxed`` (bool), ``exact`` (bool: no error from a grid), ``components`` (for each layer,
        mixing and degree the ``size``, relative to that of the field, the ``axis`` and its
        ``share``, None if nothing is broken) and ``point_group`` (``name``, ``axis``, ``order``,
        ``deviation``, ``tolerance``).

    Raises:
        FileNotFoundError: the model does not exist.
        ValueError: the file is not a model, the tolerance is out of range, or there is nothing to
            draw.
    """
    import torch  # imported here, because it takes a second, which --help need not wait

    from tesseral.deploy.modelfile import load_model
    from tesseral.potentials.blocks.point_groups import group_elements
    from tesseral.potentials.symmetry import (
        UNBROKEN,
        PointGroup,
        broken_functions,
        function_sizes,
        gram_matrices,
        leading_axis,
        leading_function,
        remaining_group,
        schoenflies,
    )

    potential, card = load_model(config.model)
    functions = broken_functions(potential)
    components: list[dict[str, Any]] = []
    for layer, mixings in enumerate(functions):
        for mixing, own in enumerate(mixings):
            pairs = zip(gram_matrices(own), function_sizes(own), strict=True)
            for degree, (gram, size) in enumerate(pairs, 1):
                found = leading_axis(gram) if size > UNBROKEN else None
                components.append(
                    {
                        **{"layer": layer + 1, "mixing": mixing + 1, "degree": degree},
                        "size": size,
                        "axis": None if found is None else found.direction,
                        "share": None if found is None else found.share,
                    }
                )
    broken = any(component["size"] > UNBROKEN for component in components)
    together = torch.cat([own for mixings in functions for own in mixings], 1) if broken else None
    group = remaining_group(potential, config.tolerance)
    if not functions and card.config.group is not None:  # a mean over this group
        elements = group_elements(card.config.group)
        group = PointGroup(*schoenflies(elements), elements, 0.0)
    result = {
        "relaxed": card.config.relaxed,
        "exact": not card.config.has_grid_error,
        "components": components,
        "point_group": {
            "name": group.name,
            "axis": group.axis,
            "order": None if group.elements is None else len(group.elements),
            "deviation": group.deviation,
            "tolerance": config.tolerance,
        },
    }
    for name in (config.json, config.plot):
        if name is not None:
            make_folder(Path(name).parent)
    if config.json is not None:
        write_text(config.json, json_text(result, indent=2, finite=True) + "\n")
    if config.plot is not None:
        if together is None:
            raise ValueError(f"{config.model} has no broken components; there is nothing to draw")
        _draw(*leading_function(together), group, Path(config.plot))
    return result


def symmetry_table(result: dict[str, Any], title: str) -> Columns:
    """Table of the result of ``symmetry``."""
    rows = []
    for each in result["components"]:
        axis = each["axis"]
        rows.append(
            [
                *(str(each[name]) for name in ("layer", "mixing", "degree")),
                f"{each['size']:.2g}",
                "–" if axis is None else " ".join(f"{x:6.3f}" for x in axis),
                "–" if axis is None else f"{100 * each['share']:.0f}%",
            ]
        )
    heads = ("layer", "mixing", "degree", "size / field's", "axis x y z", "share")
    return Columns(heads, rows, title=title)


def symmetry_sentence(result: dict[str, Any]) -> str:
    """One-line summary of the remaining symmetry."""
    from tesseral.potentials.symmetry import UNBROKEN

    if not result["relaxed"]:
        accuracy = (
            "exactly"
            if result["exact"]
            else ("to the accuracy of its grid on the sphere (the report measures it)")
        )
        return f"the model is not relaxed: it has all rotations and reflections, O(3), {accuracy}"
    group = result["point_group"]
    if group["name"] == "O(3)":
        return f"nothing is broken (all below {UNBROKEN:g} of the field): O(3)"
    axis = group["axis"]
    around = "" if axis is None else f" around {' '.join(f'{x:.3f}' for x in axis)}"
    order = "" if group["order"] is None else f", {group['order']} operation"
    order += "s" * (group["order"] not in (None, 1))
    return (
        f"left: {group['name']}{around}{order}; it changes the functions by "
        f"{100 * group['deviation']:.0f}% at most (tolerance {100 * group['tolerance']:.0f}%)"
    )


def _draw(shape: torch.Tensor, share: float, group: PointGroup, path: Path) -> None:
    """Draw a map of the sphere: longitude from x to y, latitude towards z."""
    import numpy as np
    import torch
    from matplotlib.figure import Figure

    from tesseral.potentials.blocks.sphere import Harmonics
    from tesseral.training.plots import save_figure

    longitude, latitude = np.linspace(-np.pi, np.pi, 181), np.linspace(-np.pi / 2, np.pi / 2, 91)
    x, y = np.meshgrid(longitude, latitude)
    directions = np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=-1)
    degree = round((len(shape) + 1) ** 0.5) - 1
    harmonics = Harmonics(degree)(torch.from_numpy(directions.reshape(-1, 3)))
    values = (harmonics[:, 1:] @ shape).reshape(x.shape).numpy()
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot(projection="mollweide")
    largest = float(np.abs(values).max())
    drawn = axes.pcolormesh(
        x, y, values, cmap="RdBu_r", vmin=-largest, vmax=largest, shading="gouraud", rasterized=True
    )
    if group.axis is not None:
        for sign in (1.0, -1.0):
            a, b, c = (sign * part for part in group.axis)
            axes.plot(np.arctan2(b, a), np.arcsin(np.clip(c, -1.0, 1.0)), "o", color="black")
    for angle, name in ((0.0, "x"), (np.pi / 2, "y")):
        axes.text(angle, 0.0, name, ha="center", va="center")
    axes.text(0.0, 0.49 * np.pi, "z", ha="center", va="top")
    axes.set_xticklabels([])
    axes.set_yticklabels([])
    axes.grid(color="#bbbbbb", linewidth=0.4)
    axes.set_title(
        f"{group.name}: leading broken function, {100 * share:.0f}% of all; its sign is arbitrary",
        fontsize=9,
    )
    figure.colorbar(drawn, ax=axes, shrink=0.7)
    save_figure(figure, path)
