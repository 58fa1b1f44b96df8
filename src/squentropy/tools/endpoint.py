"""A client for endpoints with OpenAI's protocol, with limits on time and size and no redirects.

Reads OPENAI_API_KEY, and OPENAI_BASE_URL for endpoints other than OpenAI's.
"""

import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from http.client import HTTPException, IncompleteRead
from typing import Any, TypeVar

from squentropy.base.errors import SquentropyError
from squentropy.base.output import one_line

OPENAI = "https://api.openai.com/v1"
TRIES = 5
TIMEOUT = 120  # seconds for a complete answer
MOST_BYTES = 1_000_000  # per answer; one with four grades has a few hundred

T = TypeVar("T")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Returns redirects as answers, because urllib would send the key to wherever they lead."""

    def redirect_request(self, *_: Any) -> None:
        return None


def check() -> tuple[str, str]:
    """The endpoint's address and its key. Raises SquentropyError if either is unusable."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key:
        raise SquentropyError("OPENAI_API_KEY: is not set; the judge needs an endpoint's key")
    if not (key.isascii() and key.isprintable()):
        raise SquentropyError("OPENAI_API_KEY: has characters that no key has; copy it again")
    url = os.environ.get("OPENAI_BASE_URL", OPENAI).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise SquentropyError(f"OPENAI_BASE_URL = {url}: is not an http address")
    return url, key


def ask(body: dict[str, Any]) -> bytes:
    """The endpoint's answer; a busy endpoint is asked again after the time that it requests."""
    url, key = check()
    request = urllib.request.Request(
        f"{url}/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )
    for attempt in range(1, TRIES + 1):
        try:
            status, headers, content = _within(TIMEOUT, lambda: _once(request))
        except (OSError, HTTPException) as error:  # no connection, timeout, or truncated answer
            if attempt == TRIES:
                reason = getattr(error, "reason", error)
                if isinstance(error, TimeoutError):
                    reason = f"no complete answer within {TIMEOUT:g} seconds"
                raise SquentropyError(f"{url}: cannot be reached: {reason}") from None
            time.sleep(_seconds(None, attempt))
            continue
        if status < 300:
            if len(content) > MOST_BYTES:
                raise SquentropyError(
                    f"{url}: answers more than {MOST_BYTES:,} bytes; is this the right endpoint?"
                )
            return content
        if status < 400:
            raise SquentropyError(
                f"{url}: redirects to {one_line(headers.get('Location', 'nowhere'))[:200]}, where "
                "your key was not sent; if it should be, set OPENAI_BASE_URL to that address"
            )
        if (status != 429 and status < 500) or attempt == TRIES:
            said = " ".join(content.decode(errors="replace").split())[:200]
            raise SquentropyError(f"{url}: answers {status}: {said}")
        time.sleep(_seconds(headers.get("Retry-After"), attempt))
    raise AssertionError("unreachable")


def _once(request: urllib.request.Request) -> tuple[int, Any, bytes]:
    """Status, headers and the first bytes of an answer, for any status."""
    try:
        response = urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        content = response.read(MOST_BYTES + 1)
        if getattr(response, "length", None) and len(content) <= MOST_BYTES:
            raise IncompleteRead(content)
        return response.status, response.headers, content


def _within(seconds: float, function: Callable[[], T]) -> T:
    """The result of a function; raises TimeoutError, without stopping it, if it takes longer.

    A socket's own timeout limits only silence, so one byte per second would never trigger it.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(seconds)


def _seconds(asked: str | None, attempt: int) -> float:
    """Seconds to wait, at most 60: as the endpoint asks, else doubling with each attempt."""
    try:
        return min(60.0, max(0.0, float(asked or "")))
    except ValueError:
        return min(60.0, 2.0**attempt)
