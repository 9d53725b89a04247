"""A folder of hostile files, and the commands that open them.

Each of them ran code, crashed, hung, filled the memory or drove the terminal in some program, if not in this one.
"""

import hashlib
import json
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from hostile_graphs import onnx_files
from hostile_images import images
from hostile_parts import ESCAPES, Exploit, array_header, onnx_file, profile_with, weight_of
from onnx import helper
from records import make_profile
from tflite_models import fixture

import lampq


def write_all(folder):
    """All files: name -> words of the command that opens it; `canary` in the folder exists once code ran."""
    commands = {}
    for write in (sound, onnx_files, data_files, profiles, texts, images, configurations):
        commands.update(write(folder))
    return commands


def sound(folder):
    """What the others need beside them; whatever else is refused, these are read."""
    onnx_file(folder / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], [weight_of()])
    np.savez(folder / "x.npz", x=np.zeros((4, 64), np.float32))
    profile = make_profile()
    profile.write(folder / "profile.json")
    lampq.plan(profile, average_bits=4).write(folder / "plan.json")
    (folder / "vit.tflite").write_bytes(fixture("vit").read_bytes())
    rows = "".join(f"*,{bits},0.1\n" for bits in range(2, 9))
    (folder / "rows.csv").write_text(f"layer,weight_bits,latency_ms\n{rows}")
    return {
        "m.onnx": ["inspect", "m.onnx"],
        "x.npz": profile_with("x.npz"),
        "profile.json": ["inspect", "profile.json"],
        "plan.json": ["inspect", "plan.json"],
        "vit.tflite": ["inspect", "vit.tflite"],
        "rows.csv": _plan_with("rows.csv"),
    }


def _plan_with(table, *more):
    words = ["plan", "profile.json", "--avg-bits", "4", "--latency", table, "--max-latency", "9ms"]
    return [*words, *more, "-o", "out.json", "--force"]


