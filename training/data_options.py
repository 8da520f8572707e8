"""The options of ``train-potential data``."""

from __future__ import annotations

from tesseral.data.doctor.command import CHECK_EPILOG, CheckConfig
from tesseral.data.importer import ImportConfig
from tesseral.training.options import Parser, add_fields


def add_data(parser: Parser) -> dict[str, Parser]:
    """Add the commands below it to the parser of ``data``, and return them by name."""
    commands = parser.add_subcommands(metavar="COMMAND", title="commands", dest="command")
    reader = Parser(usage="train-potential data import SOURCE… -o SET.h5 [options]")
    reader.description = (
        "Import DFT results into a dataset file. After an interruption the same command goes on."
    )
    add_fields(reader, ImportConfig, positional={"sources": "+"}, short={"output": "-o"})
    commands.add_subcommand("import", reader, help="DFT results of many formats into one file")
    checker = Parser(
        usage="train-potential data check SET.h5 [TEST.h5 …] [options]", epilog=CHECK_EPILOG
    )
    checker.description = "Look for what makes training fail, before it is begun."
    add_fields(checker, CheckConfig, positional={"files": "+"})
    commands.add_subcommand("check", checker, help="lost labels, units, signs, copies, leaks")
    merger = Parser(usage="train-potential data merge SET.h5 SET.h5… -o ALL.h5 [--overwrite]")
    merger.description = "Join datasets, one after the other; they are compared with their hashes."
    merger.add_argument("sources", type=str, nargs="+", help="dataset files")
    merger.add_argument("-o", "--output", type=str, required=True, help="dataset file to write")
    merger.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    commands.add_subcommand("merge", merger, help="several datasets into one file")
    appender = Parser(usage="train-potential data append SET.h5 MORE.h5…")
    appender.description = (
        "Append datasets to one. The file is written anew and replaced when that is complete."
    )
    appender.add_argument("output", type=str, help="dataset file that grows")
    appender.add_argument("sources", type=str, nargs="+", help="dataset files with what to append")
    commands.add_subcommand("append", appender, help="more datasets to the end of a file")
    verifier = Parser(usage="train-potential data verify SET.h5…")
    verifier.description = "Compare datasets with their hashes; exit status 2 if they differ."
    verifier.add_argument("sources", type=str, nargs="+", help="dataset files")
    commands.add_subcommand("verify", verifier, help="are the data what was written?")
    return {
        "import": reader,
        "check": checker,
        "merge": merger,
        "append": appender,
        "verify": verifier,
    }
