"""A Kubernetes API on loopback, limited to what Snakemake uses.

It records the secrets and jobs that it receives. Each job has one pod, which a function runs in
place of the cluster's nodes.
"""

import base64
import json
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import yaml

Ended = tuple[int, str]
"""A pod's exit code and its log."""


class Cluster:
    """Accepts jobs while it is open, and runs `pod(job, environment)` for each.

    job          the manifest that was sent
    environment  the variables of its container, with the values of the secrets
    """

    def __init__(self, pod: Callable[[dict, dict[str, str]], Ended], nodes: int = 2):
        self.jobs: list[dict] = []
        self.secrets: dict[str, dict] = {}
        self.pods: dict[str, Future[Ended]] = {}
        self._pod, self._nodes = pod, ThreadPoolExecutor(nodes)
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do(self) -> None:
                size = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(size)) if size else {}
                status, answer = cluster.answer(self.command, self.path, body)
                text = answer if isinstance(answer, str) else json.dumps(answer)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = do_DELETE = do

            def log_message(self, *words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> "Cluster":
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._nodes.shutdown(cancel_futures=True)

    def write_kubeconfig(self, path: Path) -> None:
        host, port = self._server.server_address[:2]
        context = {"cluster": "loopback", "user": "nobody"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "loopback",
            "clusters": [{"name": "loopback", "cluster": {"server": f"http://{host}:{port}"}}],
            "contexts": [{"name": "loopback", "context": context}],
            "users": [{"name": "nobody", "user": {}}],
        }
        path.write_text(yaml.safe_dump(config))

    def answer(self, method: str, url: str, body: dict) -> tuple[int, dict | str]:
        """The status code and the body of the response to a request."""
        path, query = urlsplit(url).path, parse_qs(urlsplit(url).query)
        kind, name, rest = re.fullmatch(
            r"/(?:api|apis/batch)/v1/namespaces/default/(\w+)/?([\w-]*)/?(\w*)", path
        ).groups()
        match method, kind, rest:
            case "POST", "secrets", _:
                self.secrets[body["metadata"]["name"]] = body["data"]
                return 201, body
            case "POST", "jobs", _:
                self.jobs.append(body)
                self.pods[body["metadata"]["name"]] = self._nodes.submit(
                    self._pod, body, self._environment(body)
                )
                return 201, body
            case "GET", "jobs", "status" if name in self.pods:
                return 200, self._job(name)
            case "GET", "pods", "log":
                if "previous" in query:  # the container was never restarted
                    return 400, _refusal(f"previous terminated container in pod {name} not found")
                return 200, self.pods[name].result()[1]
            case "GET", "pods", _:
                of = query["labelSelector"][0].removeprefix("job-name=")
                return 200, {"kind": "PodList", "items": [self._description(of)]}
            case "DELETE", _, _:
                return 200, {"kind": "Status", "status": "Success"}
        return 404, _refusal(f"{method} {url}")

    def _environment(self, job: dict) -> dict[str, str]:
        found = {}
        for variable in job["spec"]["template"]["spec"]["containers"][0].get("env", []):
            key = variable["valueFrom"]["secretKeyRef"]
            value = base64.b64decode(self.secrets[key["name"]][key["key"]])
            found[variable["name"]] = value.decode()
        return found

    def _job(self, name: str) -> dict:
        done = self.pods[name]
        status = {"active": 1}
        if done.done():
            status = {"failed": 1} if done.result()[0] else {"succeeded": 1}
        return {"kind": "Job", "metadata": {"name": name}, "status": status}

    def _description(self, name: str) -> dict:
        done = self.pods[name]
        state = {"terminated": {"exitCode": done.result()[0]}} if done.done() else {"running": {}}
        container = {"name": "snakemake", "image": "", "imageID": "", "ready": False}
        status = {"containerStatuses": [container | {"restartCount": 0, "state": state}]}
        return {"metadata": {"name": name}, "status": status}


def _refusal(message: str) -> dict:
    return {"kind": "Status", "status": "Failure", "message": message}
