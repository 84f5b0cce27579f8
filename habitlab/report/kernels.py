"""Kernels for the notebooks: each a process of its own, forked where possible from one with the libraries loaded.

Most of a small notebook's time goes into starting a kernel and importing pandas and matplotlib. A kernel forked from a
warm, single-threaded parent has both at once. Where there is no such parent (no Linux, or a library that starts
threads when imported), an ordinary kernel runs instead and prints the same.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

from habitlab.report.cache import cache_folder

# The same bytes from every run, on every machine.
PINNED = {
    "PYTHONHASHSEED": "0",
    "SOURCE_DATE_EPOCH": "0",
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
    "TQDM_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's one thread, which would forbid forking
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}
# Habits of a person or a shell that would show in a report, and what makes every import slow.
_DROPPED = ("PYTHONDONTWRITEBYTECODE", "PYTHONSTARTUP", "PYTHONWARNINGS", "PYTHONINSPECT", "LANGUAGE")
_LONGEST_SOCKET_FOLDER = 70  # a Unix socket's path holds 107 bytes, names included


class Kernels:
    """Starts kernels, and ends every one of them when closed.

    `why_ordinary` says why kernels are not forked, and is empty while they are.
    """

    def __init__(self, preload: Sequence[str] = (), *, fork: bool = True) -> None:
        """`preload` names modules for the forking parent to import. `fork=False` asks for ordinary kernels."""
        self.folder = Path(tempfile.mkdtemp(prefix="habitlab-"))
        self.environment = _environment(self.folder)
        self.server: ForkServer | None = None
        self.why_ordinary = ""
        self.peak_memory_of_parent: int | None = None
        self.starting = threading.Lock()  # no kernel is started while closing, or after
        self.closed = False
        self._managers: list[AsyncKernelManager] = []
        if not fork:
            self.why_ordinary = "asked for"
        elif sys.platform != "linux":
            self.why_ordinary = "forking is safe on Linux only"
        else:
            self.server = ForkServer(preload, self.environment, self.folder)

    def manager(self) -> AsyncKernelManager:
        """A manager of one kernel, not yet started."""
        number = len(self._managers)
        unix = os.name == "posix" and len(str(self.folder)) <= _LONGEST_SOCKET_FOLDER
        manager = AsyncKernelManager(
            # The kernel of this very environment, whatever kernels the user has installed elsewhere.
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            connection_file=str(self.folder / f"kernel-{number}-{threading.get_ident()}.json"),
            # Sockets in a private folder: no port that two processes could pick at once.
            **({"transport": "ipc"} if unix else {}),
        )
        manager.provisioner = Provisioner(
            kernel_id=str(number), kernel_spec=manager.kernel_spec, parent=manager, kernels=self
        )
        self._managers.append(manager)
        return manager

    def close(self) -> None:
        """Kill what still runs, end the forking parent, and remove the folder of sockets. May be called twice."""
        with self.starting:
            if self.closed:
                return
            self.closed = True
        if self.server:
            self.peak_memory_of_parent = peak_memory(self.server.pid)
            self.server.close()
        for manager in self._managers:
            process = getattr(manager.provisioner, "process", None)
            if isinstance(process, subprocess.Popen) and process.poll() is None:
                with suppress(OSError):
                    os.killpg(process.pid, 9) if os.name == "posix" else process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Provisioner(LocalProvisioner):
    """Jupyter's local provisioner, but that the process may come from the fork server."""

    def __init__(self, *, kernels: Kernels, **keywords: Any) -> None:
        """`keywords` as Jupyter's own provisioners take them."""
        super().__init__(**keywords)
        self.kernels = kernels
        self.exit_code: int | None = None
        self.peak_memory: int | None = None

    async def pre_launch(self, **keywords: Any) -> dict[str, Any]:
        """Launch with the pinned environment."""
        return await super().pre_launch(**keywords | {"env": self.kernels.environment})

    async def launch_kernel(self, cmd: list[str], **keywords: Any) -> Any:
        """Fork, or start an ordinary kernel where the server cannot."""
        server = self.kernels.server
        if server and not self.kernels.why_ordinary:
            arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
            try:
                process = server.launch(arguments, keywords["env"], str(keywords["cwd"]))
            except ServerFailedError as error:
                self.kernels.why_ordinary = str(error)
            else:
                self.process = process  # type: ignore[assignment]
                self.pid = self.pgid = process.pid
                return self.connection_info
        with self.kernels.starting:
            if self.kernels.closed:
                raise RuntimeError("no kernel is started any more")
            return await super().launch_kernel(cmd, **keywords)

    async def poll(self) -> int | None:
        """Exit code, or None while the kernel lives; kept, for saying later how it ended."""
        code = await super().poll()
        if self.process is not None and code is not None and self.exit_code is None:
            self.exit_code = code
        return code

    def note_memory(self) -> None:
        """Note the peak so far."""
        self.peak_memory = peak_memory(self.pid) or self.peak_memory


