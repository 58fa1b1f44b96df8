"""Parameters as nested mappings: overlay one on another, and compare two."""


def overlay(base: dict, over: dict) -> dict:
    """`base` with the keys of `over`; mappings merge, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = overlay(merged[key], value) if both else value
    return merged


def differences(old: dict, new: dict, where: str = "") -> list[str]:
    """The dotted keys whose values differ."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{where}{key}.")
        elif a != b:
            found.append(f"{where}{key}")
    return found
