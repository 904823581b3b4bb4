#!/bin/sh
# Installs uc and ucd on this machine, upgrades them, or takes them off again.
#
# What it does, file by file, is in docs/install.md. It checks everything first and changes nothing until
# every check has passed; it can be run again at any time. All of it is inside functions and `main` is called
# on the last line, so a copy that was cut off while it was piped into a shell does nothing.
#
# For tests and for images: UC_ROOT is put before every path that is read or written, UC_PROC replaces /proc.
set -eu
umask 022
LC_ALL=C
export LC_ALL
# The engine that counts is this machine's own.
unset DOCKER_HOST DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH

readonly MIN_DOCKER=20.10
readonly GROUP=uc

readonly E_FAILED=1 E_USAGE=2
readonly E_ROOT=10 E_ARCH=11 E_DISTRO=12 E_SYSTEMD=13 E_TUN=14 E_PORT53=15
readonly E_DOCKER=16 E_DOWNLOAD=17 E_CHECKSUM=18 E_BINARIES=19 E_START=20

ROOT=${UC_ROOT-}
# After `su`, root keeps a PATH without the directories of groupadd, modprobe and dockerd.
PATH=$PATH:$ROOT/usr/local/sbin:$ROOT/usr/sbin:$ROOT/sbin
export PATH
PROC=${UC_PROC-$ROOT/proc}
BIN_DIR=$ROOT/usr/local/bin
LIB_DIR=$ROOT/usr/local/lib/uc
UNIT_DIR=$ROOT/etc/systemd/system
STATE_DIR=$ROOT/var/lib/uc
BACKUP_DIR=$STATE_DIR/backups
RUN_DIR=$ROOT/run/uc

from='' sha256='' version='' user=''
with_docker=yes start=yes restart_mesh=no uninstall=no purge=no assume_yes=no
temp='' source_dir='' own_text='' ucd_changed=no mesh_changed=no

usage() {
    cat <<'TEXT'
Installs uc, which runs Docker Compose projects on your own machines. Run it as root.

  install.sh                        the binaries that lie beside this script
  install.sh --from DIR             the binaries uc and ucd in DIR
  install.sh --from URL             a .tar.gz with both; URL.sha256 must lie beside it
  install.sh --uninstall            stop uc, remove its containers and everything it put on this machine

Options
  --from DIR|URL      where uc and ucd come from; in a URL, {arch} and {version} are filled in
  --sha256 HEX        the checksum that the download must have, instead of URL.sha256
  --version V         refuse binaries of any other version
  --user USER         let USER talk to the daemon without sudo (adds USER to the group uc)
  --no-docker         neither install nor start nor check Docker
  --no-start          install and enable, start nothing: for images of machines
  --restart-mesh      on an upgrade, restart the tunnel too; containers lose contact for a moment
  --uninstall         named volumes, Docker, and copies by `uc machine backup` stay
  --purge             with --uninstall: the volumes that uc made go too, with all they hold, and the copies
  -y, --yes           with --uninstall: skip confirmation; required when stdin is not a terminal
  -h, --help          this text

Exit codes
  0 done                      13 no systemd              17 download failed
  1 failed                    14 no /dev/net/tun         18 checksum missing or wrong
  2 wrong usage               15 port 53 is taken        19 binaries missing, of another
  10 not root                 16 Docker is missing,         version, or not for this machine
  11 unknown architecture        stopped or too old      20 installed, but a service
  12 unknown distribution                                    does not start
TEXT
}

