"""Where Fisher traces come from: names that measurements and profiles carry."""

from __future__ import annotations

TRUE, EMPIRICAL, FORWARD = "true", "empirical", "forward"
KINDS = (TRUE, EMPIRICAL, FORWARD)
"""Labels drawn from the model's predictions, labels of the data, and no labels and no gradients at all."""
