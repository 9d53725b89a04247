"""What hostile PyTorch files hold: programs, pickles, checkpoints and weights with harm in them."""

import io
import json
import pickle
import re
import struct
import warnings
import zipfile

import numpy as np
import torch


class Harm:
    """Unpickled, it leaves a file."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return (open, (self.canary, "w"))


def write_program(path):
    """A small program with weights, a buffer, and a free batch."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(144, 5)
    ).eval()
    shapes = ({0: torch.export.Dim("samples")},)
    torch.export.save(torch.export.export(net, (torch.ones(2, 3, 8, 8),), dynamic_shapes=shapes), path)
    return path


def rewritten(program, path, change, extra=()):
    """A copy of an archive with `change(inner name, content)` applied to its members, and more of them."""
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(path, "w") as new, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            new.writestr(name, change(name.partition("/")[2], old.read(name)))
        for name, content in extra:
            new.writestr(f"{root}/{name}", content)
    return path


def _same(name, content):
    return content


def _replacing(member, content):
    return lambda name, old: content if name == member else old


def _editing(member, edit):
    def change(name, content):
        if name != member:
            return content
        document = json.loads(content)
        edit(document)
        return json.dumps(document)

    return change


GRAPH_MEMBER, WEIGHTS_MEMBER, _CONSTANTS = (
    "models/model.json",
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
)
_LEGACY = ("data/weights/model.pt", "data/constants/model.pt")
# A type of container whose description names a module, which is imported.
_DEFAULTDICT = json.dumps(
    [
        1,
        {
            "type": "collections.defaultdict",
            "context": json.dumps(
                {"default_factory_module": "canary_module", "default_factory_name": "x", "dict_context": []}
            ),
            "children_spec": [],
        },
    ]
)
_ENUMERATION = json.dumps(
    [
        1,
        {
            "type": "builtins.dict",
            "context": json.dumps([{"__enum__": True, "fqn": "canary_module:X", "name": "x"}]),
            "children_spec": [{"type": None, "context": None, "children_spec": []}],
        },
    ]
)


def _pickled_weights(config, content):
    def change(name, old):
        if name == WEIGHTS_MEMBER:
            return config
        return content if name.startswith("data/weights/weight_") else old

    return change


def _root(document):
    return document["graph_module"]["module_call_graph"][0]["signature"]


def _node(document):
    return document["graph_module"]["graph"]["nodes"][0]


