"""The schema of TFLite files as the installed ai-edge-litert knows it, in the notation of
`lampq.adapters.tflite.schema`.

Run as a script it prints that text: the way to take over a newer schema.
"""

import inspect
import re

from ai_edge_litert import schema_py_generated as generated

_SCALARS = {
    "Bool": "?", "Int8": "b", "Uint8": "B", "Int16": "h", "Uint16": "H", "Int32": "i", "Uint32": "I",
    "Int64": "q", "Uint64": "Q", "Float32": "f", "Float64": "d",
}  # fmt: skip
UNIONS = ("QuantizationDetails", "SparseIndexVector", "BuiltinOptions", "BuiltinOptions2")
_OF_UNION = {
    "Details": "QuantizationDetails",
    "ArraySegments": "SparseIndexVector",
    "ArrayIndices": "SparseIndexVector",
    "BuiltinOptions": "BuiltinOptions",
    "BuiltinOptions2": "BuiltinOptions2",
}


def snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _field(name, body):
    """Type and default of one accessor from its source."""
    if "_tab.Union(" in body:
        return f"<{_OF_UNION[name]}>"
    if "_tab.String(" in body:
        return "[s]" if "_tab.Vector(" in body else "s"
    scalar = re.search(r"_tab\.Get\(flatbuffers\.number_types\.(\w+)Flags", body)
    table = re.search(r"obj = (\w+)\(\)", body)
    if table:
        return f"[{table[1]}]" if "_tab.Vector(" in body else table[1]
    code = _SCALARS[scalar[1]]
    if "_tab.Vector(" in body:
        return f"[{code}]"
    default = re.findall(r"return (\S+)$", body, re.MULTILINE)[-1]
    plain = {"False": "", "0": "", "0.0": "", "True": "=1"}.get(default)
    return code + (f"={default}" if plain is None else plain)


def tables(source=None):
    """Table name -> fields by slot, each (name, type)."""
    source = source or inspect.getsource(generated)
    found = {}
    for block in re.split(r"^class ", source, flags=re.MULTILINE)[1:]:
        name = block[: block.index("(")]
        if (name.endswith("T") and f"{name[:-1]}(object)" in source) or "_tab" not in block:
            continue
        slots = {}
        for method in re.split(r"^    def ", block.split("\ndef ")[0], flags=re.MULTILINE)[1:]:
            title = method[: method.index("(")]
            offset = re.search(r"_tab\.Offset\((\d+)\)", method)
            if not offset or re.search(r"(AsNumpy|Length|IsNone)$", title):
                continue
            slots[(int(offset[1]) - 4) // 2] = (snake(title), _field(title, method))
        size = max(slots, default=-1) + 1
        found[name] = [slots.get(slot, ("-", "")) for slot in range(size)]
    return found


def enum(name):
    """Names of an enumeration by value."""
    members = vars(getattr(generated, name))
    return {
        value: key for key, value in members.items() if isinstance(value, int) and not key.startswith("_")
    }


def text():
    lines = []
    for name, fields in sorted(tables().items()):
        lines.append(
            " ".join([name, *(field if field == "-" else f"{field}:{kind}" for field, kind in fields)])
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(text())
    for union in (*UNIONS, "TensorType", "BuiltinOperator"):
        print(union, " ".join(f"{value}:{key}" for value, key in sorted(enum(union).items())))
