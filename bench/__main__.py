"""`python -m bench NAME` runs `main` of bench/NAME.py; without a name it lists them."""

import importlib
import sys
from pathlib import Path


def main() -> int:
    modules = sorted(Path(__file__).parent.glob("[a-z]*.py"))
    names = [module.stem for module in modules if "\ndef main() -> None:" in module.read_text()]
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        print(f"usage: python -m bench {'|'.join(names)}", file=sys.stderr)
        return 2
    importlib.import_module(f"bench.{sys.argv[1]}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
