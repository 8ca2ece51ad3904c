# Source this (`. ./env.sh`) to work with the project: the virtual environment, the built ROS
# interfaces and this checkout's modules, for bash and for POSIX shells started in this folder.
# With QT_ROS=jazzy those of that distribution, which `make test-jazzy` sets up beside the others.
if [ -n "${BASH_SOURCE:-}" ]; then
    QT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
else
    QT_ROOT=$(pwd)
fi
qt_suffix="${QT_ROS:+-$QT_ROS}"
if [ ! -f "$QT_ROOT/.stamps$qt_suffix/interfaces" ]; then
    echo "env.sh: nothing is set up in $QT_ROOT yet; run 'make setup' there first" >&2
    return 1 2>/dev/null || exit 1
fi
. "$QT_ROOT/.venv$qt_suffix/bin/activate"
qt_prefix="$QT_ROOT/.colcon$qt_suffix/install/q_transformer_ros"
qt_site=$(python -c "import sysconfig; print(sysconfig.get_path('purelib', 'posix_prefix', {'base': '$qt_prefix'}))")
qt_prepend() {  # NAME VALUE: put VALUE first in the path list NAME, once
    eval "qt_old=\${$1:-}"
    case ":$qt_old:" in
        *":$2:"*) ;;
        *) eval "export $1=\"$2\${qt_old:+:\$qt_old}\"" ;;
    esac
}
qt_prepend AMENT_PREFIX_PATH "$VIRTUAL_ENV"
qt_prepend AMENT_PREFIX_PATH "$qt_prefix"
qt_prepend LD_LIBRARY_PATH "$qt_prefix/lib"
qt_prepend PYTHONPATH "$qt_site"
qt_prepend PYTHONPATH "$QT_ROOT"   # before the installed copy: edits count at once
export QT_ROOT
# Loopback only, unless the user has chosen otherwise.
export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}"
unset -f qt_prepend
unset qt_prefix qt_site qt_old qt_suffix
