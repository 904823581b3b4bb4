#!/bin/sh
# Prepares what the three Dockerfiles copy: web/bin and worker/bin (the static program), and redis/rootfs (Redis from
# Debian's packages). Needs cargo, a C linker with static glibc, and apt, but no image registry. It is quick when
# nothing changed. `./build.sh --refresh` downloads Redis again.
set -eu
umask 022
LC_ALL=C
export LC_ALL
cd "$(dirname -- "$0")"

fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    for hint in "$@"; do printf 'hint: %s\n' "$hint" >&2; done
    exit 1
}

need() {
    command -v "$1" >/dev/null 2>&1 || fail "not installed: $1, which is needed for $2" "$3"
}

# put SOURCE TARGET: copies the file unless both are equal, which keeps the time stamp.
put() {
    if cmp -s "$1" "$2"; then return; fi
    mkdir -p "$(dirname -- "$2")"
    cp "$1" "$2.new"
    mv -f "$2.new" "$2"
}

build_program() {
    # Where rustup installs it. A shell that was started earlier does not have it in PATH.
    PATH=$PATH:${CARGO_HOME:-${HOME-/root}/.cargo}/bin
    need cargo "the program" "install Rust with rustup (any ./dev command does)"
    host=$(rustc -vV | sed -n 's/^host: //p')
    # crt-static with an explicit target: without one, cargo would apply the flag to build scripts too.
    RUSTFLAGS='-C target-feature=+crt-static' \
        cargo build --quiet --release --offline --locked --manifest-path app/Cargo.toml --target "$host" \
        --target-dir app/target || fail "cannot compile the program (see above)" \
        "static linking needs the static C library: libc6-dev on Debian"
    for service in web worker; do
        put "app/target/$host/release/guestbook" "$service/bin/guestbook"
    done
}

# Packages with redis-server, redis-cli and the libraries among their dependencies.
redis_packages() {
    apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
        redis-server redis-tools | grep -E '^(lib|lua|redis)[a-z0-9.+:-]*$' | sort -u
}

# Prints the libraries that a file names, one per line.
needed_by() {
    readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]$/\1/p'
}

collect_redis() {
    if [ -e redis/rootfs/usr/bin/redis-server ] && [ "$refresh" = no ]; then return; fi
    why="Redis"
    need apt-get "$why" "on another distribution, replace \`build: ./redis\` by \`image: redis:7\` in compose.yaml"
    need dpkg "$why" "apt-get install dpkg"
    need readelf "$why" "apt-get install binutils"
    echo "downloading Redis from the packages of this distribution" >&2
    rm -rf redis/packages
    mkdir -p redis/packages/root
    if ! apt-cache show redis-server >/dev/null 2>&1; then
        apt-get -q update >&2 || fail "cannot update the package lists (see above)" "run \`apt-get update\` as root, then build.sh again"
    fi
    packages=$(redis_packages)
    # The sandbox user of apt cannot write to this directory.
    # shellcheck disable=SC2086
    (cd redis/packages && apt-get -q -o APT::Sandbox::User=root download $packages >/dev/null) ||
        fail "cannot download Redis (see above)" "run \`apt-get update\` as root, then build.sh again"
    for package in redis/packages/*.deb; do dpkg -x "$package" redis/packages/root; done

    # The image gets only what the programs load.
    new=redis/packages/rootfs
    mkdir -p "$new/usr/bin" "$new/data"
    for program in redis-server redis-cli; do
        cp -L "redis/packages/root/usr/bin/$program" "$new/usr/bin/$program"
    done
    interpreter=$(readelf -l "$new/usr/bin/redis-server" | sed -n 's/.*interpreter: \(.*\)\]/\1/p')
    add_library "$(basename "$interpreter")" "$(dirname "$interpreter")"
    for program in redis-server redis-cli; do add_libraries "$new/usr/bin/$program"; done
    mkdir -p "$new/usr/share/doc/redis-server"
    cp redis/packages/root/usr/share/doc/redis-server/copyright "$new/usr/share/doc/redis-server/"
    rm -rf redis/rootfs
    mv "$new" redis/rootfs
    rm -rf redis/packages
}

# Adds the libraries that a file loads, recursively.
add_libraries() {
    for library in $(needed_by "$1"); do
        if [ ! -e "$new/$libraries/$library" ]; then add_library "$library" "$libraries"; fi
    done
}

# add_library NAME DIRECTORY
add_library() {
    found=$(find redis/packages/root -name "$1" ! -type d | head -n 1)
    if [ -z "$found" ]; then fail "library $1 of Redis not found in its packages"; fi
    mkdir -p "$new/$2"
    cp -L "$found" "$new/$2/$1"
    add_libraries "$new/$2/$1"
}

refresh=no
case ${1-} in
'') ;;
--refresh) refresh=yes ;;
*) fail "unknown argument \`$1\`" "usage: ./build.sh [--refresh]" ;;
esac
# The first directory that Debian's loader searches without a cache file, which the image does not have.
libraries=lib/$(uname -m)-linux-gnu
build_program
collect_redis