say() { printf '%s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }

# fail CODE WHAT [HINT…]: what and why, then what to do.
fail() {
    code=$1
    printf 'error: %s\n' "$2" >&2
    shift 2
    for line in "$@"; do printf 'hint: %s\n' "$line" >&2; done
    exit "$code"
}

have() { command -v "$1" >/dev/null 2>&1; }

clean_up() {
    if [ -n "$temp" ]; then rm -rf -- "$temp"; fi
    # What was staged and did not get into its place.
    rm -f -- "$BIN_DIR"/.uc*."$$" "$UNIT_DIR"/.uc*."$$" "$LIB_DIR"/.install.sh*."$$"
    # Made for what was staged.
    rmdir -- "$LIB_DIR" 2>/dev/null || true
}

make_temp() {
    if [ -n "$temp" ]; then return; fi
    temp=$(mktemp -d) || fail $E_FAILED "cannot make a temporary directory in ${TMPDIR:-/tmp}"
}

parse_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
        --from=* | --sha256=* | --version=* | --user=*)
            option=${1%%=*} value=${1#*=}
            shift
            set -- "$option" "$value" "$@"
            ;;
        esac
        case $1 in
        --from | --sha256 | --version | --user)
            if [ $# -lt 2 ] || [ -z "$2" ]; then
                fail $E_USAGE "$1 needs a value" "see install.sh --help"
            fi
            case $1 in
            --from) from=$2 ;;
            --sha256) sha256=$2 ;;
            --version) version=${2#v} ;;
            --user) user=$2 ;;
            esac
            shift
            ;;
        --no-docker) with_docker=no ;;
        --no-start) start=no ;;
        --restart-mesh) restart_mesh=yes ;;
        --uninstall) uninstall=yes ;;
        --purge) purge=yes ;;
        -y | --yes) assume_yes=yes ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) fail $E_USAGE "unknown argument \`$1\`" "see install.sh --help" ;;
        esac
        shift
    done
    if [ $purge = yes ] && [ $uninstall = no ]; then
        fail $E_USAGE "--purge only goes with --uninstall"
    fi
    if [ -n "$sha256" ]; then
        sha256=$(printf '%s' "$sha256" | tr 'A-F' 'a-f')
        is_sha256 "$sha256" || fail $E_USAGE "--sha256 takes 64 hexadecimal digits, not \`$sha256\`"
    fi
}

is_sha256() {
    [ ${#1} -eq 64 ] || return 1
    case $1 in *[!0-9a-f]*) return 1 ;; esac
}

# --- checks: none of them changes anything -----------------------------------------------------------------

check_root() {
    if [ "$(id -u)" != 0 ]; then
        fail $E_ROOT "this must run as root: it writes to /usr/local/bin and makes systemd units" \
            "run it with sudo"
    fi
}

# Programs that small images of some distributions lack.
check_programs() {
    for program in awk grep sed od cut tr head sha256sum; do
        have "$program" || fail $E_FAILED "not installed: $program" \
            "install it with the package manager (awk: gawk or mawk; od, cut, tr, head, sha256sum: coreutils)"
    done
}

check_architecture() {
    machine=$(uname -m)
    case $machine in
    x86_64 | amd64) arch=x86_64 elf_machine=3e00 ;;
    aarch64 | arm64) arch=aarch64 elf_machine=b700 ;;
    *) fail $E_ARCH "uc is built for x86_64 and aarch64, this machine is $machine" ;;
    esac
}

check_systemd() {
    if ! have systemctl; then
        fail $E_SYSTEMD "there is no systemd (systemctl) here, and uc's services are systemd units" \
            "use a distribution with systemd, such as Debian, Ubuntu, Fedora, openSUSE or Arch"
    fi
    if [ $start = yes ] && [ ! -d "$ROOT/run/systemd/system" ]; then
        fail $E_SYSTEMD "systemd is installed but it did not boot this machine (no /run/systemd/system)" \
            "in a container or chroot: start /sbin/init as its first process, or use --no-start to only install"
    fi
}

check_tun() {
    tun=$ROOT/dev/net/tun
    if [ -c "$tun" ]; then return; fi
    # Loading the module is no change that would have to be undone.
    if have modprobe; then modprobe tun 2>/dev/null || true; fi
    if [ -c "$tun" ]; then return; fi
    fail $E_TUN "there is no /dev/net/tun, and the mesh between machines needs it" \
        "load the module with: modprobe tun" \
        "in a container: give it the device (docker: --device /dev/net/tun; LXC, Proxmox: the device in its configuration)"
}

# uc answers DNS on the machine's first container address, 10.210.N.1. In its way is a listener on that address
# (once the machine is in a cluster) or on all addresses (at any time).
check_port_53() {
    for table in udp udp6 tcp tcp6; do
        file=$PROC/net/$table
        if [ ! -r "$file" ]; then continue; fi
        # Columns: 2 local address (hexadecimal, host byte order), 4 state (0A: listening), 10 inode.
        inodes=$(awk -v table="$table" '
            NR == 1 { next }
            table ~ /^tcp/ && $4 != "0A" { next }
            $2 ~ /^(00000000|00000000000000000000000000000000|01[0-9A-F][0-9A-F]D20A):0035$/ { print $10 }
        ' "$file")
        for inode in $inodes; do
            holder=$(socket_holder "$inode")
            # Our own daemon, on an upgrade.
            case $holder in ucd\ *) continue ;; esac
            fail $E_PORT53 "port 53 (${table%6}) is taken by ${holder:-a process that cannot be named}, at an address where uc must answer DNS for containers (10.210.N.1, or all addresses)" \
                "let it listen only where it must (dnsmasq: bind-interfaces, unbound: interface, named: listen-on, a container: -p ADDRESS:53:53), or stop it; then run this again"
        done
    done
}

