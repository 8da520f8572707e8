"""Making the models of the catalogue: from packages, files, and a local server."""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tesseral.commands.main import main
from tesseral.deploy import obtain
from tesseral.deploy.catalogue import CATALOGUE, DEFAULTS, Published
from tesseral.deploy.convert import Deviation, find_converter
from tesseral.deploy.obtain import download, get_model, local_weights, ready_model, state
from tesseral.deploy.releases import RELEASES
from tesseral.deploy.universal import data_folder, kept_path

CONTENT = b"weights" * 1000
NAME = "nequix-mp-1"


class Handler(BaseHTTPRequestHandler):
    """Gives CONTENT, half of it before the connection ends, or no file."""

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // (2 if self.path == "/broken" else 1)])

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folders for data, the cache of Nequix and work."""
    monkeypatch.delenv("TESSERAL_UNIVERSAL", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(obtain, "CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Packages that are not found, as if they were not installed."""
    missing: set[str] = set()
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in missing else find(name)
    )
    return missing


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sources that would have been converted; the outputs are empty files."""
    sources: list[str] = []

    def convert(source: str, output: Path, **options: object) -> Deviation:
        sources.append(source)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.touch()
        return Deviation(0.0, 0.0, 0.0, 0.0, compared=1, too_close=0)

    monkeypatch.setattr(obtain, "write_converted", convert)
    return sources


def entry(url: str, content: bytes = CONTENT) -> Published:
    return CATALOGUE[NAME]._replace(url=url, sha256=hashlib.sha256(content).hexdigest())


def test_a_download_with_the_right_checksum_is_kept(server: str) -> None:
    pytest.importorskip("pooch")
    path = download(entry(f"{server}/file"))
    assert path == data_folder() / "weights" / f"{NAME}.nqx"
    assert path.read_bytes() == CONTENT
    assert local_weights(CATALOGUE[NAME]) == path


def test_another_checksum_leaves_no_file(server: str) -> None:
    pytest.importorskip("pooch")
    with pytest.raises(ValueError, match="is not the published one: its checksum is another"):
        download(entry(f"{server}/file", b"other"))
    assert list((data_folder() / "weights").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [("broken", "no connection to 127.0.0.1, or one that broke off"), ("missing", "status 404")],
)
def test_a_broken_connection_leaves_no_file(server: str, path: str, reason: str) -> None:
    pytest.importorskip("pooch")
    with pytest.raises(OSError, match=f"could not be downloaded.*{reason}.*`weights="):
        download(entry(f"{server}/{path}"))
    assert list((data_folder() / "weights").iterdir()) == []


def test_without_a_network_it_says_how_to_get_the_file() -> None:
    pytest.importorskip("pooch")
    with pytest.raises(OSError, match="no connection to 127.0.0.1.*get http://127.0.0.1:9/file in"):
        download(entry("http://127.0.0.1:9/file"))


def test_without_pooch_it_says_what_to_install(without: set[str]) -> None:
    without.add("pooch")
    with pytest.raises(ValueError, match=f"downloading {NAME} needs pooch; run pip install pooch"):
        get_model(NAME)


def test_nothing_is_downloaded_without_a_checksum() -> None:
    with pytest.raises(ValueError, match="nequix-omat-1 is not downloaded, because its checksum"):
        get_model("nequix-omat-1")


def test_a_given_file_must_be_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "file.nqx").write_bytes(CONTENT)
    with pytest.raises(ValueError, match="file.nqx is not the published file of nequix-mp-1"):
        get_model(NAME, weights=tmp_path / "file.nqx")


def test_weights_in_the_cache_of_the_package_are_used(
    home: Path, converted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOGUE, NAME, entry("http://127.0.0.1:9"))
    (home / "cache").mkdir()
    (home / "cache" / f"{NAME}.nqx").write_bytes(CONTENT)
    assert state(CATALOGUE[NAME]) == "installed"
    assert get_model(NAME)[0] == kept_path(NAME)
    assert converted == [str(home / "cache" / f"{NAME}.nqx")]
    assert state(CATALOGUE[NAME]) == "made"


def test_the_default_falls_back_on_weights_that_are_installed(
    converted: list[str], without: set[str]
) -> None:
    pytest.importorskip("sevenn")
    without.add("pooch")
    told: list[str] = []
    output, _ = get_model(tell=told.append)
    assert output == kept_path(DEFAULTS[1]) and converted == [DEFAULTS[1]]
    assert told and DEFAULTS[0] in told[0] and f"{DEFAULTS[1]} is taken instead" in told[0]
    without.add("sevenn")
    with pytest.raises(ValueError, match="needs pooch"):
        get_model()


def test_a_missing_model_is_made_from_installed_weights_only(
    converted: list[str], without: set[str]
) -> None:
    pytest.importorskip("sevenn")
    told: list[str] = []
    assert ready_model("universal", tell=told.append) == kept_path("sevennet-0")
    assert converted == ["sevennet-0"] and "making sevennet-0" in told[0]
    assert ready_model("universal") == kept_path("sevennet-0") and len(converted) == 1
    assert ready_model("model.safetensors") == Path("model.safetensors")
    with pytest.raises(FileNotFoundError, match="nequix-mp-1 has not been made yet"):
        ready_model(NAME)
    without.add("sevenn")
    with pytest.raises(FileNotFoundError, match="sevennet-l3i5 has not been made yet"):
        ready_model("sevennet-l3i5")


def test_every_model_of_the_catalogue_has_a_converter() -> None:
    assert set(CATALOGUE) <= set(RELEASES)
    for name in (*CATALOGUE, *DEFAULTS):
        assert find_converter(name).suffixes


def test_the_command_lists_all_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["universal"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in CATALOGUE)
    assert "there is no universal model yet: train-potential universal get" in shown
    assert main(["universal", "get", "other"]) == 2
    assert "there is no other; the models are nequix-oam" in capsys.readouterr().err
    assert main(["universal", "list", NAME]) == 2
    assert "write get before them" in capsys.readouterr().err
