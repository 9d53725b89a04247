"""How long the report's slider takes from an input event to the painted frame, at 1,000 layers."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from report import table, write

import lampq

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from browser import Browser
from records import tall_profile

_MOVES = 40
_READY = """(async () => {
    while (document.getElementById("explorer").hidden) await new Promise((next) => setTimeout(next, 20));
})()"""
# From the event to the first task after the frame that shows it.
_MOVE = """(async () => {
    const slider = document.getElementById("slider"), begun = performance.now();
    slider.value = Math.round(((%d * 7) %% 11) / 10 * slider.max);
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    const done = performance.now();
    await new Promise((next) => requestAnimationFrame(() => {
        const channel = new MessageChannel();
        channel.port1.onmessage = next;
        channel.port2.postMessage(0);
    }));
    return [done - begun, performance.now() - begun];
})()"""


def _busy(browser: Browser) -> float:
    """Seconds of processor time that the page's thread has spent: script, style, layout, painting."""
    metrics = browser.call("Performance.getMetrics")["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")


def _moved(browser: Browser, move: int) -> tuple[float, float, float]:
    """Milliseconds of the script, until the frame, and of processor time, of one move."""
    # The table of the move before has caught up by then.
    time.sleep(0.4)
    before = _busy(browser)
    script, frame = browser.evaluate(_MOVE % move)
    return script, frame, 1000 * (_busy(browser) - before)


def main() -> None:
    """Move the slider of a page of 100 and one of 1,000 layers from end to end."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        browser.look()
        for blocks in (25, 250):
            profile = tall_profile(blocks)
            plan = lampq.plan(profile, average_bits=3.5)
            page = lampq.report(plan, Path(folder) / f"{blocks}.html", profile=profile)
            plans = len(lampq.sweep(profile))
            browser.open(page)
            browser.call("Performance.enable", timeDomain="threadTicks")
            browser.evaluate(_READY)
            script, frame, busy = np.array([_moved(browser, move) for move in range(_MOVES)]).T
            rows.append(
                (
                    len(plan.layers),
                    f"{plans:,}",
                    f"{page.stat().st_size:,}",
                    f"{np.median(script):.1f}",
                    f"{np.median(busy):.1f}",
                    f"{np.quantile(busy, 0.95):.1f}",
                    f"{np.median(frame):.1f}",
                    f"{np.quantile(frame, 0.95):.1f}",
                )
            )
    columns = (
        "layers",
        "plans",
        "page, bytes",
        "script, ms",
        "processor time, ms (median)",
        "processor time, ms (95 %)",
        "painted, ms (median)",
        "painted, ms (95 %)",
    )
    text = (
        f"{_MOVES} moves of the slider, most of them over half of its length, in headless Chromium without a GPU, "
        "1200 x 900 pixels. The table of layers follows when the slider rests and is not part of this. "
        "Processor time is that of the page's thread: script, style, layout and painting. "
        f"Load of the machine meanwhile: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores."
    )
    write("report_page", "The report's slider", f"{text}\n\n{table(columns, rows)}")


if __name__ == "__main__":
    main()
