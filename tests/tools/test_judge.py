"""The judge's grades come from any endpoint with OpenAI's protocol, here one on loopback.

pytest tests/tools/test_judge.py
"""

import contextlib
import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import fake_results
import pandas as pd
import pytest

from squentropy.base.errors import SquentropyError
from squentropy.base.storage import write_json
from squentropy.cli import app
from squentropy.report.read import JUDGE, read
from squentropy.report.sections import generation
from squentropy.results.tables import write_manifest
from squentropy.study import params
from squentropy.tools import endpoint, judge

GRADES = {"grammar": 8, "creativity": 5, "consistency": 7, "plot": 6}


def answer(content) -> tuple[int, dict, bytes]:
    """A response of the protocol with this content."""
    body = {"choices": [{"message": {"role": "assistant", "content": content}}]}
    return 200, {}, json.dumps(body).encode()


GOOD = answer(json.dumps(GRADES))


class Endpoint(ThreadingHTTPServer):
    """Sends its answers in order, repeats the last one, and records the requests.

    An answer is (status, headers, content), or a function of the request's body that returns one.
    Content may be an iterable of pieces, which are sent one by one.
    """

    daemon_threads = True

    def __init__(self, *answers):
        self.answers, self.asked, self.lock = list(answers), [], threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def questions(self) -> list[str]:
        return sorted(body["messages"][1]["content"] for _, _, body in self.asked)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append((self.path, dict(self.headers), body))
            answers = self.server.answers
            given = answers.pop(0) if len(answers) > 1 else answers[0]
        status, headers, content = given(body) if callable(given) else given
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if isinstance(content, bytes):
            self.send_header("Content-Length", str(len(content)))
            content = [content]
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has disconnected
            for piece in content:
                self.wfile.write(piece)

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers), None))

    def log_message(self, *_):
        pass


def question(body) -> str:
    return body["messages"][1]["content"]


@pytest.fixture
def serve(monkeypatch):
    """serve(*answers): an endpoint, set in the environment; waits are recorded, not slept."""
    servers, waits = [], []
    monkeypatch.setattr(endpoint, "time", SimpleNamespace(sleep=waits.append))
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
         "text": f"Once {loss} {seed}{number}."}
        for loss in losses
        for phase, seed in (("final", 1), ("final", 2), ("reported", 1))
        for number in (0, 1)
    ]  # fmt: skip
    write_json(folder / "samples.json", told)
    write_manifest(params.load([folder / "params.yaml"]), folder)
    return folder


def test_grades_are_means_over_the_first_stories_of_the_final_runs(serve, results):
    worse = json.dumps(GRADES | {"plot": 2})

    def graded(body):
        good = "mse 1" in question(body) or "squentropy 2" in question(body)
        return GOOD if good else answer(f"Here you are:\n```json\n{worse}\n```")

    server = serve(graded)
    judge.judge(results, "some-model", 2)
    table = pd.read_csv(results / "judge.csv")
    assert list(table.columns) == JUDGE
    assert table[["loss", "stories", "plot"]].to_numpy().tolist() == [
        ["mse", 2, 4.0], ["squentropy", 2, 4.0],
    ]  # fmt: skip
    assert (table["plot_low"] <= table["plot"]).all()
    path, headers, body = server.asked[1]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert (body["model"], body["temperature"]) == ("some-model", 0)
    assert server.questions == [  # the first story of each seed
        "Once ***  mse 10.", "Once ***  mse 20.",
        "Once ***  squentropy 10.", "Once ***  squentropy 20.",
    ]  # fmt: skip


def test_a_busy_endpoint_is_asked_again_when_it_says(serve, results, monkeypatch):
    monkeypatch.setattr(judge, "AT_ONCE", 1)
    busy = (429, {"Retry-After": "7"}, b"slow down")
    server = serve(busy, (503, {}, b""), GOOD)
    assert judge.judge(results, "m", 1)[0]["grammar"] == 8
    assert server.waits == [7, 4]
    assert len(server.asked) == 4


def test_what_was_answered_is_kept_when_a_later_question_fails(serve, results):
    def graded(body):
        return (401, {}, b"quota") if "squentropy 2" in question(body) else GOOD

    server = serve(graded)
    with pytest.raises(SquentropyError, match="answers 401: quota"):
        judge.judge(results, "m", 2)
    assert not (results / "judge.csv").exists()
    answered = len((results / "judge.jsonl").read_text().splitlines())
    assert 1 <= answered <= 3
    with (results / "judge.jsonl").open("a") as file:
        file.write('{"model": "m", "sto')  # as after a kill
    server.answers, server.asked = [GOOD], []
    assert [row["stories"] for row in judge.judge(results, "m", 2)] == [2, 2]
    assert len(server.asked) == 4 - answered
    server.asked.clear()
    assert [row["stories"] for row in judge.judge(results, "m", 2)] == [2, 2]
    assert server.asked == []
    judge.judge(results, "another", 1)
    assert len(server.asked) == 2


