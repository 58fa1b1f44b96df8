"""The program `squentropy`: its commands, grouped by purpose, and its error handling.

The commands are thin wrappers over the library. Snakemake runs the same ones in a study.
"""

import contextlib
import copy
import gc
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

import squentropy
from squentropy.base import errors, home, installed, output
from squentropy.base.errors import SquentropyError
from squentropy.cli import models, steps, tools
from squentropy.cli.explain import explain


class Commands(TyperGroup):
    """Typer's group with the changes described in its methods."""

    def resolve_command(self, ctx, args):
        """Keep the line breaks of examples in narrow terminals.

        Also maps the former `sample --prompt` to `tell`.
        """
        if args[0] == "sample" and any(word.split("=")[0] == "--prompt" for word in args):
            output.say("`sample --prompt` is now `squentropy tell`")
            args = ["tell", *args[1:]]
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and command.help:
            text, command = command.help, copy.copy(command)
            command.help = text.replace("\nExample:", "\n\b\nExample:")
        return name, command, rest

    def format_commands(self, ctx, formatter):
        """List the commands by panel, as plain text."""
        commands = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        width = max(len(name) for name, _ in commands)
        limit = formatter.width - 6 - width
        for panel in PANELS:
            with formatter.section(panel):
                formatter.write_dl(
                    [
                        (name.ljust(width), command.get_short_help_str(limit))
                        for name, command in commands
                        if isinstance(command, TyperCommand) and command.rich_help_panel == panel
                    ]
                )


app = typer.Typer(
    cls=Commands,
    help="Does a squared loss belong in a language model? One command per step of the study.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; allowed after a command, too.")
    ] = False,
) -> None:
    if version:
        print(f"squentropy {squentropy.__version__}")
        raise typer.Exit
    installed.check_own(Path.cwd())


PANELS: dict[str, list[Callable[..., None]]] = {
    "Study steps": [
        steps.corpus, steps.tokenize, steps.train, steps.sweep, steps.refine, steps.lengths,
        steps.select, steps.evaluate, steps.sample, steps.voices, steps.metrics,
        steps.figures, steps.report,
    ],
    "Models": [models.tell, models.check, models.export, models.score, models.judge],
    "Sharing": [
        tools.record, tools.restore, tools.leaderboard, tools.readme, tools.claims, tools.pdf,
    ],
    "Tools": [
        tools.params, tools.show, tools.why, tools.live, tools.tensorboard, tools.wandb,
    ],
}  # fmt: skip
"""The commands, grouped by purpose, in the order of the help."""

for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command; any error is one line on stderr and an exit code from base/errors.py.

    `--debug`, before or after the command's name, also shows the traceback. Tracebacks of bugs are
    also shown if SQUENTROPY_TRACEBACKS is set, as it is in Snakemake's jobs for their logs.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    debug = "--debug" in options
    words = [word for word in options if word != "--debug"] + given[len(options) :]
    os.environ["MPLBACKEND"] = "agg"  # figures are files; a notebook's shell may export another
    with output.for_people():
        code = _run(words, debug)
    _end(code)


def _end(code: int) -> NoReturn:
    """Exit without a final garbage collection, which takes half a second once torch is imported.

    In distributed training, Python's shutdown is skipped: if a gloo thread frees its last tensor
    during it, the process aborts (pytorch/pytorch#179291), and a finished run counts as failed.
    """
    torch = sys.modules.get("torch")
    if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
        sys.stderr.flush()
        os._exit(code)
    gc.freeze()
    sys.exit(code)


def _run(words: list[str], debug: bool) -> int:
    """Run a command; returns its exit code after flushing standard output."""
    try:
        try:
            home.ensure(Path())
            app(words, prog_name="squentropy")
        finally:
            sys.stdout.flush()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else errors.OK
    except KeyboardInterrupt:
        return errors.INTERRUPTED
    except Exception as error:
        line, code = explain(error, " ".join(words[:1]))
        with contextlib.suppress(SquentropyError):  # stderr is closed: nowhere to report it
            if debug or (code == errors.BUG and "SQUENTROPY_TRACEBACKS" in os.environ):
                traceback.print_exc()
            if line:
                output.say(line)
        return code
    return errors.OK


if __name__ == "__main__":
    main()
