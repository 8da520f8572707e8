"""The documentation site builds without a warning and needs no network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path):
    for package in ("sphinx", "myst_parser", "furo", "sphinx_copybutton"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[docs]'")
    command = ["-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(tmp_path / "doctrees")]
    site = tmp_path / "html"
    built = subprocess.run(
        [sys.executable, *command, str(ROOT / "docs"), str(site)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert built.returncode == 0, built.stderr
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    loaded = re.compile(r'<(?:script|img|iframe)[^>]*\bsrc="https?:|<link[^>]*\bhref="https?:')
    assert not [page.name for page in pages if loaded.search(page.read_text(encoding="utf-8"))]