# "name (pid N)" of the process that holds a socket, or nothing.
socket_holder() {
    # shellcheck disable=SC2012 # one ls for all processes instead of a readlink for each descriptor
    pid=$(ls -l "$PROC/net" "$PROC"/[0-9]*/fd 2>/dev/null | awk -v want="socket:[$1]" '
        /:$/ { count = split($0, part, "/"); pid = part[count - 1] }
        $NF == want { print pid; exit }')
    if [ -n "$pid" ]; then
        name=$(cat "$PROC/$pid/comm" 2>/dev/null || true)
        printf '%s (pid %s)' "${name:-process}" "$pid"
    fi
}

check_user() {
    if [ -n "$user" ] && ! id "$user" >/dev/null 2>&1; then
        fail $E_FAILED "there is no user \`$user\` on this machine" "create it, or leave out --user"
    fi
}

# --- where the binaries come from --------------------------------------------------------------------------

find_source() {
    case $from in
    '')
        beside=$(cd "$(dirname -- "$0")" 2>/dev/null && pwd) || beside=''
        if [ -n "$beside" ] && [ -f "$beside/ucd" ] && [ -f "$beside/uc" ]; then
            source_dir=$beside
        else
            fail $E_USAGE "say where uc and ucd come from: they do not lie beside this script" \
                "use --from DIR or --from URL"
        fi
        ;;
    https://*) fetch "$from" ;;
    http://*)
        if [ -z "$sha256" ]; then
            fail $E_CHECKSUM "plain http can be changed on the way, and so can a checksum fetched beside it" \
                "use https, or give the checksum with --sha256"
        fi
        fetch "$from"
        ;;
    *://*) fail $E_USAGE "cannot download from \`$from\`: only http and https are known" ;;
    *)
        if [ ! -d "$from" ]; then
            fail $E_BINARIES "there is no directory $from" "--from takes a directory with uc and ucd in it, or a URL"
        fi
        source_dir=$from
        ;;
    esac
    check_binary ucd
    check_binary uc
    find_own_text
}

# The file that this script was read from; when it was piped into a shell, the copy beside the binaries.
find_own_text() {
    for own_text in "$0" "$source_dir/install.sh"; do
        # The last line of this script, which a shell or another program does not have.
        if [ -f "$own_text" ] && grep -q '^main "$@"$' "$own_text" 2>/dev/null; then return; fi
    done
    own_text=''
}

