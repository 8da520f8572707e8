"""The benchmark of products on the sphere: all its forms compute the same."""

import pytest
import torch

from benchmarks import products


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("l_max", [1, 2])
def test_all_forms_give_the_same_numbers(l_max):
    a, b = torch.randn(2, 3, (l_max + 1) ** 2, 4)
    results = {
        name: form.leave(form.product(form.enter(a), form.enter(b)))
        for name, form in products.forms(l_max, 4).items()
    }
    for name, result in results.items():
        error = float((result - results["grid"]).abs().max() / results["grid"].abs().max())
        print(f"{name:10s} {error:.1e}")
        assert error < 1e-6, name
    assert len(results) >= 5


def test_from_the_command_line(tmp_path, capsys):
    path = tmp_path / "products.md"
    words = ["--degrees", "1", "--atoms", "2", "--channels", "2", "--rounds", "1"]
    products.main([*words, "--markdown", str(path)])
    assert "forwards and backwards" in capsys.readouterr().out
    assert "| l_max | points | grid | compiled | CG dense" in path.read_text()
