"""``train-potential data``: ``import``, ``check``, ``split``, ``select``, ``merge`` and others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tesseral.calculators.select_config import SelectConfig
from tesseral.commands.parser import Parser, add_fields, build, with_flags
from tesseral.data.doctor.config import CheckConfig
from tesseral.data.imports.config import ImportConfig
from tesseral.data.loading.config import SPLITS
from tesseral.screen import print_written, progress_line

if TYPE_CHECKING:
    from tesseral.data.doctor.checkup import Checkup
    from tesseral.data.doctor.sample import Array
    from tesseral.data.structures import Structure

CHECK_EPILOG = """\
Checks labels, units, signs and the order of stress components (all labels are compared with a small
fitted model, and stresses with finite differences of the energy where there are strained cells),
duplicates, distances, neighbours, reference energies, and structures shared between training and
validation. The exit status is 1 if there is an error that would invalidate the training, 0 if there
are only warnings and notes.
"""


def parser() -> Parser:
    """Options of ``data`` and of its subcommands."""
    made = Parser(usage="train-potential data import | check | split | select | merge | …")
    reader = Parser(usage="train-potential data import SOURCE… -o SET.h5 [options]")
    reader.description = (
        "Import DFT results into a dataset file. After an interruption the same command resumes."
    )
    add_fields(reader, ImportConfig, positional={"sources": "+"}, short={"output": "-o"})
    checker = Parser(
        usage="train-potential data check SET.h5 [TEST.h5 …] [options]", epilog=CHECK_EPILOG
    )
    checker.description = "Find errors in datasets before training."
    add_fields(checker, CheckConfig, positional={"files": "+"})
    splitter = Parser(usage="train-potential data split SET.h5 -o TRAIN.h5 TEST.h5 [options]")
    splitter.description = (
        "Divide a dataset into one to train on and one to test with. Copies of a structure stay "
        "together, and so do consecutive frames of a trajectory as far as possible. fit splits "
        "validation structures off the first one itself."
    )
    splitter.add_argument("source", type=str, help="dataset file")
    splitter.add_argument(
        "-o",
        "--output",
        type=str,
        nargs=2,
        required=True,
        metavar=("TRAIN.h5", "TEST.h5"),
        help="dataset files to write",
    )
    splitter.add_argument("--fraction", type=float, default=0.1, help="part to test with")
    splitter.add_argument(
        "--method", type=str, default="auto", help=f"as data.split of fit: {', '.join(SPLITS)}"
    )
    splitter.add_argument("--seed", type=int, default=0, help="random seed of the choice")
    splitter.add_argument("--overwrite", action="store_true", help="replace files that exist")
    selecter = Parser(
        usage="train-potential data select SET.h5… --count NUMBER -o SELECTED.h5 [options]"
    )
    selecter.description = (
        "Select structures that differ from each other. After an interruption the same command "
        "resumes."
    )
    add_fields(selecter, SelectConfig, positional={"sources": "+"}, short={"output": "-o"})
    merger = Parser(usage="train-potential data merge SET.h5 SET.h5… -o ALL.h5 [--overwrite]")
    merger.description = "Merge datasets in the given order; their hashes are checked."
    merger.add_argument("sources", type=str, nargs="+", help="dataset files")
    merger.add_argument("-o", "--output", type=str, required=True, help="dataset file to write")
    merger.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    appender = Parser(usage="train-potential data append SET.h5 MORE.h5…")
    appender.description = (
        "Append datasets to an existing one. The file is rewritten and replaced only when complete."
    )
    appender.add_argument("output", type=str, help="dataset file to extend")
    appender.add_argument("sources", type=str, nargs="+", help="dataset files to append")
    verifier = Parser(usage="train-potential data verify SET.h5…")
    verifier.description = "Check datasets against their hashes; exit status 2 if they differ."
    verifier.add_argument("sources", type=str, nargs="+", help="dataset files")
    made.below = {
        "import": reader,
        "check": checker,
        "split": splitter,
        "select": selecter,
        "merge": merger,
        "append": appender,
        "verify": verifier,
    }
    return made


def run(values: dict[str, Any], console: Console) -> int:
    """Run a subcommand of ``data``; returns the exit status."""
    command = values["command"]
    values = values[command]
    if command == "import":
        _import(values, console)
    elif command == "check":
        return _check(values, console)
    elif command == "split":
        _split(values, console)
    elif command == "select":
        _select(values, console)
    elif command == "verify":
        _verify(values, console)
    else:
        _join(command, values, console)
    return 0


def _import(values: dict[str, Any], console: Console) -> None:
    from tesseral.data.imports.importer import import_structures

    with progress_line(console) as bar:

        def show(doing: str, structures: int, fraction: float) -> None:
            bar(fraction, 1.0, f"{doing}: {structures:,} structures")

        try:
            report = import_structures(build(ImportConfig, values), show)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command resumes from here") from None
    report.warnings = [with_flags(text, parser()) for text in report.warnings]
    console.print(report.table())


def _check(values: dict[str, Any], console: Console) -> int:
    from tesseral.commands import fit
    from tesseral.data.doctor.check import check
    from tesseral.data.doctor.display import checkup_table

    def show(checkup: Checkup) -> None:
        findings = []
        for finding in checkup.findings:
            advice = with_flags(finding.advice, parser())
            if "`" in advice:  # names an argument of fit
                advice = with_flags(advice, fit.parser())
            findings.append(finding._replace(advice=advice))
        console.print(checkup_table(replace(checkup, findings=findings)))

    def predict(structures: list[Structure], asked: bool) -> Array:
        from tesseral.training.stresses import fitted_stresses

        if not asked:
            console.print("some stresses are doubtful: they need a better model", soft_wrap=True)
        words = "fitting a small potential to energies and forces, about a minute"
        console.print(words, soft_wrap=True)
        with progress_line(console, "fitting"):
            return fitted_stresses(structures)

    config = build(CheckConfig, values)
    checked = check(config, show, predict)
    if checked.mended is not None:
        print_written(console, config.fix)
        for words in checked.mended or ["nothing to correct"]:
            console.print(f"  {words}", highlight=False, soft_wrap=True, markup=False)
        show(checked.checkups[0])
    print_written(console, config.json)
    safe = all(checkup.safe for checkup in checked.checkups)
    console.print("safe to train on" if safe else "not safe to train on: there are errors")
    return int(not safe)


def _split(values: dict[str, Any], console: Console) -> None:
    from tesseral.data.loading.splits import write_split

    train, test = values["output"]
    with progress_line(console, "structures") as bar:
        split = write_split(
            values["source"],
            train,
            test,
            fraction=values["fraction"],
            method=values["method"],
            seed=values["seed"],
            overwrite=values["overwrite"],
            progress=bar,
        )
    for path, rows in ((train, split.train), (test, split.validation)):
        print_written(console, f"{path} ({len(rows)} structures)")
    console.print(f"chosen {split.reason}", highlight=False, soft_wrap=True, markup=False)


def _select(values: dict[str, Any], console: Console) -> None:
    from tesseral.calculators.selection import select_structures
    from tesseral.commands.runs import ready_on_screen

    config = build(SelectConfig, values)
    ready_on_screen(config.model, [], console)
    with progress_line(console) as bar:
        try:
            found = select_structures(config, bar)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command resumes from here") from None
    number = len(found.chosen.numbers)
    text = f"{number} of {found.seen:,} structures"
    if number < config.count:
        text += "; all others equal one of these"
    elif not config.uncertain:
        text += (
            f": they are {found.chosen.distances[-1]:.3g} or more apart, and no other is further "
            f"than {found.bound:.3g} from the nearest one"
        )
    console.print(text, highlight=False, soft_wrap=True)
    print_written(console, config.output)


def _verify(values: dict[str, Any], console: Console) -> None:
    from tesseral.data.store.read import open_store
    from tesseral.data.store.verify import verify_store

    with progress_line(console, "structures") as bar:
        for source in values["sources"]:
            store = open_store(source)
            verify_store(store, bar)
            console.print(f"{source}: {len(store)} structures match their hashes", soft_wrap=True)


def _join(command: str, values: dict[str, Any], console: Console) -> None:
    from tesseral.data.store.merge import merge_stores
    from tesseral.data.store.read import open_store

    output, append = values["output"], command == "append"
    files = [output, *values["sources"]] if append else values["sources"]
    with progress_line(console, "structures") as bar:
        merge_stores(
            files,
            output,
            overwrite=append or values["overwrite"],
            progress=bar,
        )
    store = open_store(output)
    print_written(console, f"{output} ({len(store)} structures, hash {store.content_hash[:16]})")
