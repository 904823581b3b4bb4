#!/bin/sh
# Installs, upgrades or uninstalls uc and ucd on this machine.
#
# docs/install.md describes each file that it writes. It changes nothing before every check has passed, and it
# can run again at any time. The last line calls `main`, so a copy that was truncated while it was piped into a
# shell does nothing.
#
# For tests and images: UC_ROOT is the prefix of every path that is read or written, UC_PROC replaces /proc.
set -eu
umask 022
LC_ALL=C
export LC_ALL
# Only this machine's own engine matters.
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

  install.sh                        install uc and ucd from the directory of this script
  install.sh --from DIR             install uc and ucd from DIR
  install.sh --from URL             install both from a .tar.gz, verified with URL.sha256
  install.sh --uninstall            stop uc, and remove its containers and all files that it installed

Options
  --from DIR|URL      source of uc and ucd; {arch} and {version} in a URL are replaced
  --sha256 HEX        expected checksum of the download, instead of URL.sha256
  --version V         required version of uc and ucd
  --user USER         user who can use the daemon without sudo (USER is added to the group uc)
  --no-docker         do not install, start or check Docker
  --no-start          install and enable the services without starting them, for machine images
  --restart-mesh      on an upgrade, also restart the tunnel; this interrupts container traffic for a moment
  --uninstall         uninstall uc; keeps Docker, named volumes and backups made by `uc machine backup`
  --purge             with --uninstall: also delete backups and the volumes that uc created, with all data
  -y, --yes           with --uninstall: skip confirmation; required when stdin is not a terminal
  -h, --help          print this help

Exit codes
  0 success                   13 no systemd              17 download failed
  1 failure                   14 no /dev/net/tun         18 checksum missing or wrong
  2 invalid usage             15 port 53 in use          19 binaries missing, of another
  10 not root                 16 Docker missing,            version, or not for this machine
  11 unknown architecture        stopped or too old      20 installed, but a service
  12 unknown distribution                                    does not start
TEXT
}

say() { printf '%s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }

# fail CODE ERROR [HINT…]
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
    # Staged files that did not replace their targets.
    rm -f -- "$BIN_DIR"/.uc*."$$" "$UNIT_DIR"/.uc*."$$" "$LIB_DIR"/.install.sh*."$$"
    # Created for a staged file.
    rmdir -- "$LIB_DIR" 2>/dev/null || true
}

make_temp() {
    if [ -n "$temp" ]; then return; fi
    temp=$(mktemp -d) || fail $E_FAILED "cannot create a temporary directory in ${TMPDIR:-/tmp}"
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
                fail $E_USAGE "$1 requires a value" "see install.sh --help"
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
        fail $E_USAGE "--purge requires --uninstall"
    fi
    if [ -n "$sha256" ]; then
        sha256=$(printf '%s' "$sha256" | tr 'A-F' 'a-f')
        is_sha256 "$sha256" || fail $E_USAGE "invalid --sha256 \`$sha256\`: it must be 64 hexadecimal digits"
    fi
}

is_sha256() {
    [ ${#1} -eq 64 ] || return 1
    case $1 in *[!0-9a-f]*) return 1 ;; esac
}

# --- checks, which change nothing -------------------------------------------------------------------------

check_root() {
    if [ "$(id -u)" != 0 ]; then
        fail $E_ROOT "install.sh must run as root: it writes to /usr/local/bin and installs systemd units" \
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
    *) fail $E_ARCH "uc supports x86_64 and aarch64, but this machine is $machine" ;;
    esac
}

check_systemd() {
    if ! have systemctl; then
        fail $E_SYSTEMD "systemctl not found: the services of uc need systemd" \
            "use a distribution with systemd, such as Debian, Ubuntu, Fedora, openSUSE or Arch"
    fi
    if [ $start = yes ] && [ ! -d "$ROOT/run/systemd/system" ]; then
        fail $E_SYSTEMD "systemd did not boot this machine: /run/systemd/system does not exist" \
            "in a container or chroot, start /sbin/init as the first process, or install with --no-start"
    fi
}

