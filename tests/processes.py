"""Runs apps and tools as a shell would, without their start's seconds.

Importing TensorFlow takes longer than most of these tests. So one process that has imported it
forks a copy for each run, which then differs from a fresh one by that alone: it has its own
arguments, flags, streams and seeds.
"""

import atexit
import functools
import gc
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]


@functools.cache
def server():
    """The process that forks, one for all the tests of this one."""
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(process.stdin.close)
    return process


def run(script, *flags, timeout=600):
    """What subprocess.run gives of `python script flags`, a script of this project."""
    command = [str(ROOT / script), *map(str, flags)]
    with tempfile.TemporaryDirectory() as folder:
        streams = [f"{folder}/stdout", f"{folder}/stderr"]
        request = {"command": command, "streams": streams, "cwd": os.getcwd(), "timeout": timeout}
        server().stdin.write(json.dumps(request) + "\n")
        server().stdin.flush()
        code = int(server().stdout.readline())
        stdout, stderr = (pathlib.Path(stream).read_text() for stream in streams)
    return subprocess.CompletedProcess(command, code, stdout, stderr)


def serve():
    """Forks a process for each line of the standard input, and prints its exit code."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # as the apps do; TensorFlow reads it once
    # What all apps import; it must not start TensorFlow's threads, which a fork would lose.
    from kerasvision import classification, detection, drawing, export, segmentation  # noqa: F401

    gc.freeze()  # or each copy would go through all of these objects as it ends
    for line in sys.stdin:
        child = os.fork()
        if not child:
            break
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    else:
        return
    request = json.loads(line)
    signal.alarm(request["timeout"])
    os.chdir(request["cwd"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, stream in enumerate(request["streams"], start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = request["command"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    serve()