fetch() {
    url=$1
    for program in tar gzip; do
        have "$program" || fail $E_FAILED "not installed: $program, which unpacks the download" \
            "install it with the package manager, or use --from DIR"
    done
    case $url in
    *'{version}'*)
        if [ -z "$version" ]; then
            fail $E_USAGE "the URL has {version} in it" "say which with --version"
        fi
        ;;
    esac
    url=$(printf '%s' "$url" | awk -v arch="$arch" -v version="$version" \
        '{ gsub(/\{arch\}/, arch); gsub(/\{version\}/, version); print }')
    make_temp
    if [ -z "$sha256" ]; then
        download "$url.sha256" "$temp/sha256"
        sha256=$(awk 'NR == 1 { print tolower($1) }' "$temp/sha256")
        is_sha256 "$sha256" || fail $E_CHECKSUM "$url.sha256 does not hold a sha256 checksum" \
            "give the checksum with --sha256"
    fi
    say "downloading $url"
    download "$url" "$temp/uc.tar.gz"
    got=$(sha256sum "$temp/uc.tar.gz" | awk '{ print $1 }')
    if [ "$got" != "$sha256" ]; then
        fail $E_CHECKSUM "$url is not what it should be: its sha256 is $got, expected $sha256" \
            "nothing was changed; download again, and if it happens again, do not trust the source"
    fi
    mkdir "$temp/unpacked"
    tar -xzf "$temp/uc.tar.gz" -C "$temp/unpacked" ||
        fail $E_BINARIES "cannot unpack $url: it should be a .tar.gz with uc and ucd in it"
    for source_dir in "$temp/unpacked" "$temp/unpacked"/*; do
        if [ -f "$source_dir/ucd" ]; then return; fi
    done
    fail $E_BINARIES "there is no ucd in $url" "it should be a .tar.gz with uc and ucd in it"
}

download() {
    if have curl; then
        curl --fail --silent --show-error --location --retry 2 --connect-timeout 15 --max-time 600 --output "$2" "$1" ||
            fail $E_DOWNLOAD "cannot download $1 (the reason is in the line above)"
    elif have wget; then
        wget -q -T 60 -t 3 -O "$2" "$1" || fail $E_DOWNLOAD "cannot download $1"
    else
        fail $E_DOWNLOAD "there is neither curl nor wget to download $1 with" \
            "install curl, or download it elsewhere and use --from DIR"
    fi
}

# A binary is there, runs on this machine, and is the version that was asked for.
check_binary() {
    file=$source_dir/$1
    if [ ! -f "$file" ]; then
        fail $E_BINARIES "there is no $1 in $source_dir" "both uc and ucd must be there"
    fi
    check_header
    # Run as a copy: what was copied here may lack its executable bit or lie on a noexec mount.
    make_temp
    mkdir -p "$BIN_DIR"
    probe=$BIN_DIR/.$1.probe.$$
    if ! { cp -- "$file" "$probe" && chmod 0755 "$probe"; }; then
        fail $E_FAILED "cannot write to $BIN_DIR (the reason is in the line above)"
    fi
    if ! said=$("$probe" --version 2>"$temp/stderr"); then
        fail $E_BINARIES "$file does not run here: $(head -n 1 "$temp/stderr")" \
            "if it asks for a newer GLIBC, this distribution is too old for this build"
    fi
    rm -f -- "$probe"
    if [ -n "$version" ]; then
        case " $said " in
        *" $version "*) ;;
        *) fail $E_BINARIES "$file is \`$said\`, not version $version" "give the files of that version, or leave out --version" ;;
        esac
    fi
}

# A file for another architecture must not even be tried: some shells take it for a script.
check_header() {
    header=$(od -An -tx1 -N 20 "$file" | tr -d ' \n')
    case $header in
    7f454c46*) ;;
    2321*) return ;;
    *) fail $E_BINARIES "$file is not a program for Linux" "was it damaged on its way here?" ;;
    esac
    its=$(printf '%s' "$header" | cut -c 37-40)
    if [ "$its" = "$elf_machine" ]; then return; fi
    case $its in
    3e00) its=x86_64 ;;
    b700) its=aarch64 ;;
    *) its="another architecture" ;;
    esac
    fail $E_BINARIES "$file is built for $its, this machine is $arch" "get the files for $arch"
}

# --- Docker ------------------------------------------------------------------------------------------------

ensure_docker() {
    if have docker && docker --version 2>/dev/null | grep -qi podman; then
        fail $E_DOCKER "\`docker\` on this machine is Podman, and uc needs a Docker engine" \
            "remove podman-docker and run this again; it installs Docker then"
    fi
    if ! have dockerd && ! have docker; then install_docker; fi
    if [ $start = no ]; then
        if have dockerd; then check_docker_version "$(dockerd --version 2>/dev/null | first_version)"; fi
        return
    fi
    if ! docker_answers; then
        say "starting Docker"
        systemctl enable --now docker >/dev/null 2>&1 || true
    fi
    if ! docker_answers; then
        fail $E_DOCKER "Docker is installed but does not answer${docker_error:+: $docker_error}" \
            "see why with: journalctl -u docker -n 50" "then run this again"
    fi
    check_docker_version "$docker_version"
}

# Sets docker_version, or docker_error.
docker_answers() {
    docker_version='' docker_error=''
    if have docker; then
        make_temp
        if docker_version=$(docker version --format '{{.Server.Version}}' 2>"$temp/docker"); then return 0; fi
        docker_version=''
        docker_error=$(head -n 1 "$temp/docker")
        return 1
    fi
    # An engine without the command-line client: what is installed is what runs.
    if systemctl is-active --quiet docker; then
        docker_version=$(dockerd --version 2>/dev/null | first_version)
        return 0
    fi
    return 1
}

first_version() { awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^[0-9]+\.[0-9]+/) { print $i; exit } }'; }

check_docker_version() {
    old=$(printf '%s' "$1" | awk -v least="$MIN_DOCKER" '{
        split($0, has, "."); split(least, min, ".")
        if (has[1] !~ /^[0-9]+$/) print "unknown"
        else if (has[1] + 0 < min[1] + 0 || (has[1] + 0 == min[1] + 0 && has[2] + 0 < min[2] + 0)) print "old"
    }')
    case $old in
    old)
        fail $E_DOCKER "Docker $1 is too old: uc needs $MIN_DOCKER or newer" \
            "upgrade Docker (Debian 12 and Ubuntu 22.04 have newer ones in their own packages) and run this again"
        ;;
    unknown) warn "cannot tell the version of Docker (\`$1\`); uc needs $MIN_DOCKER or newer" ;;
    esac
}

distribution() {
    if [ -r "$ROOT/etc/os-release" ]; then
        # shellcheck disable=SC1091
        (. "$ROOT/etc/os-release" && printf '%s %s' "${ID:-unknown}" "${ID_LIKE-}")
    else
        printf 'unknown'
    fi
}

install_docker() {
    ids=$(distribution)
    id=${ids%% *}
    family=''
    for one in $ids; do
        case $one in
        debian | ubuntu) family=apt ;;
        fedora) family=fedora ;;
        amzn) family=amazon ;;
        rhel | centos) family=rhel ;;
        suse | opensuse | opensuse-*) family=zypper ;;
        arch) family=pacman ;;
        alpine) family=apk ;;
        esac
        if [ -n "$family" ]; then break; fi
    done
    say "installing Docker from the packages of this distribution ($id)"
    case $family in
    apt)
        export DEBIAN_FRONTEND=noninteractive
        try_docker apt-get -q update
        # Newer releases keep the command-line client in a package of its own.
        extra=''
        if apt-cache policy docker-cli 2>/dev/null | grep -q 'Candidate: [0-9]'; then extra=docker-cli; fi
        # shellcheck disable=SC2086
        try_docker apt-get -q -y --no-install-recommends install docker.io iptables $extra
        ;;
    fedora) try_docker dnf -q -y install moby-engine docker-cli iptables-nft ;;
    amazon)
        if have dnf; then try_docker dnf -q -y install docker; else try_docker yum -q -y install docker; fi
        ;;
    rhel)
        fail $E_DISTRO "$id has no Docker in its own packages" \
            "install Docker Engine as Docker's documentation says for $id, then run this again"
        ;;
    zypper) try_docker zypper --quiet --non-interactive install docker iptables ;;
    pacman) try_docker pacman -Sy --noconfirm --needed docker ;;
    apk) try_docker apk add --quiet docker iptables ;;
    *)
        fail $E_DISTRO "Docker is not installed, and this script does not know how to install it on \`$id\`" \
            "install Docker $MIN_DOCKER or newer yourself, then run this again"
        ;;
    esac
    if ! have dockerd; then
        fail $E_DOCKER "the packages were installed but there is no dockerd" \
            "install Docker $MIN_DOCKER or newer yourself, then run this again"
    fi
}

try_docker() {
    # The package manager's own messages go to stderr: they are what one reads when it fails. Its stdin is
    # closed, so that it can never wait for an answer (nor eat this script when it is piped in).
    "$@" >&2 </dev/null || fail $E_DOCKER "installing Docker failed: \`$*\` ended with an error (above)" \
        "put it right, or install Docker $MIN_DOCKER or newer yourself; then run this again"
}

# --- files -------------------------------------------------------------------------------------------------

group_exists() {
    if have getent; then getent group "$GROUP" >/dev/null; else grep -q "^$GROUP:" "$ROOT/etc/group"; fi
}

ensure_group() {
    if ! group_exists; then
        if have groupadd; then groupadd --system "$GROUP"; else addgroup -S "$GROUP"; fi ||
            fail $E_FAILED "cannot make the group $GROUP"
        say "made the group $GROUP: its members may use uc on this machine without sudo"
    fi
    if [ -z "$user" ] || [ "$user" = root ]; then return; fi
    case " $(id -nG "$user") " in *" $GROUP "*) return ;; esac
    if have usermod; then usermod -aG "$GROUP" "$user"; else addgroup "$user" "$GROUP"; fi ||
        fail $E_FAILED "cannot add $user to the group $GROUP"
    say "added $user to the group $GROUP: takes effect at the next login"
}

ensure_directories() {
    # /run/uc is made by systemd when a service starts (RuntimeDirectory in the units).
    if ! { mkdir -p "$BIN_DIR" "$LIB_DIR" "$UNIT_DIR" "$STATE_DIR" && chown 0:0 "$STATE_DIR" && chmod 0700 "$STATE_DIR"; }; then
        fail $E_FAILED "cannot make the directories (the reason is in the line above)"
    fi
}

# Files are replaced whole or not at all, and all or none: each is first written beside its target, then all are
# renamed. A program that runs keeps its old file until it ends.
install_files() {
    make_temp
    { ucd_unit && hardening; } >"$temp/ucd.service"
    { mesh_unit && hardening; } >"$temp/uc-mesh.service"
    stage "$source_dir/ucd" "$BIN_DIR/ucd" 0755
    stage "$source_dir/uc" "$BIN_DIR/uc" 0755
    if [ -n "$own_text" ]; then stage "$own_text" "$LIB_DIR/install.sh" 0755; fi
    stage "$temp/ucd.service" "$UNIT_DIR/ucd.service" 0644
    stage "$temp/uc-mesh.service" "$UNIT_DIR/uc-mesh.service" 0644
    if replace "$BIN_DIR/ucd"; then ucd_changed=yes mesh_changed=yes; fi
    replace "$BIN_DIR/uc" || true
    replace "$LIB_DIR/install.sh" || true
    if replace "$UNIT_DIR/ucd.service"; then ucd_changed=yes; fi
    if replace "$UNIT_DIR/uc-mesh.service"; then mesh_changed=yes; fi
}

new_file() { printf '%s/.%s.new.%s' "$(dirname -- "$1")" "$(basename -- "$1")" "$$"; }

# stage SOURCE TARGET MODE: makes the new file where it is not equal to the one that is there.
stage() {
    if [ ! -L "$2" ] && same_content "$1" "$2"; then
        chmod "$3" "$2"
        return
    fi
    new=$(new_file "$2")
    if ! { cp -- "$1" "$new" && chown 0:0 "$new" && chmod "$3" "$new"; }; then
        fail $E_FAILED "cannot write to $(dirname -- "$2") (the reason is in the line above)" \
            "uc's files are as they were before; make room or the directory writable, and run this again"
    fi
}

same_content() {
    [ -f "$2" ] && [ "$(sha256sum <"$1")" = "$(sha256sum <"$2")" ]
}

# replace TARGET: puts a staged file in its place; false if there is none.
replace() {
    new=$(new_file "$1")
    if [ ! -e "$new" ]; then return 1; fi
    mv -f -- "$new" "$1" || fail $E_FAILED "cannot replace $1 (the reason is in the line above)"
    say "installed $1"
}

ucd_unit() {
    cat <<'UNIT'
# Written by install.sh, which replaces it on an upgrade. Your own changes: systemctl edit ucd
[Unit]
Description=uc: Docker Compose projects on your own machines
Wants=network-online.target docker.service uc-mesh.service
After=network-online.target docker.service uc-mesh.service
StartLimitIntervalSec=0

[Install]
WantedBy=multi-user.target

[Service]
Type=notify
ExecStart=/usr/local/bin/ucd run
Restart=always
# Short: containers get their DNS answers from it.
RestartSec=500ms
TimeoutStartSec=90
TimeoutStopSec=30
LimitNOFILE=65536
OOMScoreAdjust=-500
UNIT
}

mesh_unit() {
    cat <<'UNIT'
# Written by install.sh, which replaces it on an upgrade. Your own changes: systemctl edit uc-mesh
#
# The tunnel is a service of its own, bound to ucd by nothing but the order at boot: ucd can be stopped,
# killed and upgraded while containers go on talking to each other.
[Unit]
Description=uc: the mesh between machines
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Install]
WantedBy=multi-user.target

[Service]
Type=exec
ExecStart=/usr/local/bin/ucd mesh
Restart=always
RestartSec=500ms
TimeoutStopSec=10
LimitNOFILE=65536
OOMScoreAdjust=-900
UNIT
}

hardening() {
    cat <<'UNIT'

# Both services have sockets in /run/uc (0750 root:uc); stopping one must leave those of the other.
Group=uc
RuntimeDirectory=uc
RuntimeDirectoryMode=0750
RuntimeDirectoryPreserve=yes

# Not ProtectKernelTunables: packet forwarding is switched on through /proc/sys.
# Not ProtectHostname: it would hide a changed host name.
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
ProtectSystem=strict
# /run: the lock of iptables.
ReadWritePaths=/var/lib/uc /run
ProtectHome=yes
PrivateTmp=yes
ProtectControlGroups=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UNIT
}

# --- services ----------------------------------------------------------------------------------------------

start_services() {
    if [ -d "$ROOT/run/systemd/system" ]; then systemctl daemon-reload; fi
    systemctl enable ucd.service uc-mesh.service >/dev/null 2>&1 ||
        fail $E_START "cannot enable ucd.service and uc-mesh.service" "try: systemctl enable ucd uc-mesh"
    if [ $start = no ]; then
        say "installed and enabled; nothing was started (--no-start)"
        return
    fi
    if ! systemctl is-active --quiet uc-mesh.service || [ $restart_mesh = yes ]; then
        start_service restart uc-mesh
    elif [ $mesh_changed = yes ]; then
        say "uc-mesh goes on with its previous version, so that no packet is lost;"
        say "it takes the new one at the next boot, or with: systemctl restart uc-mesh"
    fi
    if ! systemctl is-active --quiet ucd.service; then
        start_service restart ucd
    elif [ $ucd_changed = yes ]; then
        start_service restart ucd
        say "restarted ucd; containers and tunnel went on meanwhile"
    fi
}

start_service() {
    if systemctl "$1" "$2.service"; then return 0; fi
    if have journalctl; then journalctl -u "$2.service" -n 20 --no-pager -o cat >&2 || true; fi
    fail $E_START "everything is installed, but $2 does not start (its last lines are above)" \
        "see all of it with: journalctl -u $2" "then: systemctl restart $2"
}

# The other machines send to this port. The firewall is the administrator's: this only prints the command.
show_firewall_command() {
    if have firewall-cmd && [ "$(firewall-cmd --state 2>/dev/null)" = running ] &&
        ! firewall-cmd --query-port=51820/udp >/dev/null 2>&1; then
        say "firewalld blocks UDP 51820, which the other machines use for WireGuard; open it with:"
        say "  firewall-cmd --permanent --add-port=51820/udp && firewall-cmd --reload"
    fi
    if have ufw && rules=$(ufw status 2>/dev/null); then
        case $rules in
        *'Status: active'*)
            case $rules in *51820*) return ;; esac
            say "ufw blocks UDP 51820, which the other machines use for WireGuard; open it with:"
            say "  ufw allow 51820/udp"
            ;;
        esac
    fi
}

# --- uninstall ---------------------------------------------------------------------------------------------

confirm_uninstall() {
    if [ $assume_yes = yes ]; then return; fi
    if [ ! -t 0 ]; then
        fail $E_USAGE "confirmation needed, but stdin is not a terminal; nothing was removed" \
            "--yes skips the question"
    fi
    what="all containers that uc runs on this machine"
    if [ $purge = yes ]; then what="$what, their volumes WITH ALL DATA, and the copies in $BACKUP_DIR"; fi
    printf 'This removes uc and %s. Go on? [y/N] ' "$what" >&2
    read -r answer || answer=''
    case $answer in
    y | Y | yes | Yes) ;;
    *) fail $E_FAILED "stopped; nothing was removed" ;;
    esac
}

remove_all() {
    removed=no
    if have systemctl; then
        leave_cluster
        systemctl disable --now ucd.service >/dev/null 2>&1 || true
        systemctl disable --now uc-mesh.service >/dev/null 2>&1 || true
    fi
    remove_from_docker
    if have ip && ip link show uc0 >/dev/null 2>&1; then
        remove_one "interface uc0" ip link delete uc0
    fi
    for file in "$UNIT_DIR/ucd.service" "$UNIT_DIR/uc-mesh.service" "$BIN_DIR/ucd" "$BIN_DIR/uc" \
        "$LIB_DIR/install.sh"; do
        if [ -e "$file" ]; then remove_one "$file" rm -f -- "$file"; fi
    done
    for directory in "$UNIT_DIR/ucd.service.d" "$UNIT_DIR/uc-mesh.service.d" "$LIB_DIR" "$RUN_DIR"; do
        if [ -e "$directory" ]; then remove_one "$directory" rm -rf -- "$directory"; fi
    done
    remove_state
    if have systemctl && [ -d "$ROOT/run/systemd/system" ]; then
        systemctl daemon-reload
        systemctl reset-failed ucd.service uc-mesh.service 2>/dev/null || true
    fi
    if group_exists; then
        if remove_group; then gone "group $GROUP"; else warn "the group $GROUP could not be removed"; fi
    fi
    if [ $removed = no ] && [ -e "$STATE_DIR" ]; then
        say "there was nothing else of uc on this machine"
    elif [ $removed = no ]; then
        say "there was nothing of uc on this machine"
    elif [ $purge = yes ]; then
        say "uc is gone; Docker and images stay"
    else
        say "uc is gone; Docker, images and named volumes stay"
    fi
}

# Whoever makes a copy before taking uc off wants to have it afterwards.
remove_state() {
    if [ ! -e "$STATE_DIR" ]; then return 0; fi
    if [ $purge = yes ] || ! holds_something "$BACKUP_DIR"; then
        remove_one "$STATE_DIR" rm -rf -- "$STATE_DIR"
        return 0
    fi
    for entry in "$STATE_DIR"/* "$STATE_DIR"/.[!.]*; do
        if [ "$entry" = "$BACKUP_DIR" ] || [ ! -e "$entry" ]; then continue; fi
        remove_one "$entry" rm -rf -- "$entry"
    done
    say "kept $BACKUP_DIR: copies made by \`uc machine backup\`; --purge removes them, too"
}

holds_something() {
    for entry in "$1"/* "$1"/.[!.]*; do
        if [ -e "$entry" ]; then return 0; fi
    done
    return 1
}

remove_group() {
    if have groupdel; then groupdel "$GROUP"; else delgroup "$GROUP"; fi
}

gone() {
    removed=yes
    say "removed $*"
}

# The daemon itself knows best what it made: containers, network, firewall rules, tunnel. It must run for that.
leave_cluster() {
    if [ ! -x "$BIN_DIR/ucd" ] || [ ! -e "$STATE_DIR/machine.json" ]; then return 0; fi
    systemctl is-active --quiet ucd.service || systemctl start ucd.service 2>/dev/null || true
    if ! "$BIN_DIR/ucd" reset --yes >&2; then
        warn "ucd could not clean up after itself (the reason is above); what Docker knows to be uc's is removed now, firewall rules may stay until the next boot"
    fi
}

# What `ucd reset` did not or could not remove; everything that uc makes in Docker has this label.
remove_from_docker() {
    if ! have docker; then return 0; fi
    if ! docker_answers; then
        warn "Docker does not answer, so containers of uc may be left: ${docker_error:-no reason given}"
        return 0
    fi
    for id in $(docker ps -aq --filter label=uc.cluster); do
        remove_one "container $id" docker rm -f -v "$id"
    done
    for id in $(docker network ls -q --filter label=uc.cluster); do
        remove_one "Docker network $id" docker network rm "$id"
    done
    if [ $purge = no ]; then return 0; fi
    for name in $(docker volume ls -q --filter label=uc.cluster); do
        remove_one "volume $name" docker volume rm "$name"
    done
}

# remove_one NAME COMMAND…: says what is gone; what could not be removed does not stop the rest.
remove_one() {
    name=$1
    shift
    if "$@" >/dev/null; then gone "$name"; else warn "could not remove $name (the reason is in the line above)"; fi
}

# -----------------------------------------------------------------------------------------------------------

main() {
    parse_arguments "$@"
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    check_root
    if [ $uninstall = yes ]; then
        confirm_uninstall
        remove_all
        return
    fi
    check_programs
    check_architecture
    check_systemd
    check_user
    if [ $start = yes ]; then
        check_tun
        check_port_53
    fi
    find_source
    if [ $with_docker = yes ]; then ensure_docker; fi
    ensure_group
    ensure_directories
    install_files
    start_services
    if [ $start = yes ]; then show_firewall_command; fi
    say "uc is installed"
    # For a person; `uc machine init` and `add` run this without a terminal, and go on themselves.
    if [ -t 2 ] && [ ! -e "$STATE_DIR/state.db" ]; then
        say "next: \`uc machine init\` starts a cluster, \`uc machine join TOKEN\` joins one"
    fi
}

main "$@"
