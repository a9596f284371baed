"""Imports what commands import, then forks a process for each client; ends when its standard input does."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
import types
from typing import Any, NoReturn

STREAMS = 3


def main() -> None:
    """Serve."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    sys.executable = sys.argv[2]  # what a fork starts by that name is a fork, too
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from fuzz.command import preload

    del sys.path[:2]  # of this file and of the tests: a fork finds what the interpreter finds
    preload()
    gc.collect()
    gc.freeze()  # no fork looks at what is imported when it collects garbage
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            return
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # keepers that have ended
                pass
        client, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _keep(client)
        client.close()


def _keep(client: socket.socket) -> NoReturn:
    """Fork the process, hand signals on to it, and tell the client how it ended."""
    try:
        head, streams, _, _ = socket.recv_fds(client, 8, STREAMS)
        request = b""
        while len(request) < int.from_bytes(head, "big"):
            request += client.recv(1 << 16)
        pid = os.fork()
        if pid == 0:
            client.close()
            _become(streams, **json.loads(request))
        for stream in streams:
            os.close(stream)
        process = os.pidfd_open(pid)
        while True:
            ready, _, _ = select.select([process, client], [], [])
            if process in ready:
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                client.sendall(code.to_bytes(4, "big", signed=True))
                break
            sent = client.recv(1)
            if sent:
                os.kill(pid, sent[0])
            else:  # the client is gone: it was killed
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                break
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _become(
    streams: list[int], words: list[str], folder: str, environment: dict[str, str], ignored: list[int]
) -> NoReturn:
    code = 1
    try:
        os.setsid()
        for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
            signal.signal(number, signal.SIG_IGN if number in ignored else handler)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        # As the interpreter opens them.
        sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)
        sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = sys.__stderr__ = open(
            2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
        )
        import numpy

        numpy.random.seed()  # all forks have the state that it had when it was imported
        code = _run(words)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _run(words: list[str]) -> int:
    """Run what `python WORDS` runs; return its exit code."""
    code = 0
    try:
        _start(words)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return code & 0xFF


def _start(words: list[str]) -> Any:
    while words[0] == "-u":
        words = words[1:]
        sys.stdout.reconfigure(line_buffering=True)
    if words[0] == "-m":
        sys.path.insert(0, os.getcwd())
        sys.argv = ["-m", *words[2:]]
        sys.modules.pop(words[1], None)
        return runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    if words[0] == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *words[2:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        return exec(compile(words[1], "<string>", "exec"), vars(main))
    sys.executable = sys.argv[2]  # what a fork starts by that name is a fork, too
    sys.path.insert(0, os.path.dirname(os.path.abspath(words[0])))
    sys.argv = words
    return runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    main()