check_tun() {
    tun=$ROOT/dev/net/tun
    if [ -c "$tun" ]; then return; fi
    # Loading the module needs no rollback.
    if have modprobe; then modprobe tun 2>/dev/null || true; fi
    if [ -c "$tun" ]; then return; fi
    fail $E_TUN "/dev/net/tun does not exist, and the mesh between machines needs it" \
        "load the kernel module: modprobe tun" \
        "in a container, pass the device through (docker: --device /dev/net/tun; LXC and Proxmox: in its configuration)"
}

# uc serves DNS on the machine's first container address, 10.210.N.1. A listener on all addresses is in the way at
# any time, one on that address once the machine is in a cluster.
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
            # On an upgrade, ucd itself.
            case $holder in ucd\ *) continue ;; esac
            fail $E_PORT53 "port 53 (${table%6}) is in use by ${holder:-an unknown process}, on an address where uc serves DNS to containers (10.210.N.1, or all addresses)" \
                "restrict its listen addresses (dnsmasq: bind-interfaces, unbound: interface, named: listen-on, a container: -p ADDRESS:53:53), or stop it; then run install.sh again"
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
        fail $E_FAILED "user \`$user\` not found" "create the user, or omit --user"
    fi
}

# --- source of the binaries --------------------------------------------------------------------------------

