# tests/lib.sh - what the scripts of this folder share; sourced by bash, not run.

# close_inherited closes the files that the caller left open besides the standard three. mmdebstrap gives its
# own to a script of dash, which knows no descriptor above 9; and no test may depend on the caller's.
close_inherited() {
	local fd
	for fd in /proc/self/fd/*; do
		fd=${fd##*/}
		# Bash's own are closed on exec.
		[ "$fd" -le 2 ] || grep -q '^flags:.*02[0-7]\{6\}$' "/proc/$BASHPID/fdinfo/$fd" 2>/dev/null || exec {fd}>&-
	done
}
close_inherited

# need_root WHY ends the script unless root runs it.
need_root() {
	[ "$(id -u)" = 0 ] || {
		echo "$0: must run as root ($1)" >&2
		exit 2
	}
}

cache_dir() {
	echo "${INSTALLER_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/installer}"
}

# use_go finds Go, which root's PATH often lacks, or installs it, and sets how everything here is built.
use_go() {
	PATH=$PATH:/usr/local/go/bin:/usr/lib/go/bin
	command -v go >/dev/null || install_go
	export HOME=${HOME:-/root} PATH CGO_ENABLED=0
	export GOFLAGS="-buildvcs=false -tags=$(build_tags)"
	# Debian's Go does not fetch the version that go.mod asks for unless it is allowed to.
	export GOTOOLCHAIN=${GOTOOLCHAIN:-auto}
	go version >/dev/null || {
		echo "$0: $(command -v go) cannot be used: install Go $(wanted_go) in /usr/local/go" >&2
		exit 2
	}
}

wanted_go() { sed -n 's/^go //p' "$(dirname "${BASH_SOURCE[0]}")/../go.mod"; }

# install_go installs Debian's Go where that is 1.21 or later, the first that can fetch another version of itself.
install_go() {
	local version
	[ -n "$(ls /var/lib/apt/lists/*Packages* 2>/dev/null)" ] || apt-get -qq update
	version=$(apt-cache policy golang-go 2>/dev/null | sed -n 's/^ *Candidate: 2:\([0-9.]*\).*/\1/p')
	if [ -z "$version" ] || ! dpkg --compare-versions "$version" ge 1.21; then
		echo "$0: no Go: install Go $(wanted_go) or later in /usr/local/go (this Debian's package is ${version:-missing})" >&2
		exit 2
	fi
	install_debian golang-go ca-certificates
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

# install_packages installs those packages of a list, such as packages.txt, that are missing.
install_packages() { install_debian $(grep -v '^#' "$1"); }

# install_debian installs those Debian packages that are missing, and prints their names.
install_debian() {
	local missing=() p
	for p in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	echo "    missing packages: ${missing[*]}" >&2
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq update
	apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}
