import sys

from inpaint_ops.benchmarks.main import run

sys.exit(run(sys.argv[1:]))
