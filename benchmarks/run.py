"""Run the benchmarks, or the one named: each is a script that prints ``key: value unit`` lines.

Usage: python benchmarks/run.py [NAME]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(only: str | None) -> int:
    """Run every ``bench_*.py`` (or the named one) in a process of its own; return the number that failed."""
    scripts = {path.stem.removeprefix("bench_"): path for path in sorted(HERE.glob("bench_*.py"))}
    if only and only not in scripts:
        print(f"no benchmark {only!r}; there are: {', '.join(scripts)}", file=sys.stderr)
        return 2
    failed = 0
    for name, path in scripts.items():
        if only in (None, name):
            print(f"# {name} (load average {os.getloadavg()[0]:.2f})", flush=True)
            failed += subprocess.run([sys.executable, path], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