def programs(program, canary):
    """(name, bytes of a hostile archive) of exported programs."""
    harm, code = pickle.dumps(Harm(canary)), f"open({str(canary)!r}, 'w')"
    saved = io.BytesIO()
    torch.save({"w": Harm(canary)}, saved)
    with zipfile.ZipFile(program) as archive:
        root = archive.namelist()[0].partition("/")[0]
        members = [name.partition("/")[2] for name in archive.namelist()]
        config = json.loads(archive.read(f"{root}/{WEIGHTS_MEMBER}"))
    pickled = json.loads(json.dumps(config))
    for record in pickled["config"].values():
        record["use_pickle"] = True
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": False, "tensor_meta": None}
    objects = {
        kind: {"config": {"c": {**entry, "path_name": f"{kind}_0"}}} for kind in ("opaque_obj", "custom_obj")
    }

    for form, content in (("plain", harm), ("saved", saved.getvalue())):
        for member in members:
            yield f"{form} pickle as {member}", _replacing(member, content), ()
        for member in _LEGACY:
            yield f"{form} pickle added as {member}", _same, [(member, content)]
            yield f"{form} pickle added as {member.upper()}", _same, [(member.upper(), content)]
        weight = _pickled_weights(json.dumps(pickled), content)
        yield f"{form} pickled weights", weight, ()
        yield f"{form} two configurations", weight, [(WEIGHTS_MEMBER, json.dumps(config))]
        for spelling in (WEIGHTS_MEMBER.replace(".json", ".JSON"), WEIGHTS_MEMBER.title()):
            tensors = _pickled_weights(json.dumps(config), content)
            yield f"{form} {spelling}", tensors, [(spelling, json.dumps(pickled))]
        for kind, constants in objects.items():
            yield (
                f"{form} {kind}",
                _replacing(_CONSTANTS, json.dumps(constants)),
                [(f"data/constants/{kind}_0", content)],
            )
        yield f"{form} nested archive", _same, [("models/other.json", content), ("extra/x.pkl", content)]
    yield "compiled code", _same, [("data/aotinductor/model/x.so", b"\x7fELF")]
    yield "path out", _same, [("../../x", b"")]
    for field in ("in_spec", "out_spec"):
        for spec in (_DEFAULTDICT, _ENUMERATION):
            yield (
                f"{field} {spec[:40]}",
                _editing(GRAPH_MEMBER, lambda d, f=field, s=spec: _root(d).update({f: s})),
                (),
            )
    arguments = f"x={code}"
    yield (
        "argument names",
        _editing(GRAPH_MEMBER, lambda d: _root(d).update(forward_arg_names=[arguments])),
        (),
    )

    def keywords(document):
        spec = json.loads(_root(document)["in_spec"])
        arguments, options = spec[1]["children_spec"]
        options["context"] = json.dumps([f"x={code}"])
        options["children_spec"], arguments["children_spec"] = arguments["children_spec"], []
        _root(document).update(in_spec=json.dumps(spec), forward_arg_names=None)

    yield "keyword arguments", _editing(GRAPH_MEMBER, keywords), ()
    for name in (f"x = {code}; y", "a.__class__", "torch.load", "__import__"):
        yield f"name {name}", _editing(GRAPH_MEMBER, lambda d, n=name: _node(d).update(name=n)), ()
    for target in (
        *(
            "torch.os.system",
            "torch.load",
            "_operator.attrgetter",
            "_operator.methodcaller",
            "math.__loader__",
        ),
        *("torch.ops.aten.from_file.default", "torch.ops.aten.conv2d.__class__", "torch.ops.load_library"),
        *("torch.ops.higher_order.aoti_call_delegate", "torch.ops.higher_order.trace_wrapped", "#x:y", code),
        *("torch.ops.aten._nested_view_from_buffer.default", "torch.hub.load", "torch.ops.aten.conv2d.op"),
        "torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default",
    ):
        yield f"target {target}", _editing(GRAPH_MEMBER, lambda d, t=target: _node(d).update(target=t)), ()
    for formula in (
        code,
        "9**9**9**9",
        "s0.__class__",
        "Pow(Pow(9, 99999999), 99999999)",
        "Symbol('x').func",
        "(" * 500,
    ):
        yield f"formula {formula}", _everywhere("expr_str", formula), ()
    yield "guards", _editing(GRAPH_MEMBER, lambda d: d.update(guards_code=[code])), ()
    yield (
        "sizes",
        _editing(WEIGHTS_MEMBER, lambda d: _first_meta(d).update(sizes=[{"as_int": 1 << 40}] * 4)),
        (),
    )
    yield (
        "strides",
        _editing(WEIGHTS_MEMBER, lambda d: _first_meta(d).update(strides=[{"as_int": 1 << 40}] * 4)),
        (),
    )
    yield "empty weights", lambda n, o: b"" if n.startswith("data/weights/weight") else o, ()
    yield (
        "a million symbols",
        _editing(
            GRAPH_MEMBER,
            lambda d: d["range_constraints"].update({f"u{10**15}": {"min_val": 0, "max_val": 9}}),
        ),
        (),
    )
    yield "deep JSON", _replacing(GRAPH_MEMBER, "[" * 200_000), ()
    yield "long JSON", _replacing(GRAPH_MEMBER, "[" + "[]," * 6_000_000 + "[]]"), ()


def _first_meta(document):
    return next(iter(document["config"].values()))["tensor_meta"]


def _everywhere(field, text):
    pattern = re.compile(rf'("{field}": )"(?:[^"\\]|\\.)*"')
    return lambda name, old: (
        pattern.sub(lambda m: m[1] + json.dumps(text), old.decode()) if name == GRAPH_MEMBER else old
    )


