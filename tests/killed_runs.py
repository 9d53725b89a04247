"""A process that has everything imported and runs each command it is told in a child, which may kill itself.

Standard input: a JSON object a line, {"words": [...], "at": N}; the child is killed right before its N-th sync, rename
or removal, 0 for never; with "every", finished work is kept every so many seconds. Standard output: a line with the
child's exit status, -9 where it was killed.
"""

import json
import os
import signal
import sys
from pathlib import Path

import warm_cli

from lampq.adapters.onnx import save
from lampq.cli import main
from lampq.core.values import journal_file, publishing


def count_down(at):
    """Kill this process right before the `at`-th time that it syncs, renames or removes a file."""
    left = at

    def step(*_):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(function):
        return lambda *words: (step(), function(*words))[1]

    os.fsync = before(os.fsync)
    publishing._exchange = before(publishing._exchange)
    sys.addaudithook(lambda event, _: step() if event in ("os.rename", "os.remove", "os.rmdir") else None)


def write_folder(path, text):
    """A folder of two files that belong together."""
    with publishing.atomic_folder(Path(path)) as folder:
        for name in ("config.json", "weights"):
            (folder / name).write_text(text)


def run(words, at, every=None, said=os.devnull):
    """Run a command in a child; its exit status."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        journal_file._EVERY_S = journal_file._EVERY_S if every is None else every
        # Small models get a data file too.
        save._EXTERNAL_FROM = 100
        save.staged.__wrapped__.__kwdefaults__["single_file_bytes"] = 1000
        if at:
            count_down(at)
        if words[0] == "folder":
            write_folder(*words[1:])
            os._exit(0)
        os._exit(main(words))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    warm_cli.preload()
    for line in sys.stdin:
        print(run(**json.loads(line)), flush=True)
