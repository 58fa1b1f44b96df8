"""Does a squared loss belong in a language model? The library behind the study.

    run = squentropy.load_run("checkpoints/grammar/final/squentropy/seed1")
    run.generate("Once upon a time")                     run.logits("Once upon a"), run.history
    squentropy.load_results("results/grammar").metrics   every table of a study as a DataFrame
    squentropy.functional.squentropy(logits, targets)    squentropy.nn.Squentropy() as a module

These names are imported on first use, so `import squentropy` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from squentropy import functional as functional
    from squentropy import nn as nn
    from squentropy.base.errors import SquentropyError as SquentropyError
    from squentropy.library.results import load_results as load_results
    from squentropy.library.runs import load_run as load_run

__version__ = "0.1.0"

_OFFERED = {
    "functional": "squentropy.functional",
    "nn": "squentropy.nn",
    "SquentropyError": "squentropy.base.errors",
    "load_run": "squentropy.library.runs",
    "load_results": "squentropy.library.results",
}
"""Each public name, and the module that it is or is defined in."""


def __getattr__(name: str) -> Any:
    """Import a public name. Raises SquentropyError if a package that it needs is missing."""
    if name not in _OFFERED:
        raise AttributeError(f"module 'squentropy' has no attribute {name!r}")
    from squentropy.base import installed
    from squentropy.base.errors import SquentropyError

    installed.warn_of_another()
    try:
        module = importlib.import_module(_OFFERED[name])
    except ModuleNotFoundError as error:
        missing = installed.missing(error.name or name)
        raise SquentropyError(f"squentropy.{name}: {missing}") from None
    return module if module.__name__ == f"squentropy.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_OFFERED])
