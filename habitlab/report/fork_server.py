"""A process that imports the libraries once and forks a Jupyter kernel from itself for each notebook.

Started by `kernels.ForkServer` as `python -m habitlab.report.fork_server SOCKET FOLDER MODULE ...` and driven by
lines of JSON over an inherited socket. The end of that socket is its one reason to leave: however the other side ends,
the kernels are killed, the folder with their sockets is removed, and the server exits. Linux only.
"""

import ctypes
import gc
import importlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Preload, serve until the socket closes; in a forked child, be a kernel instead."""
    handle, folder, *modules = sys.argv[1:]
    connection = socket.socket(fileno=int(handle))

    def leave(*_: object) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    signal.signal(signal.SIGTERM, leave)  # while importing, nobody watches the socket
    _die_with_parent(signal.SIGTERM)
    for module in modules:
        # A module that cannot be imported is the notebook's to report, with its own traceback.
        with suppress(Exception, SystemExit):
            importlib.import_module(module)
    importlib.import_module("ipykernel.kernelapp")
    threads = len(list(Path("/proc/self/task").iterdir()))
    gc.collect()
    gc.freeze()  # what was imported is never collected, so its pages stay shared with the kernels
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    request = _serve(connection, threads)
    connection.close()
    if request is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        _be_kernel(request)


def _serve(connection: socket.socket, threads: int) -> dict[str, Any] | None:
    """Answer requests. Returns the launch request in a forked child, None in the server once the socket has closed."""
    running: set[int] = set()
    ended: dict[int, int] = {}

    def reap(pid: int, flags: int) -> None:
        found, status = os.waitpid(pid, flags)
        if found:
            running.discard(pid)
            ended[pid] = os.waitstatus_to_exitcode(status)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # what the kernel had started and left behind

    lines = connection.makefile("r", encoding="utf-8")
    try:
        for line in lines:
            request = json.loads(line)
            answer: Any = None
            if request["do"] == "launch":
                if threads > 1:
                    answer = f"{threads} threads run after importing the libraries"  # a fork would copy held locks
                else:
                    parent = os.getpid()
                    pid = os.fork()
                    if pid == 0:
                        return request | {"parent": parent}
                    running.add(pid)
                    answer = pid
            elif request["do"] == "poll":
                pid = request["pid"]
                if pid in running:
                    reap(pid, os.WNOHANG)
                answer = ended.get(pid)
            connection.sendall(json.dumps(answer).encode() + b"\n")
    except (OSError, ValueError):
        pass  # the other side has gone in the middle of a line
    for pid in sorted(running):
        for kill in (os.killpg, os.kill):  # the group does not exist in a child's first moment
            with suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            reap(pid, 0)
    return None


def _be_kernel(request: Mapping[str, Any]) -> None:
    """Run an IPython kernel in this forked process, as `python -m ipykernel_launcher -f FILE` would."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _die_with_parent(signal.SIGKILL)
    if os.getppid() != request["parent"]:
        os._exit(1)  # the server died before the kernel could ask to die with it
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    sys.argv = ["ipykernel_launcher.py", *request["arguments"]]
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance(argv=request["arguments"], parent_handle=request["parent"])


def _die_with_parent(signal_number: int) -> None:
    """Have the system send this signal when the process that started this one ends, however it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal_number))


if __name__ == "__main__":
    if Path(sys.path[0] or ".").resolve() == Path.cwd():
        del sys.path[0]  # `-m` puts the working directory first, a kernel does not
    main()
