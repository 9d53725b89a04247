"""The house as `benchmarks/house.py` counts it: no circles, rooms of the core one way, extensions in one file each."""

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def counting():
    spec = importlib.util.spec_from_file_location("house", ROOT / "benchmarks/house.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


house = counting()
KNOWN = house.sources(None)
ARROWS = {module: set(house.imports(module, source, KNOWN)) for module, source in KNOWN.items()}


def test_no_modules_import_each_other_in_a_circle():
    assert house.circles(ARROWS) == []


def test_a_circle_is_seen():
    assert house.circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_arrows_between_the_rooms_of_the_core_point_one_way():
    pairs = {(house.room(one), house.room(other)) for one in ARROWS for other in ARROWS[one]}
    core = {(one, other) for one, other in pairs if one != other and one.startswith("lampq.core.")}
    assert core and not {pair for pair in core if pair[::-1] in core}


def test_formats_share_no_folder_of_another():
    """What several need is in `adapters` or `adapters.autograd`, which may use PyTorch's."""
    for one in ("onnx", "tflite"):
        others = {other for module in ARROWS if f".adapters.{one}" in module for other in ARROWS[module]}
        strange = {
            o for o in others for f in ("onnx", "tflite", "torch") if f != one and f".adapters.{f}" in o
        }
        assert not strange, one


@pytest.mark.parametrize("change", house.EXTENSIONS)
def test_an_extension_is_one_file_that_uses_public_names_alone(change):
    example, group = house.EXTENSIONS[change]
    source = (ROOT / example).read_text(encoding="utf-8")
    assert group.removeprefix("lampq.") in source or "register" in source
    assert not [name for name in house.lampq_imports(source) if "._" in name]
    assert source.count("\n") < 150


def test_no_function_has_more_parameters_than_one_can_hold():
    """Records hold what belongs together; their own constructors may be as wide as they are."""
    wide = {}
    for module, source in KNOWN.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                names = [
                    each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                ]
                wide[f"{module}.{node.name}"] = len(names) - (names[:1] in (["self"], ["cls"]))
    assert len(wide) > 2000
    assert not [name for name, count in wide.items() if count > 8]
