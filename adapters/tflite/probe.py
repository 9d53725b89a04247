"""A first run in a process of its own: a file that crashes or hangs the runtime becomes an error here.

The runtime is native code that trusts its models; a damaged one can end the process. What a file holds is
checked before, but what its operators do with it only a run can tell.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from lampq.core.values.errors import AdapterError

# The child needs only the runtime, not this package. Memory is bounded where the system can.
_CHILD = """
import importlib, sys
path, module, limit, seconds, lenient = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
interpreter = importlib.import_module(module)
import numpy
try:
    import resource
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
except (ImportError, ValueError, OSError):
    pass
try:
    model = interpreter.Interpreter(model_path=path)
    model.allocate_tensors()
    for detail in model.get_input_details():
        model.set_tensor(detail["index"], numpy.zeros(detail["shape"], detail["dtype"]))
    model.invoke()
except MemoryError:
    sys.exit("it needs more memory than it should")
except (RuntimeError, ValueError) as err:
    lines = str(err).strip().splitlines()
    sys.exit(0 if lenient else "the runtime refuses it: " + (lines[0] if lines else type(err).__name__)[:200])
"""

# The clock may run this much longer than the processor time that a run gets.
_PATIENCE = 12


def probe(content: bytes, module: str, *, lenient: bool = False) -> None:
    """Run a model once on zeros in another process.

    Args:
        content: The .tflite file.
        module: Name of the runtime's module.
        lenient: Whether the runtime may refuse zeros of the stored shapes, as where axes are free.

    Raises:
        AdapterError: The run fails, crashes, takes too long or too much memory.
    """
    if not sys.executable:
        return
    megabytes = len(content) / 1e6
    # Processor time counts, not the clock: on a busy machine an honest run waits its turn.
    limit_s, limit_bytes = 5 + int(megabytes / 5), int(1e9 + 40 * len(content))
    with tempfile.TemporaryDirectory(prefix="lampq-") as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            _CHILD,
            str(path),
            module,
            str(limit_bytes),
            str(limit_s),
            str(int(lenient)),
        ]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_PATIENCE * limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired as err:
            raise AdapterError(
                f"a trial run did not end within {limit_s} seconds; the file is damaged"
            ) from err
    # SIGKILL or SIGXCPU: the limit on processor time.
    if done.returncode in (-9, -24):
        raise AdapterError(f"a trial run did not end within {limit_s} seconds; the file is damaged")
    if done.returncode < 0:
        raise AdapterError(f"a trial run crashed (signal {-done.returncode}); the file is damaged")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise AdapterError(lines[-1].strip()[:250] if lines else "a trial run failed; the file is damaged")
