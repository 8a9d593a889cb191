# tests/lib.sh - what the scripts of this folder share; sourced by bash, not run.

# need_root WHY ends the script unless root runs it.
need_root() {
	[ "$(id -u)" = 0 ] || {
		echo "$0: must run as root ($1); try: sudo $0" >&2
		exit 2
	}
}

cache_dir() {
	echo "${INSTALLER_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/installer}"
}

# use_go finds Go, which sudo's PATH often lacks, and sets how everything here is built.
use_go() {
	PATH=$PATH:/usr/local/go/bin:/usr/lib/go/bin
	command -v go >/dev/null || {
		echo "$0: no Go tool chain in PATH or /usr/local/go/bin" >&2
		exit 2
	}
	export HOME=${HOME:-/root} PATH CGO_ENABLED=0
	export GOFLAGS="-buildvcs=false -tags=$(build_tags)"
}

build_tags() {
	echo containers_image_openpgp,exclude_graphdriver_btrfs,exclude_graphdriver_devicemapper
}

# step NAME COMMAND... runs the command, with a line when it begins and one with the seconds it took.
# It must not be part of a condition: that would switch errexit off in what it runs.
step() {
	local begin=$SECONDS
	current_step=$1
	shift
	echo "==> $current_step ..." >&2
	"$@"
	echo "==> $current_step: $((SECONDS - begin)) s" >&2
}

current_step="before the first step"
set -E
trap 'echo "==> $current_step: FAILED (${BASH_SOURCE[0]##*/} line $LINENO: $BASH_COMMAND)" >&2' ERR

# install_packages installs those packages of packages.txt that are missing, and says which.
install_packages() {
	local list=$1 missing=() p
	while read -r p; do
		case $p in '' | '#'*) continue ;; esac
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
	done <"$list"
	[ ${#missing[@]} -gt 0 ] || return 0
	echo "    missing packages: ${missing[*]}" >&2
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq update
	apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}
