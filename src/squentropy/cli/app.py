"""The program `squentropy`: its commands by what they are for, and what an error says.

Each command does one thing by hand that Snakemake, too, asks for in a study; the library does it.
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
    """Typer's group, but for what its methods say."""

    def resolve_command(self, ctx, args):
        """The lines of an example stay as they are written, however narrow the terminal.

        And `sample --prompt`, as it once was, is `tell`.
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
        """By panel, as plain text."""
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
    help="Does a squared loss belong in a language model? The study's steps, one command each.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; also after a command.")
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
"""The commands, by what they are for, in the order of the help."""

for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command; whatever goes wrong is one line on stderr and an exit code of base/errors.py.

    `--debug`, before or after the command's name, shows the traceback too. That of a bug is also
    shown where SQUENTROPY_TRACEBACKS is set, as it is for the jobs of Snakemake, for their logs.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    debug = "--debug" in options
    words = [word for word in options if word != "--debug"] + given[len(options) :]
    os.environ["MPLBACKEND"] = "agg"  # figures are files, whatever a notebook's shell has exported
    with output.for_people():
        code = _run(words, debug)
    _end(code)


def _end(code: int) -> NoReturn:
    """Exit, without a last search for garbage: half a second of it, once torch is imported.

    A process that trains with others does not take Python down at all: a thread of gloo that frees
    its last tensor meanwhile aborts it (pytorch/pytorch#179291), and a run that has ended well
    would count as a failed one.
    """
    torch = sys.modules.get("torch")
    if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
        sys.stderr.flush()
        os._exit(code)
    gc.freeze()
    sys.exit(code)


def _run(words: list[str], debug: bool) -> int:
    """The exit code of a command, once it is known that all it says has been written."""
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
        with contextlib.suppress(SquentropyError):  # of stderr: nobody is left to tell
            if debug or (code == errors.BUG and "SQUENTROPY_TRACEBACKS" in os.environ):
                traceback.print_exc()
            if line:
                output.say(line)
        return code
    return errors.OK


if __name__ == "__main__":
    main()
