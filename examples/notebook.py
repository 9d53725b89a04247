"""What a notebook shows, cell by cell (`# %%` opens it as one in editors that know the mark).

Needs lampq[onnx,plot]. Run as a script it writes the same tables and pictures into notebook.html.
"""

# %% A profile of the bundled model
import base64
from pathlib import Path

import lampq
from lampq.console.progress import progress_bar
from lampq.demo_data import MODEL_PATH, calibration, validation

model = lampq.read(MODEL_PATH)
# In a notebook the bar shows below the cell, in a terminal on its last line, elsewhere not at all.
with progress_bar(enabled=True) as progress:
    profile = lampq.profile(model, calibration()[:8], bits=(2, 3, 4, 8), progress=progress)
cells = [profile, lampq.plot(profile)]

# %% A plan of three bits
plan = lampq.plan(profile, average_bits=3, mode="kl")
cells += [plan, lampq.plot(plan)]

# %% Every other budget
points = lampq.sweep(profile, mode="kl")
cells += [lampq.plot(points)]

# %% What it does to images that the search did not see
inputs, labels = validation()
evaluation = lampq.evaluate(model, inputs[:64], labels[:64], plan=plan, reference=model)
cells += [evaluation, lampq.plot(evaluation)]


# %% The same as a page, for those without a notebook
def shown(cell: object) -> str:
    """What a notebook would show of it."""
    if hasattr(cell, "_repr_png_"):
        return f'<img src="data:image/png;base64,{base64.b64encode(cell._repr_png_()).decode()}">'
    return cell._repr_html_()


Path("notebook.html").write_text("<meta charset=utf-8>" + "\n".join(map(shown, cells)), encoding="utf-8")
