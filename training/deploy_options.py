"""The options of ``train-potential export``, ``convert`` and ``lammps``."""

from __future__ import annotations

from typing import Literal

from tesseral.training.options import Parser


def export_parser() -> Parser:
    """Of ``export``."""
    parser = Parser(usage="train-potential export MODEL.safetensors -o MODEL.pt [options]")
    parser.add_argument("model", type=str, help="model file, or universal")
    parser.add_argument("-o", "--output", type=str, required=True, help="file to write")
    parser.add_argument(
        "--dtype", type=str | None, help="float32 or float64; the model's if not given"
    )
    parser.add_argument(
        "--format",
        type=Literal["torchscript", "aoti"],
        default="torchscript",
        help="aoti: .pt2 for this machine alone, for models that the compiled kernels cannot run",
    )
    return parser


def convert_parser() -> Parser:
    """Of ``convert``."""
    from tesseral.deploy.sevennet.convert import INTERVALS
    from tesseral.deploy.sevennet.original import RELEASES

    parser = Parser(usage="train-potential convert sevennet-0 [-o MODEL.safetensors] [options]")
    parser.add_argument(
        "source", type=str, help=f"checkpoint file, or one of {', '.join(RELEASES)}"
    )
    parser.add_argument(
        "-o", "--output", type=str | None, help="where `--model universal` finds it if not given"
    )
    parser.add_argument(
        "--intervals",
        type=int,
        default=INTERVALS,
        help="of the splines that take the place of the radial networks",
    )
    parser.add_argument(
        "--modality", type=str | None, help="level of theory to keep, where there are several"
    )
    return parser


def add_lammps(parser: Parser) -> dict[str, Parser]:
    """Add the commands below it to the parser of ``lammps``, and return them by name."""
    commands = parser.add_subcommands(metavar="COMMAND", title="commands", dest="command")
    builder = Parser(usage="train-potential lammps build [-o FOLDER]")
    builder.description = "Compile the pair style for the installed LAMMPS; takes a minute."
    builder.add_argument(
        "-o", "--output", type=str | None, help="folder; where lmp looks for it if not given"
    )
    commands.add_subcommand("build", builder, help=builder.description)
    verifier = Parser(usage="train-potential lammps verify MODEL.pt [--ranks 1,2,4]")
    verifier.description = "Compare LAMMPS with Python; the exit status is 1 if they differ."
    verifier.add_argument("model", type=str, help="model that train-potential export wrote")
    verifier.add_argument("--ranks", type=str, default="1,2,4", help="numbers of MPI processes")
    commands.add_subcommand("verify", verifier, help=verifier.description)
    return {"build": builder, "verify": verifier}
