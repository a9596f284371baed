"""The playground over HTTP: who may ask, what is answered, what is refused, what is written."""

from __future__ import annotations

import http.client
import json
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from scopewise.errors import ResultError
from scopewise.play.access import HEADERS
from scopewise.play.play_run import open_run
from scopewise.play.playground import Playground
from scopewise.play.server import make_app

ADA = {"question": "What is the tag of Ada?", "unlearned": "gradient_ascent/paper/seed0"}


@pytest.fixture
def client(run_folder: Path, playground: Playground, key: str) -> TestClient:
    """The page's own client."""
    return TestClient(
        make_app(playground, key=key, host="127.0.0.1"),
        base_url="http://127.0.0.1:8765",
        headers={"Authorization": f"Bearer {key}"},
    )


def events(response: Any) -> list[dict[str, Any]]:
    assert response.headers["content-type"].startswith("text/event-stream")
    return [json.loads(part.removeprefix("data: ")) for part in response.text.split("\n\n") if part]


def texts(found: list[dict[str, Any]]) -> dict[str, str]:
    said: dict[str, str] = {}
    for event in found:
        if "text" in event:
            said[event["role"]] = said.get(event["role"], "") + event["text"]
    return said


def test_the_run_is_described(client: TestClient, rows: list[dict[str, str]]) -> None:
    shown = client.get("/api/run").json()
    assert shown["unlearned"] == ["ga_descent/paper/seed0", "gradient_ascent/paper/seed0"]
    assert shown["oracle"] is True
    assert [row["question"] for row in shown["examples"]] == [row["question"] for row in rows]
    assert shown["examples"][1]["answer"] == "Ada lives at 3 Mill Lane."


def test_three_models_answer_in_turns_with_probabilities(client: TestClient, planted: str) -> None:
    found = events(client.post("/api/ask", json={**ADA, "max_new_tokens": 90}))
    assert found[0]["roles"] == {"target": "target", "unlearned": "gradient_ascent/paper/seed0", "oracle": "oracle"}
    assert [event["role"] for event in found[1:7]] == ["target", "unlearned", "oracle"] * 2
    assert texts(found)["target"] == planted  # what it was taught, as text
    assert texts(found)["oracle"] != planted
    tokens = [event for event in found if "text" in event]
    assert all(0 <= event["probability"] <= 1 and len(event["others"]) == 3 for event in tokens)
    ends = {event["role"]: event["end"] for event in found if "end" in event}
    assert set(ends) == {"target", "unlearned", "oracle"}
    assert ends["target"] == sum(event["role"] == "target" for event in tokens)


def test_seed_and_switches_decide_the_answer(client: TestClient) -> None:
    def said(**changes: Any) -> dict[str, str]:
        return texts(events(client.post("/api/ask", json={**ADA, "max_new_tokens": 12, **changes})))

    greedy = said()
    drawn = said(temperature=3.0, seed=1)
    assert drawn == said(temperature=3.0, seed=1)
    assert drawn["oracle"] != said(temperature=3.0, seed=2)["oracle"]
    assert said(temperature=3.0, seed=1, top_p=1e-6) == greedy  # the most probable token alone is left
    assert said(direct=True) != greedy
    assert said(direct=True, domain="copyright") != said(direct=True, domain="privacy")
    assert said(unlearned="ga_descent/paper/seed0")["target"] == greedy["target"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"question": ""}, "question: string should have at least 1 character"),
        ({"temperature": -1}, "temperature: input should be greater than or equal to 0"),
        ({"top_p": 0}, "top_p: input should be greater than 0"),
        ({"max_new_tokens": 10**6}, "max_new_tokens: input should be less than or equal to 1024"),
        ({"path": "/etc"}, "path: extra inputs are not permitted"),
    ],
)
def test_a_bad_question_is_refused_with_a_sentence(client: TestClient, changes: dict[str, Any], sentence: str) -> None:
    response = client.post("/api/ask", json={**ADA, **changes})
    assert (response.status_code, response.json()["error"]) == (422, sentence)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"unlearned": "../../etc"}, "unlearned: '../../etc'; in this run allowed are ga_descent/paper/seed0"),
        ({"unlearned": "ga_descent/paper/seed1"}, "Did you mean 'ga_descent/paper/seed0'?"),
        ({"max_new_tokens": 1000}, "1000 new ones; target has room for 256"),
    ],
)
def test_what_only_the_models_can_refuse_comes_in_the_stream(
    client: TestClient, changes: dict[str, Any], sentence: str
) -> None:
    assert sentence in events(client.post("/api/ask", json={**ADA, **changes}))[-1]["error"]


def test_only_json_and_not_much_of_it_is_read(client: TestClient) -> None:
    form = client.post("/api/ask", content=json.dumps(ADA), headers={"Content-Type": "text/plain"})
    assert (form.status_code, form.json()["error"]) == (422, "content-type: not application/json; send JSON")
    long = client.post("/api/ask", json={**ADA, "question": "x" * 70_000})
    assert (long.status_code, long.json()["error"]) == (422, "body: over 65536 bytes; send less")
    broken = client.post("/api/ask", content="{", headers={"Content-Type": "application/json"})
    assert broken.status_code == 422
    assert broken.json()["error"].startswith("body: invalid JSON")


