"""Stands for a process that the server forks: hands it streams, folder, environment and signals, and ends as it ends."""

import json
import os
import signal
import socket
import sys

HANDED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    server = socket.socket(socket.AF_UNIX)
    server.connect(sys.argv[1])
    ignored = [number for number in HANDED_ON if signal.getsignal(number) == signal.SIG_IGN]
    given = {"words": sys.argv[2:], "folder": os.getcwd(), "environment": dict(os.environ), "ignored": ignored}
    request = json.dumps(given).encode()
    socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(request)
    for number in HANDED_ON:  # the ignored ones too: the fork may come to listen to them
        signal.signal(number, lambda sent, _: server.sendall(bytes([sent])))
    answer = server.recv(4)
    if not answer:
        sys.exit("the server of forks is gone")
    code = int.from_bytes(answer, "big", signed=True)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


main()
