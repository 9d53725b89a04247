"""Products of two activations, such as those of attention: how each factor is rounded."""

from __future__ import annotations

from lampq.core.values.fitted import Fitted
from lampq.core.values.plan_product import PlanProduct
from lampq.page.figure import section
from lampq.page.findings import Findings
from lampq.page.markup import count, name, number, safe, short

# Rows that a page has room for, and characters of a sentence.
_MOST, _WHY = 250, 160
_COLUMNS = ("product", "left factor", "right factor", "damage", "why")


def products_section(findings: Findings) -> str:
    """The table; nothing where a plan leaves products alone."""
    products = findings.plan.products
    if not products:
        return ""
    head = "".join(f"<th scope=col>{title}" for title in _COLUMNS)
    table = (
        '<div class="scroll" tabindex="0" role="region" aria-label="Products">'
        '<table class="figures worded" aria-labelledby="products-title">'
        f"<thead><tr>{head}<tbody>{''.join(map(_row, products[:_MOST]))}</table></div>"
    )
    return section("products", "Products of activations", _lead(products), table, of_this_plan=True)


def _lead(products: tuple[PlanProduct, ...]) -> str:
    sides = [(product.product.left_values, product.left) for product in products]
    sides += [(product.product.right_values, product.right) for product in products]
    rounded = [(values, fitted.bits) for values, fitted in sides if fitted is not None]
    total = sum(values for values, _ in rounded)
    average = (
        f", {sum(v * bits for v, bits in rounded) / total:.3g} bits on average over their values"
        if total
        else ""
    )
    more = f" Shown are the first {_MOST}; the plan file has all." if len(products) > _MOST else ""
    return (
        f"Attention multiplies activations with each other: queries with keys, probabilities with values. "
        f"{count(len(products))} such products, {len(rounded)} of their {2 * len(products)} factors rounded{average}. "
        f"Damage is what a product is predicted to lose alone, in nats.{more}"
    )


def _row(decision: PlanProduct) -> str:
    return (
        f"<tr><th scope=row>{name(decision.name)}<td>{_factor(decision.left)}<td>{_factor(decision.right)}"
        f"<td>{number(decision.predicted_kl)}<td>{safe(short(decision.why, _WHY))}"
    )


def _factor(fitted: Fitted | None) -> str:
    return "float" if fitted is None else f"<b>{fitted.bits}</b> {safe(fitted.tag)}"
