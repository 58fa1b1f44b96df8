"""Does a squared loss belong in a language model? The library behind the study."""

__version__ = "0.1.0"