class ServerFailedError(RuntimeError):
    """The fork server could not fork; says why."""


class ForkServer:
    """Our end of `fork_server`: one request and one answer at a time, from any thread."""

    def __init__(self, preload: Sequence[str], environment: dict[str, str], folder: Path) -> None:
        """Start the server; it imports the modules of `preload` meanwhile, and `launch` waits for it."""
        ours, theirs = socket.socketpair()
        with theirs:
            # A session of its own: Ctrl-C in the terminal is for us to handle, and the server follows.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "habitlab.report.fork_server", str(theirs.fileno()), str(folder), *preload],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._socket = ours
        self._lines = ours.makefile("r", encoding="utf-8")
        self._lock = threading.Lock()

    def _ask(self, **request: Any) -> Any:
        with self._lock:
            try:
                self._socket.sendall(json.dumps(request).encode() + b"\n")
                answer = self._lines.readline()
            except (OSError, ValueError):
                answer = ""
        if not answer:
            raise ServerFailedError("the process that preloads the libraries has ended")
        return json.loads(answer)

    def launch(self, arguments: Sequence[str], environment: dict[str, str], folder: str) -> "ForkedProcess":
        """Fork a kernel; raises ServerFailedError."""
        answer = self._ask(do="launch", arguments=list(arguments), env=environment, cwd=folder)
        if isinstance(answer, str):
            raise ServerFailedError(answer)
        return ForkedProcess(self, answer)

    def poll(self, pid: int) -> int | None:
        """Exit code of a kernel, None while it lives."""
        try:
            code: int | None = self._ask(do="poll", pid=pid)
        except ServerFailedError:
            return 1  # kernels die with the server
        return code

    def close(self) -> None:
        """End the server, and with it every kernel."""
        # Closing alone would leave the socket open while another thread waits for an answer.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.terminate()  # heeded while it still imports
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._socket.close()


class ForkedProcess:
    """A forked kernel, in the words of `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, server: ForkServer, pid: int) -> None:
        """`pid` is also the number of its process group."""
        self._server, self.pid = server, pid

    def poll(self) -> int | None:
        """Exit code, or None while it lives."""
        return self._server.poll(self.pid)

    def wait(self) -> int:
        """Wait for the end; the exit code."""
        while (code := self.poll()) is None:
            time.sleep(0.01)
        return code

    def send_signal(self, signum: int) -> None:
        """Send a signal."""
        os.kill(self.pid, signum)

    def kill(self) -> None:
        """Kill."""
        self.send_signal(9)

    def terminate(self) -> None:
        """Ask to end."""
        self.send_signal(15)


def peak_memory(pid: int | None) -> int | None:
    """Peak resident memory of a process in bytes; None where the system does not tell."""
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def _environment(folder: Path) -> dict[str, str]:
    """The kernels' environment: this process's, pinned, with settings of ours in place of the user's."""
    settings = cache_folder() / "settings"
    with suppress(OSError):
        settings.mkdir(parents=True, exist_ok=True)
        (settings / "matplotlibrc").write_text("svg.hashsalt: habitlab\n", encoding="ascii")
    temporary = folder / "tmp"
    temporary.mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    return (
        kept
        | PINNED
        | {
            "MATPLOTLIBRC": str(settings / "matplotlibrc"),  # only the settings: the list of fonts takes long to make
            "IPYTHONDIR": str(settings / "ipython"),
            "TMPDIR": str(temporary),  # a killed kernel tidies nothing up; this folder goes with the run
        }
    )