def test_several_questions_are_under_way_at_once(serve, results):
    together = threading.Barrier(judge.AT_ONCE)

    def graded(body):
        together.wait(30)  # until that many requests have arrived
        return GOOD

    serve(graded)
    assert len(judge.judge(results, "m", 2)) == 2


def test_the_report_shows_the_grades_of_these_stories_alone(serve, results):
    assert generation.judged(read(results)) == ""
    serve(GOOD)
    judge.judge(results, "<m>", 2)
    shown = generation.judged(read(results))
    assert "&lt;m&gt;" in shown
    assert shown.count("8.0") >= 2
    told = json.loads((results / "samples.json").read_text())
    write_json(results / "samples.json", told[1:])
    write_manifest(params.load([results / "params.yaml"]), results)
    with pytest.raises(SquentropyError, match=r"judge\.csv: grades other stories"):
        read(results)


# --- invalid answers ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("leads", ["to another host", "to the same", "to another scheme"])
def test_a_redirect_is_not_followed_so_the_key_goes_nowhere_else(serve, results, status, leads):
    other = serve(GOOD)
    to = {"to another host": other.url, "to another scheme": "file:///etc/passwd"}
    server = serve(lambda _: (status, {"Location": to.get(leads, f"{server.url}/x")}, b""))
    with pytest.raises(SquentropyError, match="where your key was not sent") as error:
        judge.judge(results, "m", 1)
    assert to.get(leads, server.url) in str(error.value)
    assert other.asked == []
    assert {path for path, _, _ in server.asked} == {"/v1/chat/completions"}


def test_an_answer_without_end_is_given_up(serve, results):
    serve((200, {}, itertools.repeat(b"x" * 100_000)))
    with pytest.raises(SquentropyError, match="answers more than 1,000,000 bytes"):
        judge.judge(results, "m", 1)
    serve((500, {}, itertools.repeat(b"x" * 100_000)))
    with pytest.raises(SquentropyError, match="answers 500: xxx"):
        judge.judge(results, "m", 1)


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_that_trickles_is_given_up_in_time(serve, results, monkeypatch, status):
    monkeypatch.setattr(endpoint, "TIMEOUT", 0.2)
    monkeypatch.setattr(endpoint, "TRIES", 2)
    enough = threading.Event()

    def drops():
        while not enough.wait(0.02):
            yield b" "

    serve(lambda _: (status, {}, drops()))
    with pytest.raises(SquentropyError, match=r"no complete answer within 0\.2 seconds"):
        judge.judge(results, "m", 1)
    enough.set()


def test_an_answer_that_is_cut_off_is_asked_for_again(serve, results):
    server = serve((200, {"Content-Length": "9"}, [b"{"]), GOOD)
    assert judge.judge(results, "m", 1)
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("reply", "said", "asked"),
    [
        ((500, {}, b"<h1>broken\n</h1>"), r"answers 500: <h1>broken </h1>$", endpoint.TRIES),
        ((429, {"Retry-After": "soon"}, b"quota"), r"answers 429: quota$", endpoint.TRIES),
        ((401, {}, b'{"error": "bad key"}'), r'answers 401: \{"error": "bad key"\}$', 1),
        ((200, {}, b"no json"), r"m answered 'no json', which contains no grades", 1),
        ((200, {}, b"[]"), "which contains no grades", 1),
        ((200, {}, b"[" * 100_000), "which contains no grades", 1),
        (answer('{"plot":' * 10_000 + "}"), "which contains no grades", 1),
        (answer(None), "which contains no grades", 1),
        (answer("I like it."), "which contains no grades", 1),
        (answer(json.dumps(GRADES | {"plot": 11})), "which contains no grades", 1),
        (answer(json.dumps({"plot": 3})), "which contains no grades", 1),
    ],
)
def test_what_is_no_grade_is_one_line_and_leaves_no_table(
    serve, results, monkeypatch, reply, said, asked
):
    monkeypatch.setattr(judge, "AT_ONCE", 1)
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
    with pytest.raises(SquentropyError, match="is not an http address"):
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
