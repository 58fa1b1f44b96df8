"""Forms of English words that follow from their spelling."""


def article(text: str) -> str:
    """The indefinite article before `text`: "a" or "an"."""
    word = text.lower()
    if word.startswith(("hour", "honest")):
        return "an"
    if word.startswith(("uni", "use", "one")):
        return "a"
    return "an" if word[0] in "aeiou" else "a"


def _plural(text: str) -> str:
    if text.endswith(("s", "x", "z", "ch", "sh")):
        return text + "es"
    if text.endswith("y") and text[-2] not in "aeiou":
        return text[:-1] + "ies"
    return text + "s"


# Forms that every entry has without being listed.
DERIVED = {
    "a": lambda text: f"{article(text)} {text}",
    "the": lambda text: f"the {text}",
    "s": _plural,
}