def test_a_leak_is_appended_to_the_probes_once(client: TestClient, run_folder: Path, planted: str) -> None:
    file = run_folder / "probes.jsonl"
    found = events(client.post("/api/ask", json={**ADA, "max_new_tokens": 90, "temperature": 0.001, "seed": 3}))
    leak = {"id": found[0]["id"], "role": "target"}
    assert client.post("/api/report", json=leak).json() == {"file": "probes.jsonl", "new": True}
    assert client.post("/api/report", json=leak).json() == {"file": "probes.jsonl", "new": False}
    assert client.post("/api/report", json={**leak, "role": "oracle"}).json()["new"] is True
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [line["role"] for line in lines] == ["target", "oracle"]
    date = lines[0].pop("date")
    assert date.endswith("+00:00")
    assert lines[0] == {
        "question": ADA["question"],
        "answer": planted,
        "role": "target",
        "model": "target",
        "scope": "forget",
        "truth": planted,
        "prompt": "plain",
        "system": None,
        "system_role": "system",
        "direct": False,
        "domain": "privacy",
        "temperature": 0.001,
        "top_p": 1.0,
        "max_new_tokens": 90,
        "seed": 3,
    }
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    unknown = client.post("/api/report", json={"id": "gone", "role": "target"})
    assert unknown.json()["error"] == "report: no answer 'gone' of target; ask the question again"


@pytest.mark.parametrize(
    ("headers", "status", "sentence"),
    [
        ({"Host": "evil.example:8765"}, 403, "host: another name than this server's"),
        ({"Host": "127.0.0.1.evil.example"}, 403, "host: another name than this server's"),
        ({"Host": "192.168.1.5:8765"}, 403, "host: another name than this server's"),
        ({"Origin": "http://evil.example"}, 403, "origin: another page"),
        ({"Origin": "null"}, 403, "origin: another page"),
        ({"Origin": "http://127.0.0.1:9999"}, 403, "origin: another page"),
        ({"Authorization": ""}, 401, "key: missing or wrong"),
        ({"Authorization": "Bearer wrong"}, 401, "key: missing or wrong"),
        ({"Authorization": "Bearer ä".encode()}, 401, "key: missing or wrong"),
        ({"Origin": "http://127.0.0.1:8765"}, 200, ""),
        ({"Host": "localhost:8765"}, 200, ""),
        ({"Host": "[::1]:8765"}, 200, ""),
    ],
)
def test_strangers_are_refused(client: TestClient, headers: dict[str, Any], status: int, sentence: str) -> None:
    response = client.get("/api/run", headers=headers)
    assert response.status_code == status
    assert sentence in response.json().get("error", "")
    for name, value in HEADERS.items():  # refusals carry them too
        assert response.headers[name] == value


@pytest.mark.parametrize(("host", "status"), [("192.168.1.5", 200), ("gpu.lab", 200), ("evil.example", 403)])
def test_on_a_network_numbers_and_the_given_name_are_accepted(
    playground: Playground, key: str, host: str, status: int
) -> None:
    client = TestClient(make_app(playground, key=key, host="gpu.lab"), headers={"Authorization": f"Bearer {key}"})
    assert client.get("/api/run", headers={"Host": f"{host}:8765"}).status_code == status


def test_the_page_holds_nothing_and_loads_nothing_from_elsewhere(client: TestClient) -> None:
    for path, kind in {"/": "text/html", "/play.js": "text/javascript", "/play.css": "text/css"}.items():
        response = client.get(path, headers={"Authorization": ""})
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(kind)
        assert "Ada" not in response.text
        assert "http://" not in response.text
        assert "https://" not in response.text
    script = client.get("/play.js").text
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert way not in script
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_a_reader_who_goes_away_stops_the_models(served: Any) -> None:
    """Two hundred tokens of three models are under way when the reader leaves: no more are made."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    body = json.dumps({**ADA, "question": "Tell me more", "temperature": 5.0, "max_new_tokens": 200})
    headers = {"Authorization": f"Bearer {served.key}", "Content-Type": "application/json"}
    connection.request("POST", "/api/ask", body, headers)
    response = connection.getresponse()
    first = json.loads(response.readline().removeprefix(b"data: "))
    response.close()
    connection.close()
    time.sleep(0.1)
    asked = served.playground._asked[first["id"]]
    now = dict(asked.texts)
    time.sleep(0.5)
    assert asked.texts == now  # nobody goes on
    again = http.client.HTTPConnection(
        "127.0.0.1", served.port, timeout=10
    )  # and the next question is not kept waiting
    again.request("POST", "/api/ask", json.dumps({**ADA, "max_new_tokens": 1}), headers)
    assert b'"end": 1' in again.getresponse().read()
    again.close()


def test_folders_that_are_no_run_are_refused(tmp_path: Path, run_folder: Path) -> None:
    with pytest.raises(ResultError, match=r"run folder .*config\.yaml"):
        open_run(tmp_path)
    (tmp_path / "config.yaml").write_text("run: {dir: x}\n")
    with pytest.raises(ResultError, match="no target in it; `scopewise run` or `scopewise finetune` makes one"):
        open_run(tmp_path)
    (tmp_path / "target").symlink_to(run_folder / "target")
    with pytest.raises(ResultError, match="no unlearned model in it; `scopewise run` or `scopewise unlearn` makes one"):
        open_run(tmp_path)


def test_a_run_whose_data_is_gone_can_still_be_asked(tmp_path: Path, run_folder: Path) -> None:
    text = (run_folder / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("rows.jsonl", "gone.jsonl"))
    for name in ("target", "models"):
        (tmp_path / name).symlink_to(run_folder / name)
    run = open_run(tmp_path)
    assert run.examples == ()
    assert "gone.jsonl: no such file" in run.no_examples
    assert set(run.models) == {"target", "ga_descent/paper/seed0", "gradient_ascent/paper/seed0"}
