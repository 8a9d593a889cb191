package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"installer/tests/kit"
	"installer/tests/layout"
)

// hostileScript stands in the image where grub-mkimage should. It tries to get out, to stay, to
// mount, to unmount, to write and to kill; each success fails the installation by name. Then it
// does its real work.
const hostileScript = `#!/bin/sh
bad=
try() { name=$1; shift; if "$@" >/dev/null 2>&1; then bad="$bad [$name]"; fi; }
try 'write to its root' touch /usr/bin/new
try 'write to /etc' touch /etc/new
try 'write to its own program' sh -c 'echo >>/usr/bin/grub-mkimage'
try 'mount' mount -t tmpfs tmpfs /mnt
try 'bind mount' mount --bind /usr /mnt
try 'remount its root' mount -o remount,rw /
try 'unmount /tmp' umount /tmp
try 'unmount /dev' umount -l /dev
try 'unmount its root' umount -l /
try 'chroot' chroot /tmp /bin/true
try 'leave by dots' test -e /../../../../proc/1/root
try 'a user namespace' unshare --user --map-root-user true
try 'a mount namespace' unshare --mount true
try 'enter another namespace' nsenter --target 1 --mount true
try 'see processes' test -e /proc/self
try 'see the workspace' test -e ` + workspaceDir + `/root
try 'see the repository' test -e /sysroot/ostree/repo
try 'make a block device' mknod /tmp/disk b 7 0
try 'read a block device' sh -c 'cat /dev/loop0 /dev/vda /dev/sda'
try 'raise its limits' sh -c 'ulimit -c unlimited && nice -n -5 true && test "$(nice -n -5 nice)" = -5'
try 'set the clock' date -s 2001-01-01
try 'set the host name' sh -c 'echo x >/proc/sys/kernel/hostname || hostname hostile'
try 'be another user' setpriv --reuid 1 true
try 'change an owner' sh -c 'touch /tmp/f && chown 1:1 /tmp/f'
try 'make itself setuid root for another' sh -c 'cp /bin/true /tmp/t && chown 1 /tmp/t && chmod 4755 /tmp/t'
try 'reach the network' sh -c 'exec 3<>/dev/tcp/127.0.0.1/22 || ping -c 1 127.0.0.1'
# All that it can see: itself and what it started. Nobody else must be hit.
kill -9 -1 2>/dev/null
for i in 1 2 3; do (trap '' HUP TERM INT; exec setsid sleep 3600.4711) >/dev/null 2>&1 & done
if [ -n "$bad" ]; then echo "HOSTILE: got away with$bad" >&2; exit 1; fi
exec /usr/bin/grub-mkimage.real "$@"
`

// A hostile program of the image is contained: nothing that it tries succeeds, nothing of it stays,
// and the disk is its value without the attack.
func TestHostileProgram(t *testing.T) {
	adoptOrphans(t)
	source, _ := splitRef(CacheImage(t))
	_, manifest, _, err := layout.Read(source)
	must(t, err)
	system := filepath.Join(source, "blobs", "sha256", manifest.Layers[0].Digest.Encoded())
	grub := kit.Run(t, "tar", "-xOf", system, "./usr/bin/grub-mkimage")
	dirName, tag := stackOn(t, CacheImage(t), func(s *layout.Stack) {
		must(t, s.Add(writeItems(file("usr/bin/grub-mkimage", hostileScript).mode(0o755), file("usr/bin/grub-mkimage.real", grub).mode(0o755))))
	})
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	makeRaw(t, raw, diskSize)
	Run(t, "to-disk", "--via-loopback", "--generic-image", "--source-imgref", "oci:"+dirName+":"+tag, raw).Must(t)
	nothingLeft(t, dir)
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, name := range commands {
		if line, err := os.ReadFile(name); err == nil && strings.Contains(string(line), "3600.4711") {
			t.Errorf("it stayed: %s", name)
		}
	}
	Run(t, "verify", raw).Must(t)
}

// The script must be able to succeed: run without confinement it gets away with much.
func TestHostileProgramTells(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	only := strings.Split(hostileScript, "try 'write to its root'")[0] + "try 'a mount namespace' unshare --mount true\n" +
		"try 'see processes' test -e /proc/self\n" + `if [ -n "$bad" ]; then echo "HOSTILE: got away with$bad" >&2; exit 1; fi` + "\n"
	must(t, os.WriteFile(script, []byte(only), 0o700))
	r := RunBinary(t, script)
	if r.Code != 1 || !strings.Contains(r.Stderr, "[a mount namespace] [see processes]") {
		t.Errorf("exit status %d: %s", r.Code, r.Stderr)
	}
}
