#!/usr/bin/env bash
# Installs what building, testing and running aicert needs on Debian or Ubuntu, and starts Docker. Says what it does; does
# nothing where nothing is missing.
#
#   scripts/setup.sh           install what is missing, start Docker
#   scripts/setup.sh --check   only say what is missing; exit status 1 if anything is
set -euo pipefail

check_only=false
case ${1:-} in
"") ;;
--check) check_only=true ;;
*) echo "usage: scripts/setup.sh [--check]" >&2; exit 2 ;;
esac

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

# Each line: package, what shows that it is there, and what it is for. A tool that came from elsewhere is as good.
needed() {
    cat <<'TEXT'
gcc command gcc builds the C parts of dependencies
libc6-dev file /usr/include/stdio.h builds the C parts of dependencies
make command make runs the Makefile
pkg-config command pkg-config finds libraries
libssl-dev library openssl HTTPS for git
libtss2-dev library tss2-esys speaks to TPMs
swtpm command swtpm software TPM
swtpm-tools command swtpm_setup software TPM
tpm2-tools command tpm2_checkquote checks quotes independently
git command git test repositories
openssh-client command ssh-keygen test repositories over SSH
openssh-server file /usr/sbin/sshd test repositories over SSH
curl command curl asks Docker whether it runs
python3 command python3 documentation of the log as a script
python3-venv python ensurepip test tools from the Python package index
ca-certificates file /etc/ssl/certs/ca-certificates.crt HTTPS
qemu-system-x86 command qemu-system-x86_64 test machines
ovmf file /usr/share/OVMF/OVMF_CODE_4M.fd firmware of test machines
systemd-boot-efi file /usr/lib/systemd/boot/efi/linuxx64.efi.stub images of test machines
binutils command objcopy images of test machines
fdisk command sfdisk disks of test machines
dosfstools command mkfs.vfat disks of test machines
mtools command mcopy disks of test machines
qemu-utils command qemu-img disks of test machines
util-linux command unshare builds the base image
mmdebstrap command mmdebstrap builds the Python base image
debian-archive-keyring file /usr/share/keyrings/debian-archive-keyring.gpg builds the Python base image
docker.io command dockerd runs jobs
TEXT
}

present() {
    case $1 in
    command) command -v "$2" >/dev/null || [ -x "/usr/sbin/$2" ] ;;
    file) [ -e "$2" ] ;;
    python) command -v python3 >/dev/null && python3 -c "import $2" 2>/dev/null ;;
    library) command -v pkg-config >/dev/null && pkg-config --exists "$2" ;;
    esac
}

# A Docker that answers needs no dockerd on this machine's path: it may be rootless, or in another place.
docker_host=${DOCKER_HOST:-unix:///var/run/docker.sock}
docker_answers() {
    case $docker_host in
    unix://*) curl --silent --max-time 5 --output /dev/null --unix-socket "${docker_host#unix://}" http://localhost/_ping ;;
    *) curl --silent --max-time 5 --output /dev/null "${docker_host/#tcp:/http:}/_ping" ;;
    esac
}

missing=()
while read -r package kind what purpose; do
    present "$kind" "$what" && continue
    [ "$package" = docker.io ] && command -v curl >/dev/null && docker_answers && continue
    missing+=("$package")
    say "missing: $package ($purpose)"
done < <(needed)
# In newer releases the docker command is a package of its own.
if ! command -v docker >/dev/null; then
    say "missing: the command docker (benchmarks compare with it)"
    if apt-cache show docker-cli >/dev/null 2>&1; then missing+=(docker-cli); else missing+=(docker.io); fi
fi

rust=true
command -v cargo >/dev/null || { rust=false; say "missing: Rust; install it from https://rustup.rs (1.95 or newer)"; }

if $check_only; then
    status=0
    [ ${#missing[@]} -eq 0 ] && $rust || status=1
    if command -v curl >/dev/null && docker_answers; then say "Docker runs"; else say "Docker does not run, or you may not use it"; status=1; fi
    [ $status -eq 1 ] || say "nothing is missing"
    exit $status
fi
$rust || exit 1

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else fail "this must be done as root, and there is no sudo: $*"
    fi
}

if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || fail "no apt-get here: install the equivalents of ${missing[*]} with your package manager"
    say "installing: ${missing[*]}"
    as_root apt-get update -qq || fail "apt-get update failed; check the network and /etc/apt"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        fail "apt-get could not install the packages; its messages are above"
fi

# Test machines run the distribution's kernel. It is not installed: apt downloads it when the first of them boots, and must
# know it for that.
kernel_known() { apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 || apt-cache show linux-image-virtual >/dev/null 2>&1; }
if command -v apt-get >/dev/null && ! kernel_known; then
    say "looking for the newest kernel, which test machines run"
    as_root apt-get update -qq || fail "apt-get update failed; check the network and /etc/apt"
fi

# Docker runs if something answers on its socket; that something answers only to others is another matter.
docker_runs_for_root() { as_root curl --silent --max-time 5 --output /dev/null --unix-socket /var/run/docker.sock http://localhost/_ping; }
wait_for_docker() {
    for _ in $(seq "$1"); do
        docker_runs_for_root && return 0
        sleep 1
    done
    return 1
}

if ! docker_answers; then
    [ -z "${DOCKER_HOST:-}" ] || fail "no Docker answers at DOCKER_HOST=$DOCKER_HOST: start it, or unset DOCKER_HOST"
    if ! docker_runs_for_root; then
        say "starting Docker"
        as_root service docker start >/dev/null 2>&1 || true
        # Where there is no init system, or its script is not allowed to set limits, the daemon is started by itself.
        if ! wait_for_docker 10; then
            log=/var/log/aicert-dockerd.log
            say "the service did not start; starting dockerd itself, its log is $log"
            as_root sh -c "setsid dockerd >$log 2>&1 </dev/null &"
            wait_for_docker 60 || {
                as_root tail -n 20 "$log" >&2 || true
                fail "Docker does not start; the end of its log is above. In a container it needs --privileged, or a DOCKER_HOST to use"
            }
        fi
    fi
    docker_answers || fail "Docker runs, but $(id -un) may not use it: sudo usermod -aG docker $(id -un), then log in again"
fi
say "ready"
