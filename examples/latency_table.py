"""A latency table of one's own: the time that each layer takes at each width decides along with the damage.

The times here come from a simple model of a chip that waits for its weights. Put measured ones in their place.
Needs lampq[onnx]. Writes into the current folder: python examples/latency_table.py
"""

from __future__ import annotations

import csv
from pathlib import Path

import lampq
from lampq.core.allocating.cost_csv import read_cost_table
from lampq.demo_data import MODEL_PATH, calibration

BYTES_PER_US = 800
OVERHEAD_US = 1.5
# On this chip 3, 5, 6 and 7 bits are unpacked by slower code.
SLOWER = {2: 1.0, 3: 1.6, 4: 1.0, 5: 1.6, 6: 1.6, 7: 1.6, 8: 1.0}


def write_table(profile: lampq.Profile, path: Path) -> None:
    """One line per layer and width."""
    with path.open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["layer", "weight_bits", "latency_us"])
        for layer in profile.layers:
            for bits in profile.weight_bits.tolist():
                waiting = SLOWER[bits] * layer.size * bits / 8 / BYTES_PER_US
                table.writerow([layer.name, bits, f"{OVERHEAD_US + waiting:.2f}"])


def main() -> None:
    profile = lampq.profile(lampq.read(MODEL_PATH), calibration()[:64], fisher_draws=0)
    write_table(profile, Path("latency.csv"))
    for limit in ("120us", "100us"):
        table = read_cost_table("latency.csv", limit=limit)
        plan = lampq.plan(profile, budget=lampq.Budget(tables=(table,)))
        widths = [layer.weight_bits for layer in plan.layers]
        counts = ", ".join(f"{widths.count(bits)} x {bits}" for bits in sorted(set(widths)))
        print(
            f"{limit}: {plan.average_bits:.2f} bits on average ({counts}), predicted {plan.predicted_kl:.4f} nats"
        )


if __name__ == "__main__":
    main()
