"""Links, commands, options, modules and Python code of the Markdown files are right."""

import ast
import importlib
import importlib.util
import re
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import pytest
import yaml
from ase.build import bulk
from ase.io import write
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tesseral.commands.fit import fit_config
from tesseral.commands.main import COMMANDS, DEPENDING, make_parser
from tesseral.commands.parser import option_names
from tesseral.potentials.architectures.table import ARCHITECTURES, field_names
from tesseral.report.claims import CLAIMS
from tesseral.report.verdicts import threshold

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    *("benchmarks", "calculators", "commands", "configs", "data", "deploy", "docs"),
    *("learning", "md_examples", "potentials", "report", "src", "tests", "training"),
}
PAGES = [
    *(ROOT / name for name in ("README.md", "AGENTS.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts),
]
PATH = re.compile(r"[a-z_]+/([a-z0-9_/]+\.(py|md|h|cpp|yaml|sh)|([a-z0-9_]+/)*)")
SOURCES = {".py", ".yaml", ".sh", ".h", ".cpp"}
BREAKS = {"|", "&", "&&", ";", ">", "<"}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def load_generated():
    spec = importlib.util.spec_from_file_location("generated", ROOT / "docs/_ext/generated.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATED = load_generated()


class Code(NamedTuple):
    """A fenced block."""

    language: str
    runs: bool
    text: str


def tokens(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(GENERATED.expand(text))


def inner(text: str) -> Iterator[Token]:
    """Tokens within paragraphs, headings and cells of tables."""
    for token in tokens(text):
        yield from token.children or ()


def blocks(text: str) -> list[Code]:
    found = [token for token in tokens(text) if token.type == "fence"]
    words = [token.info.split() or [""] for token in found]
    return [
        Code(w[0], w[1:2] == ["run"], token.content) for w, token in zip(words, found, strict=True)
    ]


# Links


def anchors(text: str) -> set[str]:
    """Of headings, as GitHub and MyST name them, of explicit targets, and of documented names."""
    known = set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))
    known |= set(re.findall(r"^\.\. auto\w+:: ([\w.]+)$", text, re.MULTILINE))
    content = tokens(text)
    for opening, heading in zip(content, content[1:], strict=False):
        if opening.type == "heading_open":
            plain = "".join(part.content for part in heading.children or ())
            slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
            number = 0
            while (name := f"{slug}-{number}" if number else slug) in known:
                number += 1
            known.add(name)
    return known


def broken_links(page: Path, text: str) -> list[str]:
    targets = [
        str(part.attrs["href" if part.type == "link_open" else "src"])
        for part in inner(text)
        if part.type in ("link_open", "image")
    ]
    return [link for link in targets if not link_is_good(page, text, unquote(link))]


def link_is_good(page: Path, text: str, link: str) -> bool:
    if re.match(r"\w+:", link):
        return True
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return False
    if not anchor or target.suffix != ".md":
        return True
    return anchor in anchors(target.read_text(encoding="utf-8") if path else text)


def missing_paths(text: str) -> list[str]:
    """Paths of the repository, as code within a text, that are not there."""
    codes = [part.content for part in inner(text) if part.type == "code_inline"]
    paths = [code for code in codes if PATH.fullmatch(code)]
    return [path for path in paths if path.split("/")[0] in FOLDERS and not (ROOT / path).exists()]


# Commands


def command_lines(code: Code) -> Iterator[list[str]]:
    """Words of each line of a shell without comments, one command of a pipe at a time.

    A line that shows how a command is used, with ``…`` or ``[options]``, is one command.
    """
    if code.language not in ("", "sh", "bash", "console", "text"):
        return
    for line in code.text.replace("\\\n", " ").splitlines():
        words = shell_words(line.removeprefix("$ "))
        while words:
            usage = is_usage(words)
            end = next((i for i, w in enumerate(words) if w in BREAKS and not usage), len(words))
            yield words[:end]
            words = words[end + 1 :]


def shell_words(line: str) -> list[str]:
    """Words of a line; none if it is not a shell's."""
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return []


def is_usage(words: list[str]) -> bool:
    return any("…" in word or word.startswith("[") or word == "OPTIONS" for word in words)


NEEDED = {
    "fit": (("--data.train", "set.h5"), ("--output", "model.safetensors")),
    "learn": (
        *(("--structures", "[start.cif]"), ("--output", "folder")),
        ("--labels.calculator", "manual"),
    ),
}


def wrong_command(words: list[str]) -> str | None:
    """What is wrong with the arguments of ``train-potential``."""
    words = list(words)
    if is_usage(words):
        return wrong_options(words)
    if "--config" in words:  # a file of the reader's, which may have all options that are needed
        start = words.index("--config")
        del words[start : start + 2]
        for option, value in NEEDED["learn" if "learn" in words else "fit"]:
            words += [] if option in words else [option, value]
    try:
        parsed(words)
    except SystemExit as stop:
        if stop.code not in (0, None):
            return f"train-potential {' '.join(words)}"
    return None


def parsed(words: list[str]) -> dict[str, Any]:
    """Values of a command line without ``train-potential``, as the command has them."""
    name = next((word for word in words if not word.startswith("-")), "")
    command = importlib.import_module(f"tesseral.commands.{name}") if name in COMMANDS else None
    values: dict[str, Any] = make_parser(words, name, command).parse_args(words).as_dict()
    return values


def wrong_options(words: list[str]) -> str | None:
    """A command or option that does not exist; arguments may be missing."""
    said = f"train-potential {' '.join(words)}"
    if not words or not re.fullmatch(r"[a-z]+(\|[a-z]+)*", words[0]):
        return None
    if not all(name in COMMANDS for name in words[0].split("|")):
        return said
    parser = GENERATED.command_parser(words[0].split("|")[0])
    if parser.below and re.fullmatch("[a-z]+", words[1] if len(words) > 1 else ""):
        if words[1] not in parser.below:
            return said
        parser = parser.below[words[1]]
    known = {name for action in parser._actions for name in action.option_strings}
    options = [re.split(r"[=\]]", word.lstrip("["))[0] for word in words[1:]]
    options = [word for word in options if re.match("--?[a-z]", word)]
    if words[0] in DEPENDING:  # which takes --init-from for --init_from
        options = ["--" + word[2:].replace("-", "_") for word in options]
        known |= {f"--model.{option}" for name in ARCHITECTURES for option in field_names(name)}
    return said if set(options) - known else None


def wrong_commands(text: str) -> list[str]:
    """Of fenced blocks and of code within a text; and options of ``fit`` within a text."""
    wrong = []
    for code in blocks(text):
        for words in command_lines(code):
            if "train-potential" in words:
                arguments = words[words.index("train-potential") + 1 :]
                wrong.append(wrong_command(arguments) if arguments else None)
    for part in inner(text):
        if part.type != "code_inline":
            continue
        words = shell_words(part.content)
        if words[:1] == ["train-potential"]:
            wrong.append(wrong_options(words[1:]))
        elif re.match(r"--\w+\.\w", part.content):
            said = [wrong_options([command, *words]) for command in DEPENDING]
            wrong.append(None if None in said else said[0])
    return [command for command in wrong if command]


def missing_modules(text: str) -> list[str]:
    """Modules of this repository after ``python -m`` that are not there."""
    codes = [code.text for code in blocks(text)]
    codes += [part.content for part in inner(text) if part.type == "code_inline"]
    names = [name for code in codes for name in re.findall(r"python -m ([\w.]+)", code)]
    missing = []
    for name in names:
        path = ROOT / name.removeprefix("tesseral.").replace(".", "/")
        own = name.startswith(("tesseral.", "benchmarks"))
        runnable = path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
        if own and not runnable:
            missing.append(name)
    return missing


# Code


def missing_names(code: str) -> list[str]:
    """Names of tesseral that a block of Python imports and that are not there."""
    missing = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tesseral":
            wanted = [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            wanted = [(a.name, "") for a in node.names if a.name.split(".")[0] == "tesseral"]
        else:
            continue
        missing += [f"{module}.{name}" for module, name in wanted if not is_there(module, name)]
    return missing


def is_there(module: str, name: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other packages when they are imported
            found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        return not (error.name or "").startswith("tesseral")  # an optional package is not installed
    return not name or hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}")


def check_configuration(text: str, folder: Path) -> None:
    """Read a configuration as ``fit`` does; data and output may be missing in it."""
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    given = yaml.safe_load(text)
    if "labels" in given:
        assert parsed(["learn", "--config", str(path)])
        return
    options = [] if "train" in given.get("data", {}) else ["--data.train", "set.h5"]
    options += [] if "output" in given else ["--output", "model.safetensors"]
    fit_config(parsed(["fit", "--config", str(path), *options])["fit"])


@pytest.fixture(scope="session")
def folder(stable_model, tmp_path_factory) -> Path:
    """A folder with the files that the examples read."""
    from tesseral.calculators.ase import TesseralCalculator
    from tesseral.data.store.write import write_store
    from tesseral.data.structures import structure_from_atoms

    place = tmp_path_factory.mktemp("examples")
    (place / "model.safetensors").write_bytes(stable_model.read_bytes())
    calculator = TesseralCalculator(stable_model)
    crystal = bulk("SiC", "zincblende", a=5.42)
    write(place / "structure.cif", crystal)
    rng = np.random.default_rng(0)
    for name, count in (("set.h5", 8), ("test.h5", 4)):
        structures = []
        for _ in range(count):
            atoms = crystal.copy()
            atoms.rattle(0.05, rng=rng)
            atoms.calc = calculator
            atoms.get_stress()
            structures.append(structure_from_atoms(atoms))
        write_store(place / name, structures)
    return place


@each_page
def test_links_lead_somewhere(page):
    assert not broken_links(page, page.read_text(encoding="utf-8"))


@each_page
def test_paths_of_the_repository_exist(page):
    assert not missing_paths(page.read_text(encoding="utf-8"))


@each_page
def test_commands_and_options_exist(page):
    assert not wrong_commands(page.read_text(encoding="utf-8"))


@each_page
def test_modules_to_run_exist(page):
    assert not missing_modules(page.read_text(encoding="utf-8"))


@each_page
def test_code_compiles_and_its_imports_exist(page):
    for code in blocks(page.read_text(encoding="utf-8")):
        if code.language == "python":
            compile(code.text, str(page), "exec")
            assert not missing_names(code.text)


@each_page
def test_configurations_are_accepted(page, tmp_path):
    for code in blocks(page.read_text(encoding="utf-8")):
        if code.language == "yaml":
            check_configuration(code.text, tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_configurations_are_accepted(path, tmp_path):
    check_configuration(path.read_text(encoding="utf-8"), tmp_path)


RUNNABLE = [p for p in PAGES if any(c.runs for c in blocks(p.read_text(encoding="utf-8")))]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_run(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    for code in blocks(page.read_text(encoding="utf-8")):
        if code.runs:
            assert code.language == "python", "only blocks of Python are run"
            exec(compile(code.text, str(page), "exec"), names)


@pytest.mark.parametrize("key", CLAIMS)
def test_the_documentation_has_the_thresholds(key):
    claim = CLAIMS[key]
    page = GENERATED.expand((ROOT / "docs/reference/claims.md").read_text(encoding="utf-8"))
    assert f"| {claim.text} | {claim.unit} | {threshold(claim)} | {claim.reason} |" in page


@pytest.mark.parametrize("command", COMMANDS)
def test_the_documentation_has_every_option(command):
    page = GENERATED.expand((ROOT / "docs/reference/commands.md").read_text(encoding="utf-8"))
    parsers = [GENERATED.command_parser(command)]
    if command == "fit":
        parsers = [
            GENERATED.command_parser("fit", "--model.architecture", n) for n in ARCHITECTURES
        ]
    names = {
        name
        for parser in parsers
        for part in (parser, *parser.below.values())
        for name in option_names(part)
    }
    hidden = {"--help", "--print_config"}  # which the text of the page explains
    hidden |= {name for name in names if name.endswith("+") or f"{name}." in " ".join(names)}
    assert f"`train-potential {command}`" in page
    assert [name for name in names - hidden if f"`{name}`" not in page] == []


# Text of the code


@pytest.mark.parametrize("folder_name", sorted(FOLDERS - {"docs"}))
def test_code_names_pages_that_exist(folder_name):
    files = [path for path in (ROOT / folder_name).rglob("*.*") if path.suffix in SOURCES]
    named = {
        name
        for path in files
        for name in re.findall(r"docs/[a-z_]+/[a-z_]+\.md", path.read_text(encoding="utf-8"))
    }
    assert not [name for name in named if not (ROOT / name).is_file()]


# The checks themselves

PAGE = """\
# A title: with `code`

(target)=
## Same
## Same

[title](#a-title-with-code) [second](#same-1) [target](#target) [file](README.md) `data/units.py`
`train-potential relax x.cif --fmax 0.1` `train-potential data merge` `--model.zbl true`

```
train-potential fit --data.train set.h5 --output model.safetensors --trainer.max_time 1h  # text
train-potential relax */POSCAR | tee log
train-potential data import mine.extxyz -o set.h5 --energy-key dft_energy \\
    --stress-sign -1
python -m benchmarks.speed
```
"""


@pytest.mark.parametrize("check", [lambda text: broken_links(ROOT / "README.md", text),
                                   missing_paths, wrong_commands, missing_modules])  # fmt: skip
def test_checks_accept_what_is_right(check):
    assert check(PAGE) == []


@pytest.mark.parametrize(
    ("right", "wrong", "check"),
    [
        ("#same-1", "#same-2", lambda text: broken_links(ROOT / "README.md", text)),
        ("#target", "#targets", lambda text: broken_links(ROOT / "README.md", text)),
        ("(README.md)", "(READ.md)", lambda text: broken_links(ROOT / "README.md", text)),
        ("(README.md)", "(README.md#no)", lambda text: broken_links(ROOT / "README.md", text)),
        ("data/units.py", "data/unit.py", missing_paths),
        ("--trainer.max_time 1h", "--trainer.max_tim 1h", wrong_commands),
        ("--stress-sign -1", "--stress-sign minus", wrong_commands),
        ("-o set.h5 --energy", "--energy", wrong_commands),
        ("relax */POSCAR", "relaxe */POSCAR", wrong_commands),
        ("--fmax 0.1", "--force 0.1", wrong_commands),
        ("data merge", "data join", wrong_commands),
        ("--model.zbl", "--model.zpl", wrong_commands),
        ("benchmarks.speed", "benchmarks.velocity", missing_modules),
    ],
)
def test_checks_find_what_is_wrong(right, wrong, check):
    assert len(check(PAGE.replace(right, wrong))) == 1


@pytest.mark.parametrize(
    "code", ["from tesseral import Calculator", "import tesseral.missing", "from tesseral.data "
             "import nothing"])  # fmt: skip
def test_missing_names_are_found(code):
    assert len(missing_names(code)) == 1


def test_wrong_configurations_are_found(tmp_path, capsys):
    with pytest.raises(SystemExit):
        check_configuration("model: {chanels: 8}\n", tmp_path)
    with pytest.raises(SystemExit):
        check_configuration("model: {architecture: schnet, l_max: 3}\n", tmp_path)
    assert "schnet has no l_max" in capsys.readouterr().err
