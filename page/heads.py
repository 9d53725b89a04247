"""What damage is judged by: the outputs of the model and what they mean."""

from __future__ import annotations

from lampq.page.figure import section
from lampq.page.findings import Findings
from lampq.page.markup import name, plain, safe, short

_MOST = 100


def heads_section(findings: Findings) -> str:
    """A row for each output; nothing where none was judged."""
    heads = () if findings.around is None else findings.around.heads
    judged = sum(head.judged for head in heads)
    if not judged:
        return ""
    lead = (
        "Damage is what this output loses."
        if judged == 1
        else f"Damage is the sum over {judged} outputs, each times its weight."
    )
    rows = "".join(
        f"<tr><th scope=row>{name(head.name)}<td>{safe(head.role)}"
        f"<td>{plain(head.weight) if head.judged else '–'}<td>{safe(short(head.reason or 'as asked for'))}"
        for head in heads[:_MOST]
    )
    table = (
        '<div class="scroll" tabindex="0" role="region" aria-label="Outputs"><table class="figures worded" '
        'aria-labelledby="outputs-title"><thead>'
        f"<tr><th scope=col>output<th scope=col>role<th scope=col>weight<th scope=col>why<tbody>{rows}</table></div>"
    )
    return section("outputs", "What is judged", lead, table)
