"""What `snakemake --logger squentropy` prints of Snakemake's records, on a terminal and in a log.

pytest tests/tools/test_logger.py
"""

import io
import logging
import sys

import pytest
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.tests import MockOutputSettings, TestLogHandlerBase

import snakemake_logger_plugin_squentropy as plugin

NAME = "sweep/mse/lr0.01/dropout0.1_layers1"


class TestPlugin(TestLogHandlerBase):
    """Snakemake's own tests for logger plugins."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def _does_not_look_by_itself(self, monkeypatch):
        monkeypatch.setattr(plugin.LogHandler, "_watch", lambda handler: None)

    def get_log_handler_cls(self):
        return plugin.LogHandler

    def get_log_handler_settings(self):
        return None

    def test_an_own_handler_is_told_apart(self):
        handler = self._create_handler()
        assert handler.writes_to_stream
        handler.close()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def handler(monkeypatch):
    """handler(out): a log handler that writes to `out` and does not watch the logs."""
    made = []

    def make(out: io.StringIO) -> plugin.LogHandler:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(plugin.LogHandler, "_watch", lambda self: None)
        made.append(plugin.LogHandler(MockOutputSettings(), None))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def tell():
    """tell(handler, event, message, **about): emits a record as Snakemake does."""

    def tell(handler, event=None, message="", level="INFO", **about) -> None:
        level = logging.getLevelName(level)
        record = logging.LogRecord("snakemake", level, "", 1, message, (), None)
        record.__dict__ |= about | ({"event": event} if event else {})
        handler.emit(record)

    return tell


def begin(handler, tell, study, log) -> None:
    tell(handler, study=study, ending=lambda: "the table")
    tell(handler, message="Select jobs to execute...")
    tell(handler, LogEvent.RESOURCES_INFO, cores=2)
    tell(handler, LogEvent.RUN_INFO, stats={"sweep": 2, "final": 6, "total": 8})
    about = {"jobid": 1, "rule_name": "sweep", "wildcards": {"loss": "mse"}, "log": [str(log)]}
    tell(handler, LogEvent.JOB_INFO, **about)


def test_in_a_log_each_run_is_a_line_and_snakemakes_own_lines_are_not(
    handler, tell, tiny_study, whole_study, tmp_path
):
    out, log = io.StringIO(), tmp_path / "job.log"
    shown = handler(out)
    begin(shown, tell, tiny_study(), log)
    log.write_text(f"{NAME}: 6 iterations, validation nll 5.0\n")
    tell(shown, LogEvent.JOB_FINISHED, job_id=1)
    first, line = out.getvalue().splitlines()
    assert first.startswith("8 jobs are to be done")
    assert line.startswith("sweep     mse  lr 0.01  dropout 0.1  1 layer  nll ")
    assert " 1 of 8   " in line
    assert line.endswith(" left")
    tell(shown, message="Weights of 7 runs", said=True)
    assert out.getvalue().endswith("left\nWeights of 7 runs\n")


def test_on_a_terminal_a_bar_stands_below_the_lines_and_goes_in_the_end(
    handler, tell, tiny_study, tmp_path
):
    out = Terminal()
    shown = handler(out)
    shown._draw(0.0)
    assert "finding out what is to be done" in out.getvalue()
    begin(shown, tell, tiny_study(), tmp_path / "job.log")
    shown._draw(1.0)
    assert out.getvalue().rpartition("\r")[2].strip(" ▏").startswith("0%   0 of 8   ")
    shown.close()
    assert out.getvalue().rpartition("\r")[2] == ""


def test_a_failed_job_says_how_its_log_ends_once(handler, tell, tiny_study, tmp_path, capsys):
    out, log = io.StringIO(), tmp_path / "job.log"
    shown = handler(out)
    begin(shown, tell, tiny_study(), log)
    log.write_text("squentropy: the disk is full\n")
    tell(shown, LogEvent.JOB_ERROR, level="ERROR", jobid=1, rule_name="sweep", log=[str(log)])
    tell(shown, LogEvent.ERROR, "RuleException:\nCalledProcessError in file", level="ERROR")
    tell(shown, message="MissingInputException in rule final", level="ERROR")
    said = capsys.readouterr().err
    assert said.count(f"{log} ends:\nsquentropy: the disk is full\n") == 1
    assert "CalledProcessError" not in said
    assert "MissingInputException in rule final" in said


def test_where_nothing_is_to_be_done_the_study_is_shown_all_the_same(handler, tell, tiny_study):
    out = io.StringIO()
    shown = handler(out)
    tell(shown, study=tiny_study(), ending=lambda: "the table")
    tell(shown, message=plugin.NOTHING_TO_BE_DONE_MSG)
    assert out.getvalue() == f"{plugin.NOTHING_TO_BE_DONE_MSG}\nthe table\n"


def test_a_reader_that_has_gone_ends_nothing(handler, tell):
    class Gone(io.StringIO):
        def write(self, _):
            raise BrokenPipeError

    shown = handler(Gone())
    tell(shown, message="one", said=True)
    tell(shown, message="two", said=True)


def test_a_dry_run_is_left_to_snakemake(handler, tell, monkeypatch):
    settings = MockOutputSettings()
    settings.dryrun = True
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    shown = plugin.LogHandler(settings, None)
    tell(shown, message="one", said=True)
    assert not shown.writes_to_stream
    assert out.getvalue() == ""