find_source() {
    case $from in
    '')
        beside=$(cd "$(dirname -- "$0")" 2>/dev/null && pwd) || beside=''
        if [ -n "$beside" ] && [ -f "$beside/ucd" ] && [ -f "$beside/uc" ]; then
            source_dir=$beside
        else
            fail $E_USAGE "uc and ucd not found in the directory of this script" \
                "give their source with --from DIR or --from URL"
        fi
        ;;
    https://*) fetch "$from" ;;
    http://*)
        if [ -z "$sha256" ]; then
            fail $E_CHECKSUM "cannot verify a download over plain http: its checksum could be changed on the way, too" \
                "use https, or give the checksum with --sha256"
        fi
        fetch "$from"
        ;;
    *://*) fail $E_USAGE "cannot download from \`$from\`: only http and https are supported" ;;
    *)
        if [ ! -d "$from" ]; then
            fail $E_BINARIES "directory $from not found" "--from takes a directory that contains uc and ucd, or a URL"
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
            fail $E_USAGE "the URL contains {version}, but no version was given" "add --version VERSION"
        fi
        ;;
    esac
    url=$(printf '%s' "$url" | awk -v arch="$arch" -v version="$version" \
        '{ gsub(/\{arch\}/, arch); gsub(/\{version\}/, version); print }')
    make_temp
    if [ -z "$sha256" ]; then
        download "$url.sha256" "$temp/sha256"
        sha256=$(awk 'NR == 1 { print tolower($1) }' "$temp/sha256")
        is_sha256 "$sha256" || fail $E_CHECKSUM "$url.sha256 does not contain a SHA-256 checksum" \
            "give the checksum with --sha256"
    fi
    say "downloading $url"
    download "$url" "$temp/uc.tar.gz"
    got=$(sha256sum "$temp/uc.tar.gz" | awk '{ print $1 }')
    if [ "$got" != "$sha256" ]; then
        fail $E_CHECKSUM "checksum mismatch: the SHA-256 of $url is $got, expected $sha256" \
            "nothing was changed; run install.sh again, and do not trust the source if the mismatch remains"
    fi
    mkdir "$temp/unpacked"
    tar -xzf "$temp/uc.tar.gz" -C "$temp/unpacked" ||
        fail $E_BINARIES "cannot unpack $url: it must be a .tar.gz that contains uc and ucd"
    for source_dir in "$temp/unpacked" "$temp/unpacked"/*; do
        if [ -f "$source_dir/ucd" ]; then return; fi
    done
    fail $E_BINARIES "ucd not found in $url" "the archive must contain uc and ucd"
}

download() {
    if have curl; then
        curl --fail --silent --show-error --location --retry 2 --connect-timeout 15 --max-time 600 --output "$2" "$1" ||
            fail $E_DOWNLOAD "cannot download $1 (see the line above)"
    elif have wget; then
        wget -q -T 60 -t 3 -O "$2" "$1" || fail $E_DOWNLOAD "cannot download $1"
    else
        fail $E_DOWNLOAD "cannot download $1: neither curl nor wget is installed" \
            "install curl, or download the files on another computer and use --from DIR"
    fi
}

# Checks that a binary exists, runs on this machine, and has the requested version.
check_binary() {
    file=$source_dir/$1
    if [ ! -f "$file" ]; then
        fail $E_BINARIES "$1 not found in $source_dir" "the directory must contain uc and ucd"
    fi
    check_header
    # A copy runs, since the file itself may lack its executable bit or be on a noexec mount.
    make_temp
    mkdir -p "$BIN_DIR"
    probe=$BIN_DIR/.$1.probe.$$
    if ! { cp -- "$file" "$probe" && chmod 0755 "$probe"; }; then
        fail $E_FAILED "cannot write to $BIN_DIR (see the line above)"
    fi
    if ! said=$("$probe" --version 2>"$temp/stderr"); then
        fail $E_BINARIES "$file does not run on this machine: $(head -n 1 "$temp/stderr")" \
            "if a newer GLIBC is missing, this distribution is too old for this build"
    fi
    rm -f -- "$probe"
    if [ -n "$version" ]; then
        case " $said " in
        *" $version "*) ;;
        *) fail $E_BINARIES "$file is \`$said\`, not version $version" "use the files of that version, or omit --version" ;;
        esac
    fi
}

# A file for another architecture must not run: some shells treat it as a script.
check_header() {
    header=$(od -An -tx1 -N 20 "$file" | tr -d ' \n')
    case $header in
    7f454c46*) ;;
    2321*) return ;;
    *) fail $E_BINARIES "$file is not a Linux program" "copy or download the file again" ;;
    esac
    its=$(printf '%s' "$header" | cut -c 37-40)
    if [ "$its" = "$elf_machine" ]; then return; fi
    case $its in
    3e00) its=x86_64 ;;
    b700) its=aarch64 ;;
    *) its="another architecture" ;;
    esac
    fail $E_BINARIES "$file is built for $its, but this machine is $arch" "use the files for $arch"
}

# --- Docker ------------------------------------------------------------------------------------------------

ensure_docker() {
    if have docker && docker --version 2>/dev/null | grep -qi podman; then
        fail $E_DOCKER "\`docker\` on this machine is Podman, but uc needs a Docker engine" \
            "remove the package podman-docker and run install.sh again; it will install Docker"
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
            "find the reason with: journalctl -u docker -n 50" "then run install.sh again"
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
            "upgrade Docker (Debian 12 and Ubuntu 22.04 package a newer version) and run install.sh again"
        ;;
    unknown) warn "unknown version of Docker (\`$1\`); uc needs $MIN_DOCKER or newer" ;;
    esac
}

# Docker's packages depend on iptables, but not all of its other builds contain it.
check_iptables() {
    if have iptables-restore && have ip6tables-restore; then return 0; fi
    warn "iptables-restore or ip6tables-restore not found: uc-mesh opens no tunnel without its firewall rules; install the package iptables"
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
        fail $E_DISTRO "$id does not package Docker" \
            "install Docker Engine with Docker's instructions for $id, then run install.sh again"
        ;;
    zypper) try_docker zypper --quiet --non-interactive install docker iptables ;;
    pacman) try_docker pacman -Sy --noconfirm --needed docker ;;
    apk) try_docker apk add --quiet docker iptables ;;
    *)
        fail $E_DISTRO "Docker is not installed, and install.sh cannot install it on \`$id\`" \
            "install Docker $MIN_DOCKER or newer, then run install.sh again"
        ;;
    esac
    if ! have dockerd; then
        fail $E_DOCKER "dockerd not found, although the packages of Docker were installed" \
            "install Docker $MIN_DOCKER or newer, then run install.sh again"
    fi
}

try_docker() {
    # The package manager's messages go to stderr, to explain a failure. Its stdin is closed, so that it neither
    # waits for an answer nor consumes this script when it is piped in.
    "$@" >&2 </dev/null || fail $E_DOCKER "cannot install Docker: \`$*\` failed (see above)" \
        "fix the cause, or install Docker $MIN_DOCKER or newer; then run install.sh again"
}

# --- files -------------------------------------------------------------------------------------------------

group_exists() {
    if have getent; then getent group "$GROUP" >/dev/null; else grep -q "^$GROUP:" "$ROOT/etc/group"; fi
}

ensure_group() {
    if ! group_exists; then
        if have groupadd; then groupadd --system "$GROUP"; else addgroup -S "$GROUP"; fi ||
            fail $E_FAILED "cannot create the group $GROUP"
        say "created the group $GROUP: its members can use uc on this machine without sudo"
    fi
    if [ -z "$user" ] || [ "$user" = root ]; then return; fi
    case " $(id -nG "$user") " in *" $GROUP "*) return ;; esac
    if have usermod; then usermod -aG "$GROUP" "$user"; else addgroup "$user" "$GROUP"; fi ||
        fail $E_FAILED "cannot add $user to the group $GROUP"
    say "added $user to the group $GROUP; this takes effect at the next login"
}

ensure_directories() {
    # systemd creates /run/uc when a service starts (RuntimeDirectory in the units).
    if ! { mkdir -p "$BIN_DIR" "$LIB_DIR" "$UNIT_DIR" "$STATE_DIR" && chown 0:0 "$STATE_DIR" && chmod 0700 "$STATE_DIR"; }; then
        fail $E_FAILED "cannot create the directories (see the line above)"
    fi
}

# Replaces all files or none. Each new file is written next to its target, and then all are renamed. A program that
# runs keeps its old file until it ends.
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

# stage SOURCE TARGET MODE: writes the new file if its content differs from that of TARGET.
stage() {
    if [ ! -L "$2" ] && same_content "$1" "$2"; then
        chmod "$3" "$2"
        return
    fi
    new=$(new_file "$2")
    if ! { cp -- "$1" "$new" && chown 0:0 "$new" && chmod "$3" "$new"; }; then
        fail $E_FAILED "cannot write to $(dirname -- "$2") (see the line above)" \
            "the installed files are unchanged; free disk space or make the directory writable, then run install.sh again"
    fi
}

same_content() {
    [ -f "$2" ] && [ "$(sha256sum <"$1")" = "$(sha256sum <"$2")" ]
}

# replace TARGET: renames the staged file to TARGET; returns 1 if none was staged.
replace() {
    new=$(new_file "$1")
    if [ ! -e "$new" ]; then return 1; fi
    mv -f -- "$new" "$1" || fail $E_FAILED "cannot replace $1 (see the line above)"
    say "installed $1"
}

ucd_unit() {
    cat <<'UNIT'
# Written by install.sh, which replaces it on an upgrade. Change settings with: systemctl edit ucd
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
# Short, since containers get their DNS answers from ucd.
RestartSec=500ms
TimeoutStartSec=90
TimeoutStopSec=30
LimitNOFILE=65536
OOMScoreAdjust=-500
UNIT
}

mesh_unit() {
    cat <<'UNIT'
# Written by install.sh, which replaces it on an upgrade. Change settings with: systemctl edit uc-mesh
#
# The tunnel is a separate service, so that container traffic continues while ucd is stopped, killed or upgraded.
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

# Both services have sockets in /run/uc (0750 root:uc). Stopping one must keep the sockets of the other.
Group=uc
RuntimeDirectory=uc
RuntimeDirectoryMode=0750
RuntimeDirectoryPreserve=yes

# No ProtectKernelTunables: ucd enables packet forwarding through /proc/sys.
# No ProtectHostname: it would hide a changed host name.
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
ProtectSystem=strict
# The lock of iptables is in /run.
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
        fail $E_START "cannot enable ucd.service and uc-mesh.service" "find the reason with: systemctl enable ucd uc-mesh"
    if [ $start = no ]; then
        say "installed and enabled uc without starting it (--no-start)"
        return
    fi
    if ! systemctl is-active --quiet uc-mesh.service || [ $restart_mesh = yes ]; then
        start_service restart uc-mesh
    elif [ $mesh_changed = yes ]; then
        say "uc-mesh keeps running its previous version, so that no packet is lost."
        say "The new version starts at the next boot, or with: systemctl restart uc-mesh"
    fi
    if ! systemctl is-active --quiet ucd.service; then
        start_service restart ucd
    elif [ $ucd_changed = yes ]; then
        start_service restart ucd
        say "restarted ucd; containers and the tunnel kept running"
    fi
}

start_service() {
    if systemctl "$1" "$2.service"; then return 0; fi
    if have journalctl; then journalctl -u "$2.service" -n 20 --no-pager -o cat >&2 || true; fi
    fail $E_START "uc is installed, but $2 does not start (the end of its log is above)" \
        "see the whole log: journalctl -u $2" "then: systemctl restart $2"
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
    if [ $purge = yes ]; then what="$what, their volumes WITH ALL DATA, and the backups in $BACKUP_DIR"; fi
    printf 'Remove uc and %s? [y/N] ' "$what" >&2
    read -r answer || answer=''
    case $answer in
    y | Y | yes | Yes) ;;
    *) fail $E_FAILED "nothing was removed" ;;
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
    remove_firewall_rules
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
        if remove_group; then removed "group $GROUP"; else warn "cannot remove the group $GROUP"; fi
    fi
    if [ $removed = no ] && [ -e "$STATE_DIR" ]; then
        say "nothing else of uc was found on this machine"
    elif [ $removed = no ]; then
        say "nothing of uc was found on this machine"
    elif [ $purge = yes ]; then
        say "uninstalled uc; kept Docker and its images"
    else
        say "uninstalled uc; kept Docker, its images and named volumes"
    fi
}

# Keeps backups: they were made to be there after uc is uninstalled.
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
    say "kept $BACKUP_DIR: backups made by \`uc machine backup\`; --purge removes them"
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

removed() {
    removed=yes
    say "removed $*"
}

# `ucd reset` removes what the daemon made: containers, network, firewall rules and tunnel. The daemon must run.
leave_cluster() {
    if [ ! -x "$BIN_DIR/ucd" ] || [ ! -e "$STATE_DIR/machine.json" ]; then return 0; fi
    systemctl is-active --quiet ucd.service || systemctl start ucd.service 2>/dev/null || true
    if ! "$BIN_DIR/ucd" reset --yes >&2; then
        warn "\`ucd reset\` failed (see above): what it left in Docker, in the firewall and on the disk is removed now"
    fi
}

# Removes what `ucd reset` left. Everything that uc creates in Docker has this label.
remove_from_docker() {
    if ! have docker; then return 0; fi
    if ! docker_answers; then
        warn "Docker does not answer, so containers of uc can remain: ${docker_error:-no reason given}"
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

# Removes what `ucd reset` left: the chains with our names, and the rules that jump to them.
remove_firewall_rules() {
    for program in iptables ip6tables; do
        if ! have "$program" || ! have "$program-save"; then continue; fi
        make_temp
        if ! "$program-save" >"$temp/rules" 2>/dev/null || ! grep -q '^:UC-' "$temp/rules"; then continue; fi
        # A chain can be deleted when nothing jumps to it.
        awk '
            /^\*/ { table = substr($1, 2) }
            /^:UC-/ { flush = flush table " -F " substr($1, 2) "\n"; remove = remove table " -X " substr($1, 2) "\n" }
            /^-A / && $2 !~ /^UC-/ && / -j UC-/ { sub(/^-A/, "-D"); print table, $0 }
            END { printf "%s%s", flush, remove }
        ' "$temp/rules" >"$temp/commands"
        complete=yes
        while read -r table command; do
            # shellcheck disable=SC2086
            "$program" -w 5 -t "$table" $command || complete=no
        done <"$temp/commands"
        if [ $complete = yes ]; then
            removed "firewall rules of $program"
        else
            warn "cannot remove all firewall rules of $program (see the line above)"
        fi
    done
}

# remove_one NAME COMMAND…: reports what was removed; continues after a failure.
remove_one() {
    name=$1
    shift
    if "$@" >/dev/null; then removed "$name"; else warn "cannot remove $name (see the line above)"; fi
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
    check_iptables
    ensure_group
    ensure_directories
    install_files
    start_services
    if [ $start = yes ]; then show_firewall_command; fi
    say "uc is installed"
    # `uc machine init` and `add` run install.sh without a terminal and need no hint.
    if [ -t 2 ] && [ ! -e "$STATE_DIR/state.db" ]; then
        say "next: create a cluster with \`uc machine init\`, or join one with \`uc machine join\`"
    fi
}

main "$@"
