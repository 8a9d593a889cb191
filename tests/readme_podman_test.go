package tests

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"installer/tests/kit"
)

// readmeCommands returns the commands of README.md that match a pattern, each as one line of shell.
// They stand in code blocks, and end where no backslash continues them.
func readmeCommands(t *testing.T, pattern string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repoRoot(t), "README.md"))
	must(t, err)
	var found []string
	for block := range strings.SplitSeq(strings.ReplaceAll(string(text), "\\\n", " "), "\n") {
		command, indented := strings.CutPrefix(block, "    ")
		if indented && regexp.MustCompile(pattern).MatchString(command) {
			found = append(found, strings.Join(strings.Fields(command), " "))
		}
	}
	if len(found) == 0 {
		t.Fatalf("README.md has no command that matches %q", pattern)
	}
	return found
}

// readmeToDisk is the first command that a reader gives: the image installs itself, from podman's
// own storage, on a device.
func readmeToDisk(t *testing.T, p podman) {
	raw := filepath.Join(t.TempDir(), "disk.raw")
	makeRaw(t, raw, diskSize)
	device := loopDevice(t, raw)
	t.Cleanup(func() { deletePartitions(t, device) })
	r := p.readme(t, "/", `^podman run .* installer to-disk `, "IMAGE-installer", installerImage, "/dev/vda", device).Must(t)
	if !strings.Contains(r.Stdout, "Installation complete: "+device) {
		t.Errorf("standard output:\n%s", r.Stdout)
	}
	FsckAll(t, raw, "xfs")
	root := MountRootReadOnly(t, raw)
	OstreeChecks(t, root)
	if _, err := os.Stat(filepath.Join(DefaultDeployment(t, root), "usr/bin/installer")); err != nil {
		t.Errorf("the layer of the Containerfile is not in the deployment: %v", err)
	}
}

// readmeToFilesystem is the command that installs on file systems which are mounted on the host.
// They show a second time in the container, below the mount of podman's storage, and a third time
// outside.
func readmeToFilesystem(t *testing.T, p podman) {
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	makeRaw(t, raw, diskSize)
	script := filepath.Join(dir, "table")
	mustWrite(t, script, "label: gpt\nsize=1M,type="+typeBIOS+"\ntype="+typeRoot+"\n")
	mustCommand(t, "sh", "-c", `sfdisk --quiet "$1" <"$2"`, "sh", raw, script)
	parts, err := Partitions(t.Context(), raw)
	must(t, err)
	// A disk with partitions, as a machine has it: a loop device may not look for them by itself.
	device := loopDevice(t, raw)
	for i, part := range parts {
		kit.AddPartition(t, device, i+1, part.Start, part.Size)
	}
	mustCommand(t, "mkfs.ext4", "-q", device+"p2")
	p.run("mount", device+"p2", "/mnt")
	r := p.readme(t, "/", `^podman run .* installer to-filesystem `, "IMAGE-installer", installerImage).Must(t)
	if !strings.Contains(r.Stdout, "Installation complete: /target") {
		t.Errorf("standard output:\n%s", r.Stdout)
	}
	// The mounts are the caller's, and unmount at once.
	p.run("umount", "-R", "/mnt")
	must(t, checkPartition(t.Context(), raw, typeRoot, "ext4", checkers["ext4"]))
	OstreeChecks(t, MountRootReadOnly(t, raw))
}
