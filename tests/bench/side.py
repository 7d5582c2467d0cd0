"""The process behind `ScriptSide`: one JSON request a line on standard input, one JSON answer a line on the output."""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the measured code prints goes to the log
    names: dict[str, Any] = {"__name__": "__side__"}
    for line in sys.stdin:
        what, code = json.loads(line)
        try:
            if what == "run":
                exec(code, names)
                value = None
            else:
                value = eval(code, names)
            answer = json.dumps([True, value])
        except BaseException:  # noqa: BLE001 - the bench decides what it means
            answer = json.dumps([False, traceback.format_exc()[-4000:]])
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    main()