def _archive(path, members, *, claim=None):
    """An archive of (name, content); `claim` is the expanded size that its tables state of the first member."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members:
            archive.writestr(name, content)
    if claim is not None:
        size = struct.pack("<I", len(members[0][1]))
        path.write_bytes(path.read_bytes().replace(size, struct.pack("<I", claim)))


def _bomb(path, name, shape):
    """A true bomb: an array of zeros, each 16 MiB of which are the same few bytes."""
    header, block = array_header(shape), bytes(1 << 24)
    count = 4 * shape[0] * shape[1] >> 24
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(header) + packer.flush(zlib.Z_FULL_FLUSH)
    repeated = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = start + repeated * count + packer.flush(zlib.Z_FINISH)
    size = min(len(header) + (count << 24), 0xFFFFFFFE)
    checks = struct.pack("<III", 0, len(packed), size)
    label, zeros = name.encode(), bytes(4)
    local = (
        b"PK\x03\x04"
        + struct.pack("<HHH", 20, 0, 8)
        + zeros
        + checks
        + struct.pack("<HH", len(label), 0)
        + label
    )
    entry = b"PK\x01\x02" + struct.pack("<HHHH", 20, 20, 0, 8) + zeros + checks
    entry += struct.pack("<HHHHHII", len(label), 0, 0, 0, 0, 0, 0) + label
    table = len(local) + len(packed)
    end = b"PK\x05\x06" + zeros + struct.pack("<HHIIH", 1, 1, len(entry), table, 0)
    path.write_bytes(local + packed + entry + end)


def data_files(folder):
    """Archives of samples."""
    _bomb(folder / "bomb.npz", "x.npy", (1 << 24, 64))
    _archive(folder / "promise.npz", [("x.npy", array_header((1 << 34, 64)) + bytes(256))])
    _archive(folder / "endless_axis.npz", [("x.npy", array_header((1 << 60, 0)))])
    _archive(folder / "negative.npz", [("x.npy", array_header((-1, 64)) + bytes(256))])
    _archive(
        folder / "lying.npz", [("x.npy", array_header((1 << 24, 64)) + bytes(1 << 20))], claim=0xFFFFFFF0
    )
    classes = array_header((1 << 50,), "<U0")
    _archive(
        folder / "classes.npz", [("x.npy", array_header((4, 64)) + bytes(1024)), ("classes.npy", classes)]
    )
    _archive(folder / "members.npz", [(f"{i}.npy", b"") for i in range(60_000)])
    exploit = pickle.dumps(Exploit(folder / "canary"))
    _archive(folder / "pickle.npz", [("x.npy", array_header((4, 64), "|O") + exploit)])
    _archive(folder / "raw_pickle.npz", [("x", exploit)])
    _archive(folder / "names.npz", [(f"{ESCAPES}.npy", array_header((4,)) + bytes(16))])
    (folder / "pickled.npz").write_bytes(exploit)
    with zipfile.ZipFile(folder / "lzma.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", array_header((1 << 20, 8)) + bytes(1 << 25))
    os.mkfifo(folder / "pipe.npz")
    (folder / "device.npz").symlink_to("/dev/zero")
    return {
        path.name: profile_with(path.name)
        for path in folder.glob("*.npz")
        if path.stem not in ("x", "profile")
    }


def profiles(folder):
    """Profiles with arrays that are no good."""
    text = (folder / "profile.json").read_text()
    name, digest = "profile.npz", json.loads(text)["arrays"]["sha256"]
    _bomb(folder / "p_bomb.bin", "kl.npy", (1 << 27, 64))
    _archive(folder / "p_promise.bin", [("kl.npy", array_header((1 << 40, 7)))])
    _archive(
        folder / "p_pickle.bin",
        [("kl.npy", array_header((4, 7), "|O") + pickle.dumps(Exploit(folder / "canary")))],
    )
    os.mkfifo(folder / "p_pipe.bin")
    (folder / "p_device.bin").symlink_to("/dev/zero")
    commands = {}
    for arrays in sorted(folder.glob("p_*.bin")):
        own = hashlib.sha256(arrays.read_bytes()).hexdigest() if arrays.is_file() else digest
        path = folder / f"{arrays.stem}.json"
        path.write_text(text.replace(name, arrays.name).replace(digest, own))
        commands[path.name] = ["inspect", path.name]
    return commands


# Text


def texts(folder):
    """Profiles, plans and tables whose text is the trouble."""
    plan, profile = (json.loads((folder / f"{name}.json").read_text()) for name in ("plan", "profile"))

    def changed(source, **values):
        return json.dumps({**source, **values})

    deep = json.loads("[" * 500 + "]" * 500)
    long_name = [{**plan["layers"][0], "name": "a" * 3_000_000}]
    escaped = [{**layer, "name": layer["name"] + ESCAPES + "[/]"} for layer in plan["layers"]]
    named = [{**layer, "name": "a" * 60 + layer["name"]} for layer in profile["layers"]]
    pinned = {**plan["budget"], "pins": ["*a" * 400 + "=4"], "ties": ["{*a,*a}" * 100]}
    files = {
        "j_deep.json": "[" * 200_000,
        "j_nested.json": changed(plan, provenance={"deep": deep}),
        "j_wide.json": "[" + "[]," * 2_000_000 + "[]]",
        "j_values.json": "[" + "1," * 6_000_000 + "1]",
        "j_number.json": changed(plan, rest_bytes=1).replace(
            '"rest_bytes": 1', f'"rest_bytes": {"9" * 5000}'
        ),
        "j_large.json": changed(plan, rest_bytes=10**4000),
        "j_huge.json": changed(plan, predicted_kl=10**400),
        "j_name.json": changed(plan, layers=long_name),
        "j_escapes.json": changed(plan, layers=escaped, notes=[ESCAPES], mode="kl"),
        "j_schema.json": changed(plan, schema=ESCAPES),
        "j_surrogates.json": changed(plan, notes=["\ud800"]),
        "j_pins.json": changed(plan, budget=pinned),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    os.mkfifo(folder / "j_pipe.json")
    (folder / "j_device.json").symlink_to("/dev/zero")
    commands = {name: ["inspect", name] for name in [*files, "j_pipe.json", "j_device.json"]}
    commands["j_pins.json"] = ["inspect", "j_pins.json", "--why", "--profile", "profile.json"]
    (folder / "n_names.json").write_text(changed(profile, layers=named))
    for index, pattern in enumerate(["*a" * 60 + "b", "{*a,*a}" * 60 + "b", "{a,aa}" * 200 + "b"]):
        for flag, text in (("--tie", pattern), ("--pin", f"{pattern}=4")):
            words = ["plan", "n_names.json", "--avg-bits", "4", flag, text]
            commands[f"pattern {index} {flag}"] = [*words, "-o", "out.json", "--force"]
    return {**commands, **_tables(folder)}


def _tables(folder):
    head = "layer,weight_bits,latency_ms\n"
    files = {
        "line.csv": head + "a" * 5_000_000,
        "lines.csv": head + "a,4,1\n" * 1_000_000,
        "commas.csv": head + "," * 5_000_000,
        "number.csv": head + f"fc1,4,{'9' * 1500}\n",
        "limit.csv": f"# limit: {'1' * 200_000} \x00 x\n{head}fc1,4,1\n",
        "digits.csv": head + f"fc1,{'4' * 1000},1\n",
        "escapes.csv": head + f"fc1,{ESCAPES},1\n",
        "stars.csv": head + "*a" * 400 + ",4,1\n",
        "nul.csv": head + "\x00,4,1\n",
        "quote.csv": head + '"' + "\n" * 1000,
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "binary.csv").write_bytes(bytes(range(256)) * 10)
    os.mkfifo(folder / "pipe.csv")
    (folder / "device.csv").symlink_to("/dev/zero")
    return {path.name: _plan_with(path.name) for path in folder.glob("*.csv") if path.name != "rows.csv"}


# Configurations of other tools


def configurations(folder):
    """Expressions that never end, and documents that are too much."""
    slow = [
        "(a+)+$",
        "(a|a)*b",
        "(?:a?){60}a{60}",
        "([a-z.0-9]+)*!",
        "(.*)*(.*)*(.*)*x",
        "(?:a{1,9999}){1,9999}",
    ]
    files = {
        ("torchao", "c_torchao.json"): _torchao({f"re:{text}": _WIDTH for text in slow}),
        ("torchao", "c_default.json"): _torchao({"re:([a-z.0-9]+)*!": None, "_default": _WIDTH}),
        ("compressed-tensors", "c_groups.json"): {
            "config_groups": {"g": {"weights": {"num_bits": 4}, "targets": [f"re:{text}" for text in slow]}}
        },
        ("ai-edge", "c_recipe.json"): [
            {"regex": text.replace("a", "[a-z/0-9]"), "operation": "*", "op_config": {}} for text in slow
        ],
        ("modelopt", "c_modelopt.json"): {
            "quant_cfg": [{"quantizer_name": "*a" * 300 + str(i), "enable": False} for i in range(2000)]
        },
        ("nncf", "c_nncf.json"): {
            "compress_weights": [{"mode": "int4_sym", "nodes": [f"n{i}" for i in range(99_999)]}]
        },
        ("aimet", "c_aimet.json"): {"param_encodings": {ESCAPES: [{"bitwidth": 4}]}},
    }
    commands = {}
    for (tool, name), data in files.items():
        (folder / name).write_text(json.dumps(data))
        commands[name] = _convert(name, tool)
    (folder / "c_deep.json").write_text('{"a":' * 100_000)
    (folder / "c_rows.csv").write_text("layer,weight_bits\n" + "a,4\n" * 2_000_000)
    (folder / "c_cells.csv").write_text("layer,weight_bits" + "," * 4_000_000 + "\n")
    os.mkfifo(folder / "c_pipe.json")
    for name, tool in (
        ("c_deep.json", "torchao"),
        ("c_pipe.json", "aimet"),
        ("c_rows.csv", "csv"),
        ("c_cells.csv", "csv"),
    ):
        commands[name] = _convert(name, tool)
    return commands


_WIDTH = {"_type": "IntxWeightOnlyConfig", "_data": {"weight_dtype": {"_data": "int4"}}}


def _torchao(entries):
    return {"_type": "FqnToConfig", "_data": {"fqn_to_config": entries}}


def _convert(name, tool):
    reference = {"ai-edge": ("--model", "vit.tflite"), "nncf": ("--model", "m.onnx")}.get(
        tool, ("--profile", "profile.json")
    )
    return ["convert", name, "--from", tool, *reference, "-o", "out.json", "--force"]


def mutable(folder):
    """Names of the files worth damaging: small and regular."""
    names = [path.name for path in Path(folder).iterdir() if path.is_file() and not path.is_symlink()]
    return sorted(name for name in names if (Path(folder) / name).stat().st_size < 1 << 16)
