"""Comparing the numbers of two versions bit by bit."""

import json

from benchmarks.same_numbers import main


def test_a_model_has_the_same_numbers_twice_and_one_bit_is_noticed(small_model, tmp_path, capsys):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    for path in (first, second):
        assert main(["dump", str(small_model), "-o", str(path)]) == 0
    assert main(["compare", str(first), str(second)]) == 0
    assert "1 models, 278 numbers: all equal to the last bit" in capsys.readouterr().out
    content = json.loads(second.read_text())
    forces = content["models"]["small"]["fused"]["rattled"]["forces"]
    value = float.fromhex(forces[3])
    forces[3] = (value * (1 + 2**-52)).hex()
    second.write_text(json.dumps(content))
    assert main(["compare", str(first), str(second)]) == 1
    assert "small: fused, rattled, forces differs by" in capsys.readouterr().out


def test_other_models_are_not_compared(small_model, stable_model, tmp_path, capsys):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    main(["dump", str(small_model), "-o", str(first)])
    renamed = tmp_path / "small.safetensors"
    renamed.write_bytes(stable_model.read_bytes())
    main(["dump", str(renamed), "-o", str(second)])
    assert main(["compare", str(first), str(second)]) == 1
    assert "small: not the same model file" in capsys.readouterr().out