def _global(name):
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def pickles(canary):
    """(name, pickle) of checkpoints; protocol 2, as torch writes."""
    text = str(canary).encode()
    unicode = b"X" + struct.pack("<I", len(text)) + text
    mode = b"X\x01\x00\x00\x00w"
    yield "open", b"\x80\x02" + _global("io.open") + unicode + mode + b"\x86R."
    yield "harm", pickle.dumps(Harm(canary), protocol=2)
    address = b"\x8a\x08" + struct.pack("<q", 0x41414141)
    for core in ("numpy.core", "numpy._core"):
        # An array of objects whose buffer the file supplies: pointers that are followed.
        dtype = _global("numpy.dtype") + b"X\x01\x00\x00\x00O\x85R"
        buffer = _global("_codecs.encode") + b"X\x08\x00\x00\x00AAAAAAAAX\x06\x00\x00\x00latin1\x86R"
        direct = _global("numpy.ndarray") + b"(K\x01\x85" + dtype + buffer + b"tR"
        yield f"{core} raw memory", b"\x80\x02}X\x01\x00\x00\x00a" + direct + b"s."
        yield (
            f"{core} raw object",
            b"\x80\x02}X\x01\x00\x00\x00a"
            + _global(f"{core}.multiarray.scalar")
            + (dtype + buffer + b"\x86R")
            + b"s.",
        )
        made = _global(f"{core}.multiarray._reconstruct") + _global("numpy.ndarray") + b"K\x00\x85C\x01b\x87R"
        state = b"(K\x01K\x01\x85" + dtype + b"\x89" + buffer + b"tb"
        yield f"{core} state", b"\x80\x02}X\x01\x00\x00\x00a" + made + state + b"s."
        yield (
            f"{core} strides",
            b"\x80\x02}X\x01\x00\x00\x00a"
            + _global("numpy.ndarray")
            + (b"(K\x01\x85" + dtype + b"N" + address + b"tR")
            + b"s.",
        )
    yield "bytearray", b"\x80\x02" + _global("__builtin__.bytearray") + b"\x8a\x05\x00\x00\x00\x00\x02\x85R."
    yield "bytearray new", b"\x80\x02" + _global("builtins.bytearray") + b"\x8a\x05\x00\x00\x00\x00\x02\x85R."
    yield (
        "storage",
        b"\x80\x02" + _global("torch.storage.UntypedStorage") + b"\x8a\x06" + b"\xff" * 5 + b"\x7f\x85R.",
    )
    yield "tensor", b"\x80\x02" + _global("torch.FloatTensor") + b"\x8a\x06" + b"\xff" * 5 + b"\x7f\x85R."
    yield "overlong", b"\x80\x02" + b"]" * 3_000_000 + b"."
    yield "deep", b"\x80\x02" + b"]" * 400_000 + b"a" * 399_999 + b"."
    yield "long text", b"\x80\x02X\xff\xff\xff\xff."
    yield "memo", b"\x80\x02Nr\xff\xff\xff\xff."
    yield "dots", b"\x80\x02}X" + struct.pack("<I", 1_000_000) + b"." * 1_000_000 + b"Ns."
    yield "nothing", b"\x80\x02."


def _in_archive(content, compress=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compress) as archive:
        for name, text in (
            ("data.pkl", content),
            ("version", "3\n"),
            ("byteorder", "little"),
            ("data/0", b"x" * 64),
        ):
            archive.writestr(f"archive/{name}", text)
    return buffer.getvalue()


def checkpoints(canary):
    """(name, bytes of a hostile checkpoint)."""
    # Magic number, protocol, what the machine was like; then the object and the keys of its storages.
    head = b"".join(
        pickle.dumps(part, protocol=2)
        for part in (
            0x1950A86A20F9469CFC6C,
            1001,
            {"protocol_version": 1001, "little_endian": True, "type_sizes": {}},
        )
    )
    for name, content in pickles(canary):
        yield f"zip {name}", _in_archive(content)
        yield f"old {name}", head + content + pickle.dumps([], protocol=2)
        yield f"bare {name}", content
    yield "zip bomb", _in_archive(b"\x80\x02" + b"]" * 20_000_000 + b".", zipfile.ZIP_DEFLATED)
    circle = {}
    circle.update(model=circle, x={"w": torch.ones(2)})
    wide = {"w": {str(n): 0 for n in range(300)}}
    for _ in range(4):
        wide = {str(n): wide for n in range(300)}
    strange = {
        "circle": circle, "wide": wide, "sparse": {"w": torch.ones(2).to_sparse()},
        "meta": {"w": torch.ones(2, device="meta")}, "lines": {"a\n" * 400: torch.ones(2)},
        "repeated": {"w": torch.ones(1).expand(1 << 40)}, "complex": {"weight": torch.ones(3, 4) + 1j},
        "dots": {"." * 100_000: torch.ones(1)}, "text": {"weight": "x"}, "numpy": {"weight": np.ones((3, 4))},
        "many": {f"n.{n}": torch.ones(1) for n in range(3000)},
    }  # fmt: skip
    for name, content in strange.items():
        buffer = io.BytesIO()
        torch.save(content, buffer)
        yield name, buffer.getvalue()


def safetensors(weights):
    """(name, bytes of a damaged .safetensors file)."""
    size = struct.unpack("<Q", weights[:8])[0]
    rest = weights[8 + size :]
    empty = {"dtype": "F32", "data_offsets": [0, 0]}
    for name, header in {
        "deep": b"[" * 1_000_000, "long": b'{"a":1,' + b" " * 30_000_000 + b"}",
        "many": json.dumps({f"x{n}": dict(empty, shape=[0]) for n in range(200_000)}).encode(),
        "huge": json.dumps({"weight": dict(empty, shape=[1 << 62, 4])}).encode(),
    }.items():  # fmt: skip
        yield name, struct.pack("<Q", len(header)) + header + rest
    yield "length", struct.pack("<Q", 1 << 63) + weights[8:]
