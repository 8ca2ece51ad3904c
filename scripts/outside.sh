#!/usr/bin/env bash
# Run the outside check on the seeds given, in .venv-outside: what d3rlpy asks for does not go with
# Meta-World. That environment sees the product's packages behind its own.
set -eo pipefail
cd "$(dirname "$0")/.."
. ./env.sh
own=.venv-outside
packages() { "$1" -c "import sysconfig; print(sysconfig.get_path('purelib'))"; }
if ! cmp -s bench/learning/outside.txt "$own/made-of.txt"; then
    python -m venv "$own"
    packages python > "$(packages "$own/bin/python")/product.pth"
    "$own/bin/pip" install -q --disable-pip-version-check -r bench/learning/outside.txt
    cp bench/learning/outside.txt "$own/made-of.txt"
fi
exec "$own/bin/python" -W ignore -m bench.learning.outside --seeds "$@"
