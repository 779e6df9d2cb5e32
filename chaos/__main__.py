"""`python -m chaos NAME [SECONDS]` runs `main` of chaos/NAME.py; exit code 1 when a promise was not kept."""

import importlib
import sys
from pathlib import Path

SECONDS = 600


def main() -> int:
    modules = sorted(Path(__file__).parent.glob("[a-z]*.py"))
    names = [module.stem for module in modules if "\ndef main(seconds: int) -> int:" in module.read_text()]
    given = [*sys.argv[1:], str(SECONDS)] if len(sys.argv) == 2 else sys.argv[1:]
    name, seconds = given if len(given) == 2 else ("", "")
    if name not in names or not seconds.isdecimal() or int(seconds) < 1:
        print(f"usage: python -m chaos {'|'.join(names)} [SECONDS]", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"chaos.{name}").main(int(seconds)))


if __name__ == "__main__":
    sys.exit(main())
