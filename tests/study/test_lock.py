"""The lock of a study ends with its holder and names it.

pytest tests/study/test_lock.py
"""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from squentropy.base.errors import SquentropyError
from squentropy.study import lock

HOLD = """
import sys, time
from pathlib import Path
from squentropy.study import lock
lock.hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """The path of a lock and another process that holds it."""
    path = tmp_path / "locks" / "grammar.lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield path, process
    process.kill()
    process.wait()


def test_who_comes_second_is_told_who_holds_it(holder):
    path, process = holder
    said = rf"^grammar: this study is already being run by process {process.pid} on \S+ since 20"
    with pytest.raises(SquentropyError, match=said):
        lock.hold(path)


def test_another_study_is_not_locked(holder):
    path, _ = holder
    lock.hold(path.with_name("other.lock"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_frees_it(holder, number):
    path, process = holder
    process.send_signal(number)
    process.wait()
    lock.hold(path)
    assert f"process {os.getpid()} on " in path.read_text()


def test_the_processes_that_the_holder_starts_do_not_keep_it(tmp_path):
    """Such as a shell command that outlives a killed Snakemake."""
    path = tmp_path / "a.lock"
    code = HOLD.replace("time.sleep(60)", "import subprocess; subprocess.Popen(['sleep', '60'])")
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, stdout=subprocess.DEVNULL)
    lock.hold(path)


def test_where_the_file_system_has_no_locks_the_study_runs_and_says_so(
    tmp_path, monkeypatch, capsys
):
    """As on a Lustre file system that is mounted without locks."""

    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    path = tmp_path / "a.lock"
    lock.hold(path)
    said = capsys.readouterr().err
    assert f"{path}: cannot be locked (Function not implemented)" in said
    assert f"process {os.getpid()} on " in path.read_text()


def test_who_holds_a_lock_can_be_asked(holder, tmp_path):
    path, process = holder
    assert lock.holder(path).startswith(f"process {process.pid} on ")
    process.kill()
    process.wait()
    assert lock.holder(path) is None
    assert lock.holder(tmp_path / "never.lock") is None


def test_to_ask_stops_no_study_that_starts_just_then(tmp_path, monkeypatch):
    path = tmp_path / "grammar.lock"
    path.touch()
    asking = path.open()
    fcntl.flock(asking, fcntl.LOCK_SH)
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: asking.close())
    lock.hold(path)
    assert lock.holder(path).startswith(f"process {os.getpid()} on ")
    lock._held.pop().close()
