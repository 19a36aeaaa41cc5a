#!/bin/sh
# Installs a wheel into a fresh environment and uses it there, without a compiler:
#
#     tests/helpers/try_wheel.sh WHEEL PYTHON [TORCH [SITE]]
#
# TORCH: what pip installs first, such as torch==2.10.0. SITE: a folder whose torch is taken instead.
set -eu
wheel=$1
python=$2
torch=${3:-torch}
place=$(mktemp -d)
trap '/bin/rm -rf "$place"' EXIT
"$python" -m venv "$place/venv"
if test -n "${4:-}"; then
    echo "$4" > "$("$place/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch.pth"
    "$place/venv/bin/python" -m pip install -q --no-deps "$wheel"
else
    "$place/venv/bin/python" -m pip install -q "$torch" numpy
    "$place/venv/bin/python" -m pip install -q "$wheel"
fi
cd "$place"
export CC=/bin/false CXX=/bin/false PATH="$place/venv/bin"
python - <<'END'
import re
import shutil
from pathlib import Path

import inpaint_ops  # before torch, whose OpenMP it takes
import torch
from inpaint_ops.ops import native

assert not any(map(shutil.which, ("cc", "gcc", "g++", "clang")))

assert "venv" in inpaint_ops.__file__, inpaint_ops.__file__
assert native.status().available, native.status().error
torch.manual_seed(0)
x, weight, bias = torch.rand(1, 6, 40, 40), torch.rand(8, 6, 3, 3), torch.rand(8)
ours = inpaint_ops.fused_conv2d(x, weight, bias, padding=1)
torch.testing.assert_close(ours, torch.nn.functional.conv2d(x, weight, bias, padding=1))
hole = torch.zeros(1, 1, 64, 64)
hole[..., 20:40, 20:40] = 1
filled = inpaint_ops.fill_exemplar(torch.rand(1, 3, 64, 64), hole)
assert filled.isfinite().all()
print("torch", torch.__version__, native.status().instruction_set, "inpaint_ops", inpaint_ops.__version__)
maps = Path("/proc/self/maps")
if maps.exists():
    found = set(re.findall(r"\S*lib(?:gomp|omp|iomp)[^\s/]*\.so\S*", maps.read_text()))
    assert len(found) == 1, f"OpenMP of more than one library: {found}"
END
python -m inpaint_ops.doctor
