"""The judge's grades come from any endpoint that speaks OpenAI's protocol; here, one on loopback.

pytest tests/tools/test_judge.py
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fake_results
import pandas as pd
import pytest

from squentropy.cli import app
from squentropy.errors import SquentropyError
from squentropy.results.tables import write_manifest
from squentropy.storage import write_json
from squentropy.study import params
from squentropy.tools import judge

GRADES = {"grammar": 8, "creativity": 5, "consistency": 7, "plot": 6}


def answer(content) -> tuple[int, dict, bytes]:
    """An answer of the protocol that holds `content`."""
    body = {"choices": [{"message": {"role": "assistant", "content": content}}]}
    return 200, {}, json.dumps(body).encode()


class Endpoint(ThreadingHTTPServer):
    """Gives its answers one after the other, the last for ever, and keeps what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, dict(self.headers), json.loads(body)))
        answers = self.server.answers
        status, headers, content = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(monkeypatch):
    """serve(answers): an endpoint in the environment; waits are noted, not waited."""
    servers, waits = [], []
    monkeypatch.setattr(judge.time, "sleep", waits.append)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def start(*answers):
        server = Endpoint(*answers)
        server.waits = waits
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def results(tmp_path):
    losses = ["mse", "squentropy"]
    folder = fake_results.write(tmp_path / "results", stories=5, sweep={"losses": losses})
    told = [
        {"phase": phase, "loss": loss, "temperature": 0.8, "prompt": "Once", "number": number,
         "text": f"Once {seed}{number}."}
        for loss in losses
        for phase, seed in (("final", 1), ("final", 2), ("reported", 1))
        for number in (0, 1)
    ]  # fmt: skip
    write_json(folder / "samples.json", told)
    write_manifest(params.load([folder / "params.yaml"]), folder)
    return folder


def test_grades_are_means_over_the_first_stories_of_the_final_runs(serve, results):
    worse = json.dumps(GRADES | {"plot": 2})
    server = serve(answer(json.dumps(GRADES)), answer(f"Here you are:\n```json\n{worse}\n```"))
    judge.judge(results, "some-model", 2)
    table = pd.read_csv(results / "judge.csv")
    assert list(table.columns) == judge.JUDGE
    assert table[["loss", "stories", "plot"]].to_numpy().tolist() == [
        ["mse", 2, 4.0], ["squentropy", 2, 2.0],
    ]  # fmt: skip
    assert (table["plot_low"] <= table["plot"]).all()
    path, headers, body = server.asked[1]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert (body["model"], body["temperature"]) == ("some-model", 0)
    asked = [body["messages"][1]["content"] for _, _, body in server.asked]
    assert asked == ["Once ***  10.", "Once ***  20."] * 2  # the first of each seed


def test_a_busy_endpoint_is_asked_again_when_it_says(serve, results):
    busy = (429, {"Retry-After": "7"}, b"slow down")
    server = serve(busy, (503, {}, b""), answer(json.dumps(GRADES)))
    assert judge.judge(results, "m", 1)[0]["grammar"] == 8
    assert server.waits == [7, 4]
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("reply", "said", "asked"),
    [
        ((500, {}, b"<h1>broken\n</h1>"), r"answers 500: <h1>broken </h1>$", judge.TRIES),
        ((429, {"Retry-After": "soon"}, b"quota"), r"answers 429: quota$", judge.TRIES),
        ((401, {}, b'{"error": "bad key"}'), r'answers 401: \{"error": "bad key"\}$', 1),
        ((200, {}, b"no json"), r"m answered 'no json', which holds no grades", 1),
        ((200, {}, b"[]"), "which holds no grades", 1),
        (answer(None), "which holds no grades", 1),
        (answer("I like it."), "which holds no grades", 1),
        (answer(json.dumps(GRADES | {"plot": 11})), "which holds no grades", 1),
        (answer(json.dumps({"plot": 3})), "which holds no grades", 1),
    ],
)
def test_what_is_no_grade_is_one_line_and_leaves_no_table(serve, results, reply, said, asked):
    server = serve(reply)
    with pytest.raises(SquentropyError, match=said) as error:
        judge.judge(results, "m", 1)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
    assert len(server.asked) == asked
    assert not (results / "judge.csv").exists()


def test_an_endpoint_that_is_not_there_is_named(serve, results, monkeypatch):
    serve(answer(""))
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1/")
    with pytest.raises(SquentropyError, match=r"^http://127\.0\.0\.1:1/v1: cannot be reached: "):
        judge.judge(results, "m", 1)
    monkeypatch.setenv("OPENAI_BASE_URL", "file:///etc")
    with pytest.raises(SquentropyError, match="is no http address"):
        judge.judge(results, "m", 1)


def test_without_a_key_nothing_is_asked(serve, results, monkeypatch, capsys):
    server = serve(answer(json.dumps(GRADES)))
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(SystemExit) as stop:
        app.main(["judge", str(results), "--model", "m"])
    assert stop.value.code == 1
    assert capsys.readouterr().err == (
        "squentropy: OPENAI_API_KEY: is not set; the judge needs an endpoint's key\n"
    )
    assert server.asked == []


def test_the_command_prints_the_grades(serve, results, capsys):
    serve(answer(json.dumps(GRADES)))
    with pytest.raises(SystemExit) as stop:
        app.main(["judge", str(results), "--model", "m", "--stories", "1"])
    assert stop.value.code == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        "mse, temperature 0.8: grammar 8.0, creativity 5.0, consistency 7.0, plot 6.0"
    )
