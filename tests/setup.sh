#!/usr/bin/env bash
# Installs what `make demo`, `make test`, `make bench`, `make sim` or `make fuzz` needs and this machine does not have. On a terminal
# it says what and asks; with YES=1, or in CI, it does it. The packages' names are Debian's and Ubuntu's.
set -euo pipefail
export PATH=$HOME/.cargo/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin

what=${1:-test}
fail() {
    echo "setup: $*" >&2
    exit 1
}

# Programs, and the package that has each.
needed=(
    cc:gcc ip:iproute2 nft:nftables iptables:iptables tcpdump:tcpdump iperf3:iperf3
    dockerd:docker.io docker:docker.io nsenter:util-linux setsid:util-linux awk:mawk mount:mount
)
[ "$what" = bench ] && needed+=(fastd:fastd tincd:tinc)
[ "$what" = fuzz ] && needed=(cc:gcc c++:g++)
[ "$what" = sim ] && needed=(cc:gcc unshare:util-linux ip:iproute2 mount:mount)
[ "$what" = test ] && needed+=(systemd-analyze:systemd)

packages=()
want() {
    case " ${packages[*]:-} " in *" $1 "*) ;; *) packages+=("$1") ;; esac
}
for pair in "${needed[@]}"; do
    command -v "${pair%%:*}" >/dev/null || want "${pair#*:}"
done
# The containers' image is made of it, so it must need nothing beside it.
busybox=$(command -v busybox || true)
if [ "$what" != fuzz ] && [ "$what" != sim ] && { [ -z "$busybox" ] || ldd "$busybox" >/dev/null 2>&1; }; then want busybox-static; fi
# aws-lc is C.
if command -v cc >/dev/null && ! echo '#include <stdlib.h>' | cc -E - >/dev/null 2>&1; then want libc6-dev; fi
case " ${packages[*]:-} " in
*" gcc "*) want libc6-dev ;;
esac

# Docker and namespaces are root's, and so is apt-get.
sudo=
if [ "$(id -u)" != 0 ] && { [ "$what" != fuzz ] || [ ${#packages[@]} -gt 0 ]; }; then
    command -v sudo >/dev/null || fail "make $what needs root for Docker, network namespaces or apt-get, and sudo is not installed: run it as root"
    sudo=sudo
fi

if [ ${#packages[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || fail "not installed, and there is no apt-get here: please install ${packages[*]} by this system's means"
    if [ -z "${YES:-}" ] && [ -z "${CI:-}" ]; then
        [ -t 0 ] || fail "not installed: ${packages[*]}. Run again with YES=1 to let apt-get install it"
        read -r -p "make $what needs ${packages[*]}. Install it with apt-get? [y/N] " answer
        case $answer in [yY]*) ;; *) fail "nothing was installed" ;; esac
    fi
    apt=($sudo env DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get -qq)
    "${apt[@]}" update
    "${apt[@]}" install -y --no-install-recommends "${packages[@]}" >/dev/null
    echo "setup: installed ${packages[*]}"
fi

command -v cargo >/dev/null || fail "cargo is not installed: Rust comes from rustup, or from your distribution"
[ "$what" = fuzz ] && exit
[ -e /dev/net/tun ] || $sudo modprobe tun 2>/dev/null || true
[ -e /dev/net/tun ] || fail "/dev/net/tun is missing, and there is no module to load: overlays cannot run here"
