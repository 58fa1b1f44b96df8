"""Read hostile story files one by one, each in its own process, and measure memory and time.

python tests/corpus/bounded.py FILE...    one line of JSON per file: outcome, MB, CPU seconds
"""

import json
import os
import resource
import sys
import traceback
from pathlib import Path

from squentropy.base.errors import SquentropyError
from squentropy.corpus import files

SECONDS = 20


def outcome(path: Path) -> str:
    """`read`, or the error message."""
    separator = "blank line" if "blank" in path.name else "<|endoftext|>"
    try:
        for _ in files.read(path, "text", separator):
            pass
    except SquentropyError as error:
        return str(error)
    return "read"


def measure(path: Path) -> dict:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        try:
            said = outcome(path)
        except BaseException:
            said = traceback.format_exc()
        os.write(writer, said.encode(errors="backslashreplace")[-4000:])
        os._exit(0)
    os.close(writer)
    said = b"".join(iter(lambda: os.read(reader, 1 << 16), b"")).decode()
    os.close(reader)
    _, status, usage = os.wait4(child, 0)
    return {
        "file": path.name,
        "said": said,
        "status": status,
        "mb": usage.ru_maxrss / 1024,
        "seconds": usage.ru_utime + usage.ru_stime,
    }


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps(measure(Path(name))), flush=True)
