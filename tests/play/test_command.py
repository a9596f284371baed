"""`scopewise play` as it is typed: it says where to open it, warns, and stops on an interrupt."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from forks import python


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_it_answers_at_the_address_it_prints_until_interrupted(run_folder: Path, host: str) -> None:
    words = [python(), "-m", "scopewise", "play", str(run_folder), "--port", "0", "--host", host]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        printed = process.stdout.readline()
        found = re.fullmatch(r"Open http://127\.0\.0\.1:(\d+)/#(\S{32})\n", printed)
        assert found is not None, printed
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=20)
        connection.request("GET", "/api/run", headers={"Authorization": f"Bearer {found[2]}"})
        assert json.loads(connection.getresponse().read())["run"] == str(run_folder)
        connection.close()
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    warned = "warning: listening on 0.0.0.0, without encryption" in errors
    assert warned == (host == "0.0.0.0")
    assert "Ada" not in errors  # questions are in no log


def test_what_cannot_be_served_is_one_sentence(run_folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, sentence in (
            ([str(tmp_path)], f"{tmp_path}: "),
            ([str(run_folder), "--port", port], f"127.0.0.1 port {port}; Address already in use; give another --port"),
            ([str(run_folder), "--host", "no.such.host.invalid"], "give another --port (0: a free one) or --host"),
        ):
            play = [python(), "-m", "scopewise", "play", *words]
            done = subprocess.run(play, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 2, done.stderr
            assert sentence in done.stderr
            assert len(done.stderr.strip().splitlines()) == 1
