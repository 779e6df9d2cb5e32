"""`python -m bench NAME` runs bench/NAME.py; without a name it lists them."""

import importlib
import pkgutil
import sys

import bench

NOT_BENCHES = {"__main__", "report"}


def main() -> int:
    names = sorted({module.name for module in pkgutil.iter_modules(bench.__path__)} - NOT_BENCHES)
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        print(f"usage: python -m bench {'|'.join(names)}", file=sys.stderr)
        return 2
    importlib.import_module(f"bench.{sys.argv[1]}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
