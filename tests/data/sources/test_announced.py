import gzip

import pytest

from tesseral.data.sources.announced import check_announced

POSCAR = b"H\n1.0\n3 0 0\n0 3 0\n0 0 3\nH\n2000000000\nDirect\n0 0 0\n"


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [("POSCAR", POSCAR, 7), ("POSCAR.gz", gzip.compress(POSCAR), 7)],
    ids=["plain", "compressed"],
)
def test_more_atoms_than_bytes_are_refused(tmp_path, name, content, line):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"line {line} announces .* atoms, but the file has"):
        check_announced(str(tmp_path / name))


def test_other_files_pass(tmp_path):
    (tmp_path / "POSCAR").write_bytes(POSCAR.replace(b"2000000000", b"1"))
    check_announced(str(tmp_path / "POSCAR"))
