"""Serve a built Bento in a process of its own for as long as a ``with`` block runs."""

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import psutil

from aftersales.core.errors import ConfigError, ModelError
from serving.home import bentoml_home
from serving.settings import absolute

HOST = "127.0.0.1"
# BentoML finishes the requests in flight when asked to stop; then whatever is left is killed.
STOP_SECONDS = 15
TAIL_CHARACTERS = 3_000


@contextmanager
def running_bento(tag: str, port: int | None = None, timeout: float = 60, log: Path | None = None) -> Iterator[str]:
    """Serve a built Bento on loopback, wait until it is ready, and stop it at the end.

    Args:
        tag: as ``build_bento`` returns it.
        port: a free one where none is given.
        timeout: seconds to wait for readiness.
        log: where to keep the server's log; it is thrown away where none is given.

    Yields:
        The base URL, ``http://127.0.0.1:<port>``.

    Raises:
        ConfigError: the port is taken.
        ModelError: the service did not start or was not ready in time; the message ends with its log.
    """
    bentoml_home()
    port = _free_port(port)
    with tempfile.TemporaryDirectory(prefix="aftersales-serve-") as folder:
        log = log or Path(folder) / "server.log"
        process = _start(tag, port, Path(folder), log)
        try:
            _wait(process, port, timeout, tag, log)
            yield f"http://{HOST}:{port}"
        finally:
            _stop(process)


def serve(tag: str, host: str, port: int) -> NoReturn:
    """Become the server of a built Bento, until Ctrl-C or SIGTERM; this function does not return."""
    environment = _environment()
    os.chdir(bentoml_home())
    _need(tag)
    os.execve(sys.executable, _command(tag, host, port), environment)  # noqa: S606  (our own interpreter)


def _need(tag: str) -> None:
    import bentoml

    try:
        bentoml.get(tag)
    except bentoml.exceptions.BentoMLException:
        raise ModelError(f"there is no Bento {tag!r} in {bentoml_home()}: run `aftersales package` first") from None


def _command(tag: str, host: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "bentoml", "serve", tag]
    return [*command, "--host", host, "--port", str(port), "--api-workers", "1"]


def _environment() -> dict[str, str]:
    # No PYTHONPATH, and a folder without code: the Bento runs its own copy of ours, not the checkout's.
    return {**absolute(os.environ), "PYTHONPATH": "", "PYTHONUNBUFFERED": "1"}


def _free_port(wanted: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted or 0))
        except OSError:
            raise ConfigError(f"port {wanted} is taken; give another one") from None
        return int(probe.getsockname()[1])


def _start(tag: str, port: int, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as stream:
        return subprocess.Popen(  # noqa: S603  (our own interpreter, no shell)
            _command(tag, HOST, port),
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait(process: subprocess.Popen[bytes], port: int, timeout: float, tag: str, log: Path) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ModelError(f"{tag} did not start (exit code {process.returncode}); its log ends:\n{_tail(log)}")
        if _ready(port):
            return
        time.sleep(0.05)
    raise ModelError(f"{tag} was not ready within {timeout:g} s; its log ends:\n{_tail(log)}")


def _ready(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-TAIL_CHARACTERS:].strip()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers, which BentoML puts into sessions of their own, by their process ids."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    _, left = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for straggler in left:
        straggler.kill()
    process.wait()
