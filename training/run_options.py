"""The options of ``train-potential relax`` and ``train-potential md``."""

from __future__ import annotations

from tesseral.calculators.simulations.dynamics import MdConfig
from tesseral.calculators.simulations.relaxation import RelaxConfig
from tesseral.training.options import Parser, add_fields

EPILOG = """\
Every structure has its trajectory (.traj, ASE) and table (.csv) in FOLDER/structures, and a line in
FOLDER/summary.csv. After Ctrl-C, a kill or a power cut the same command goes on. The exit status is
1 where {}.
"""


def relax_parser() -> Parser:
    """Of ``relax``."""
    parser = Parser(
        usage="train-potential relax STRUCTURE… [--model MODEL.safetensors] [-o FOLDER] [options]",
        epilog=EPILOG.format("a structure failed or did not converge, 0 where all did"),
    )
    add_fields(parser, RelaxConfig, positional={"structures": "+"}, short={"output": "-o"})
    return parser


def md_parser() -> Parser:
    """Of ``md``."""
    parser = Parser(
        usage="train-potential md STRUCTURE… [--model MODEL.safetensors] [-o FOLDER] [options]",
        epilog=EPILOG.format("a run failed"),
    )
    add_fields(parser, MdConfig, positional={"structures": "+"}, short={"output": "-o"})
    return parser
