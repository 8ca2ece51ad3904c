#!/usr/bin/env bash
# Set up everything the project needs, in this folder: system libraries (where we may), the virtual
# environment, the ROS interfaces. Each step is skipped while the files that it depends on are unchanged.
# With QT_ROS=jazzy everything lies beside it, in .venv-jazzy and so on, with that distribution's wheels.
set -euo pipefail
cd "$(dirname "$0")/.."
suffix=${QT_ROS:+-$QT_ROS}
venv=.venv$suffix stamps=.stamps$suffix colcon=.colcon$suffix
if [ ! -f "constraints$suffix.txt" ]; then
    echo "setup: QT_ROS=$QT_ROS is not known; leave it out for Kilted, or set it to jazzy" >&2
    exit 1
fi
mkdir -p "$stamps"
python=${PYTHON:-python3}

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
fingerprint() { cat "$@" | sha256sum | cut -d' ' -f1; }
fresh() { [ -f "$stamps/$1" ] && [ "$(cat "$stamps/$1")" = "$2" ]; }  # STEP FINGERPRINT

system_packages() {
    # Off-screen OpenGL for the simulator, venv for Python, a compiler for the interfaces.
    local missing=()
    ldconfig -p | grep -q 'libEGL\.so\.1' || missing+=(libegl1 libegl-mesa0 libgl1-mesa-dri)
    "$python" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
    command -v g++ >/dev/null || missing+=(g++)
    "$python" - <<'PY' || missing+=(python3-dev)
import pathlib, sys, sysconfig
sys.exit(not (pathlib.Path(sysconfig.get_path('include')) / 'Python.h').exists())
PY
    [ ${#missing[@]} -eq 0 ] && return
    local apt='apt-get'
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
            echo "setup: please install these packages and run 'make setup' again:" >&2
            echo "    sudo apt-get install ${missing[*]}" >&2
            exit 1
        fi
        apt='sudo -n apt-get'
    fi
    say "system packages: ${missing[*]}"
    $apt update -qq && $apt install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

constraints() {
    # The versions that are tested; a distribution's own file has the last word on what it names.
    awk -F'==' 'FNR == NR {named[$1]; print; next} !($1 in named)' "constraints$suffix.txt" constraints.txt
}

virtual_environment() {
    local print; print=$(fingerprint setup.cfg setup.py pyproject.toml <(constraints); "$python" -V)
    fresh venv "$print" && return
    say "virtual environment ($venv): PyTorch, ROS 2 and the simulator from PyPI"
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    constraints > "$stamps/constraints.txt"
    local more=()  # what Jazzy's build files look for besides, whether tests are built or not
    [ "$suffix" != -jazzy ] || more=(ros-ament-cmake-{gmock,gtest,pytest} ros-python-cmake-module)
    "$venv/bin/pip" install -q --disable-pip-version-check -c "$stamps/constraints.txt" \
        -e '.[ros,sim,dev]' "${more[@]}"
    echo "$print" > "$stamps/venv"
    rm -f "$stamps/interfaces"
}

interfaces() {
    local names print
    names=$(find launch config -type f | sort)
    print=$(fingerprint CMakeLists.txt package.xml setup.cfg msg/* srv/* action/*; echo "$names")
    fresh interfaces "$print" && return
    say 'ROS package (colcon build)'
    local prefix="$PWD/$venv"
    mkdir -p "$colcon"
    if ! env PATH="$prefix/bin:$PATH" AMENT_PREFIX_PATH="$prefix" CMAKE_PREFIX_PATH="$prefix" \
        "$prefix/bin/colcon" --log-base "$colcon/log" build --base-paths . \
        --build-base "$colcon/build" --install-base "$colcon/install" --symlink-install \
        --cmake-args -DBUILD_TESTING=OFF "-DPython3_EXECUTABLE=$prefix/bin/python" \
        > "$colcon/build.log" 2>&1; then
        tail -n 40 "$colcon/build.log" >&2
        echo "setup: colcon build failed; the whole log is in $colcon/build.log" >&2
        exit 1
    fi
    echo "$print" > "$stamps/interfaces"
}

system_packages
virtual_environment
interfaces
