# Sourced by the scripts that build and test.

# need PACKAGE TEST [PACKAGE TEST]...
# Installs the Debian packages whose TEST fails; names them in one line and stops where that is not possible.
need() {
    local missing=()
    while [ $# -gt 0 ]; do
        bash -c "$2" >/dev/null 2>&1 || missing+=("$1")
        shift 2
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "please install first: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

# What every build needs.
need_to_build() {
    # g++: libzmq is C++.
    need g++ 'command -v g++' \
        gcc 'command -v cc gcc' \
        libc6-dev 'echo "#include <stdio.h>" | gcc -E -' \
        pkg-config 'command -v pkg-config' \
        libssl-dev 'pkg-config --exists openssl'
    if ! command -v cargo >/dev/null; then
        echo "please install first: Rust 1.95 or later (cargo, rustc)" >&2
        exit 1
    fi
}

# A TCP port of 127.0.0.1 on which nobody answers.
free_port() {
    local port
    for _ in $(seq 50); do
        port=$((20000 + RANDOM % 10000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    return 1
}

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" 2>/dev/null; do
        [ $SECONDS -lt $end ] || { echo "gave up waiting: $*" >&2; return 1; }
        sleep 0.1
    done
}
