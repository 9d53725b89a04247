"""The command line in children of one warm process, which has everything imported: no command waits for that again.

`python warm_cli.py SOCKET` is that process. A program `lampq` hands its words, its place, its environment and its
streams over to a child of it, and ends as the child does.
"""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

_CLIENT = """#!{python} -IS
import json, os, socket, sys
told = json.dumps({{"words": sys.argv[1:], "place": os.getcwd(), "environment": dict(os.environ)}}).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({socket!r})
    socket.send_fds(server, [len(told).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(told)
    status = server.recv(1)
os._exit(status[0] if status else 70)
"""


def preload():
    """What commands import when they need it."""
    import importlib

    for name in ("matplotlib.figure", "onnxruntime", "torch", "PIL.Image"):
        importlib.import_module(name)
    for name in (
        "onnx.save",
        "onnx.reader",
        "onnx.torch_ops",
        "tflite.reading",
        "tflite.torch_ops",
        "autograd.rebuilt",
    ):
        importlib.import_module(f"lampq.adapters.{name}")
    from lampq.console.arguments import build_parser

    build_parser()


@contextlib.contextmanager
def started(folder, environment):
    """The process, and the program in a folder."""
    path, program = Path(folder) / "socket", Path(folder) / "lampq"
    program.write_text(_CLIENT.format(python=sys.executable, socket=str(path)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    command = [sys.executable, __file__, path]
    with subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE) as process:
        # It says when it listens.
        assert process.stdout.readline()
        try:
            yield
        finally:
            process.terminate()


def serve(path):
    """Run commands until there is no more to accept."""
    preload()
    # Nobody waits for children here.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("listening", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                if os.fork() == 0:
                    answer(connection)


def answer(connection):
    """Run what a client tells, in its place and with its streams."""
    status = 70
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        size, streams, _, _ = socket.recv_fds(connection, 4, 3)
        with connection.makefile("rb") as told:
            command = json.loads(told.read(int.from_bytes(size, "big")))
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(command["place"])
        os.environ.clear()
        os.environ.update(command["environment"])
        status = run(command["words"])
    finally:
        connection.sendall(bytes([status]))
        os._exit(status)


def run(words):
    """The status that the program of these words ends with."""
    from lampq.cli import main

    sys.argv = ["lampq", *words]
    try:
        return main(words)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else bool(end.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
