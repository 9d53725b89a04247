"""The tables of docs/formats.md, written from the schemas. Run it to bring the document up to date."""

import re
from pathlib import Path

import lampq

DOCUMENT = Path(__file__).parent.parent / "docs" / "formats.md"


def tables(name):
    """Tables of the fields of a format and of its parts, in Markdown, between two marks."""
    schema = lampq.schema(name)
    parts = [_table(schema, "the file")]
    inner = [*schema["properties"].items(), *schema["$defs"].items()]
    parts += [_table(part, f"`{title}`") for title, part in inner if "properties" in part]
    return "\n\n".join([f"<!-- {name}: begin -->", *parts, f"<!-- {name}: end -->"])


def _table(rule, title):
    lines = [f"Fields of {title}:", "", "| field | type | | meaning |", "|---|---|---|---|"]
    for field, inner in rule["properties"].items():
        needed = "required" if field in rule.get("required", ()) else ""
        lines.append(f"| `{field}` | {_kind(inner)} | {needed} | {inner['description']} |")
    return "\n".join(lines)


def _kind(rule):
    if "anyOf" in rule:
        return " or ".join(_kind(choice) for choice in rule["anyOf"])
    if "$ref" in rule:
        part = rule["$ref"].rpartition("/")[2]
        return "numbers" if part == "numbers" else f"`{part}`"
    if "const" in rule:
        return f"`{rule['const']}`"
    if "enum" in rule:
        return (
            "one of a list" if len(rule["enum"]) > 4 else " or ".join(f"`{value}`" for value in rule["enum"])
        )
    kinds = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
    text = " or ".join(kinds)
    if "items" in rule:
        inner = _kind(rule["items"]).partition(",")[0]
        text = text.replace("array", f"list of {inner}" if inner.startswith("`") else f"list of {inner}s")
    low, high = rule.get("minimum"), rule.get("maximum")
    if low is not None:
        text += f", {low} to {high}" if high is not None else f", {low} or more"
    return text


if __name__ == "__main__":
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in ("plan", "profile"):
        block = re.compile(rf"<!-- {name}: begin -->.*<!-- {name}: end -->", re.DOTALL)
        text = block.sub(lambda _, name=name: tables(name), text)
    DOCUMENT.write_text(text, encoding="utf-8")
