"""What spark-submit is given: runs the reference job that its first argument names."""

from __future__ import annotations

import sys

from processors.spark.jobs.common import main

if __name__ == "__main__":
    sys.exit(main())
