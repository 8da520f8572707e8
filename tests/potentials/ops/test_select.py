"""Choosing between compiled kernels and plain PyTorch, with and without a compiled library."""

import warnings

import pytest
import torch

from tesseral.data.graph import Edges
from tesseral.potentials.architectures.table import make_config
from tesseral.potentials.engine import evaluate as engine
from tesseral.potentials.message_passing import MessagePassing
from tesseral.potentials.ops import compiled
from tesseral.potentials.ops.select import select_ops

CACHED = (compiled._library, compiled.instruction_sets, compiled._warn_once)


def potential(**options):
    if "architecture" not in options:
        options["grid_channels"] = 4
    return MessagePassing(make_config(channels=4, **options), (14,))


def forms(model):
    return {module.fused for module in model.modules() if hasattr(module, "fused")}


@pytest.fixture
def not_built(monkeypatch, tmp_path):
    """An installation that found no compiler."""
    monkeypatch.setattr(compiled, "library_path", lambda: tmp_path / "_kernels.so")
    for function in CACHED:
        function.cache_clear()
    yield
    monkeypatch.undo()
    for function in CACHED:
        function.cache_clear()


def test_without_kernels_auto_says_once_what_is_lost(not_built):
    with pytest.warns(UserWarning, match=r"without its compiled kernels .* C\+\+ compiler"):
        model = select_ops(potential())
    assert forms(model) == {False}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        select_ops(potential())
    vectors = torch.ones(1, 3, dtype=torch.float64)
    edges = Edges(vectors, torch.tensor([0]), torch.tensor([1]))
    energies = model(torch.zeros(2, dtype=torch.int64), edges)
    assert torch.isfinite(energies).all()


def test_without_kernels_fused_is_refused(not_built):
    with pytest.raises(ValueError, match="compiled kernels are missing here"):
        select_ops(potential(), "fused")


def test_a_library_that_does_not_load_counts_as_none(not_built):
    compiled.library_path().write_bytes(b"not a library")
    assert not compiled.available()


def test_an_unknown_choice_is_refused():
    with pytest.raises(ValueError, match="ops is 'fast'; use one of auto, fused, reference"):
        select_ops(potential(), "fast")


@pytest.mark.skipif(not compiled.available(), reason="no compiled kernels")
def test_choices():
    model = potential()
    assert forms(model) == {False}
    assert forms(select_ops(model)) == {True}
    assert forms(select_ops(model, "reference")) == {False}
    assert forms(select_ops(model, "fused")) == {True}


@pytest.mark.skipif(not compiled.available(), reason="no compiled kernels")
def test_degrees_that_were_not_compiled_run_in_plain_pytorch():
    model = potential(l_max=5)
    assert forms(select_ops(model)) == {False}
    with pytest.raises(ValueError, match="up to degree 5; the compiled kernels stop at 4"):
        select_ops(model, "fused")


@pytest.mark.skipif(not compiled.available(), reason="no compiled kernels")
def test_harmonics_beyond_all_paths_run_in_plain_pytorch():
    model = potential(l_max=2, l_max_edge=5)
    assert max(max(path) for path in model.layers[-1].convolution.paths) == 4
    assert forms(select_ops(model)) == {False}


@pytest.mark.skipif(not compiled.available(), reason="no compiled kernels")
def test_odd_paths_are_compiled_up_to_a_lower_degree():
    def nequip(l_max):
        return potential(architecture="nequip", l_max=l_max, odd_paths=True, layers=3)

    assert forms(select_ops(nequip(3))) == {True}
    assert forms(select_ops(nequip(4))) == {False}
    with pytest.raises(ValueError, match="an odd sum go up to degree 4; .* stop at 3"):
        select_ops(nequip(4), "fused")


@pytest.mark.skipif(not compiled.available(), reason="no compiled kernels")
def test_products_of_three_are_not_for_the_compiled_function():
    assert engine.applies(select_ops(potential()))
    model = select_ops(potential(order=3))
    assert forms(model) == {True}  # its operators are compiled
    assert not engine.applies(model)
