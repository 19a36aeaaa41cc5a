#!/usr/bin/env bash
# Builds the extension for 64-bit Arm and runs the operator tests under qemu's user-mode emulation.
#
#   tests/helpers/arm64.sh PACKAGE [pytest's arguments]
#
# PACKAGE is the package as it is installed, without an extension; `make arm64` makes it. On Debian:
# apt-get install g++-aarch64-linux-gnu qemu-user-static. Python for Arm comes from Debian's own
# packages, unpacked beside PACKAGE, and everything else from wheels.
set -euo pipefail
cd "$(dirname "$0")/.."
package=$(realpath "$1")
shift
root=$(dirname "$package")/root
site=$(dirname "$package")/site
apt=$(dirname "$package")/apt
python=${PYTHON_FOR_PIP:-python3}
# The last release whose wheels for Arm hold no CUDA.
torch="torch==2.10.0"
version=3.11  # Debian 12's

for tool in qemu-aarch64-static aarch64-linux-gnu-g++ apt-get dpkg-deb; do
  command -v "$tool" >/dev/null || { echo "arm64: $tool is missing" >&2; exit 1; }
done

# A foreign root of its own: the packages of this machine are left alone.
if [ ! -e "$root/.complete" ]; then
  mkdir -p "$root" "$apt/state/lists/partial" "$apt/cache/archives/partial"
  : >"$apt/status"
  options=(-q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o "Dir::State=$apt/state"
    -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache")
  apt-get "${options[@]}" update
  apt-get "${options[@]}" -y --no-install-recommends --download-only install \
    "python$version" "libpython$version-dev" libgomp1 libstdc++6
  for archive in "$apt"/cache/archives/*.deb; do dpkg-deb -x "$archive" "$root"; done
  touch "$root/.complete"
fi

if [ ! -e "$site/.complete" ]; then
  mkdir -p "$site"
  grep -E '^(numpy|pytest|hypothesis)==' constraints.txt >"$site/../requirements.txt"
  "$python" -m pip install -q --no-compile --upgrade --target "$site" --only-binary :all: \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
    --python-version "$version" --implementation cp --abi "cp${version/./}" --abi abi3 --abi none \
    -r "$site/../requirements.txt" "$torch" pybind11 setuptools
  touch "$site/.complete"
fi

arm_python() {
  PYTHONPATH="$package:$site" qemu-aarch64-static -L "$root" "$root/usr/bin/python$version" "$@"
}

# The emulated Python runs the compiler of this machine.
include="-idirafter $root/usr/include/python$version -idirafter $root/usr/include"
CC="aarch64-linux-gnu-g++ $include" CXX="aarch64-linux-gnu-g++ $include" \
  LDSHARED="aarch64-linux-gnu-g++ -shared" LDCXXSHARED="aarch64-linux-gnu-g++ -shared" \
  CFLAGS=-Werror INPAINT_OPS_REQUIRE_EXTENSION=1 \
  arm_python setup.py -q build_ext --build-temp "$(dirname "$package")/objects" --build-lib "$package"
arm_python -P -m pytest -q -p no:cacheprovider "$@"
