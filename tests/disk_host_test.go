package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// hostSetups are the disks that are judged on the host, one for each file system.
func hostSetups() []setup {
	return []setup{{"xfs", "grub", "deploy"}, {"ext4", "grub", "report"}, {"btrfs", "systemd", "report"}}
}

// Every disk must be sound for the system's own tools, and hold the tree that an independent program
// makes of the same image.
func TestDiskOnHost(t *testing.T) {
	oracle := FlattenOracle(t, CacheImage(t))
	tree := ostreeTree(t, oracle)
	for _, s := range hostSetups() {
		t.Run(s.filesystem, func(t *testing.T) {
			d := Installed(t, s)
			nothingLeft(t, runDir)
			FsckAll(t, d.raw, s.filesystem)
			root := MountRootReadOnly(t, d.raw) // once: a btrfs is not mounted from two loop devices
			checkPartitions(t, d, root)
			OstreeChecks(t, root)
			deployment := DefaultDeployment(t, root)
			if want := filepath.Join(root, d.report.Deployment.Path); deployment != want {
				t.Errorf("ostree boots %s, the report says %s", deployment, want)
			}
			CompareTrees(t, deployment, oracle, DeploymentRules())
			CompareTrees(t, filepath.Join(deployment, "etc"), filepath.Join(oracle, "etc"), Rules{LooseLinks: true})
			if got := treeChecksums(t, filepath.Join(root, "ostree/repo"), d.report.Deployment.Commit); got != tree {
				t.Errorf("the commit's tree is %s, ostree commit gives %s", got, tree)
			}
		})
	}
}

// The oracle must be able to fail: a tree with one more file has other checksums.
func TestTreeChecksumsDiffer(t *testing.T) {
	commit := func(names ...string) string {
		dir := t.TempDir()
		for _, name := range names {
			must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
		}
		repo := t.TempDir()
		return treeChecksums(t, repo, ostreeCommit(t, repo, dir))
	}
	if one, two := commit("a"), commit("a", "b"); one == two || one != commit("a") {
		t.Errorf("trees of one and of two files: %s and %s", one, two)
	}
}

// ostreeTree commits the unpacked image by ostree itself and returns the checksums of the commit's
// tree. The rules are those of ostree's documentation for a bootable tree: the image's /etc is
// /usr/etc, and the mount points of the running system are empty.
func ostreeTree(t *testing.T, oracle string) string {
	t.Helper()
	staged := filepath.Join(filepath.Dir(oracle), "staged")
	must(t, os.RemoveAll(staged))
	t.Cleanup(func() { must(t, os.RemoveAll(staged)) })
	mustCommand(t, "cp", "-a", "--link", oracle, staged)
	for _, dir := range DeploymentRules().Emptied {
		entries, err := os.ReadDir(filepath.Join(staged, dir))
		must(t, err)
		for _, e := range entries {
			must(t, os.RemoveAll(filepath.Join(staged, dir, e.Name())))
		}
	}
	must(t, os.Rename(filepath.Join(staged, "etc"), filepath.Join(staged, "usr/etc")))
	repo := t.TempDir()
	return treeChecksums(t, repo, ostreeCommit(t, repo, staged))
}

func ostreeCommit(t *testing.T, repo, tree string) string {
	t.Helper()
	mustCommand(t, "ostree", "init", "--repo="+repo, "--mode=bare")
	mustCommand(t, "ostree", "config", "--repo="+repo, "set", "core.fsync", "false")
	return strings.TrimSpace(mustCommand(t, "ostree", "commit", "--repo="+repo, "--branch=tree", "--tree=dir="+tree))
}

// treeChecksums are those of the root's content and metadata: two commits of one tree share them.
func treeChecksums(t *testing.T, repo, commit string) string {
	t.Helper()
	fields := strings.Fields(mustCommand(t, "ostree", "ls", "--repo="+repo, "-d", "-C", commit, "/"))
	if len(fields) != 7 || len(fields[4]) != 64 || len(fields[5]) != 64 {
		t.Fatalf("ostree ls says %q", fields)
	}
	return fields[4] + " " + fields[5]
}

// checkPartitions compares the table as sfdisk reads it with the report, and the root's size with
// the partition's.
func checkPartitions(t *testing.T, d *installed, mounted string) {
	t.Helper()
	parts, err := Partitions(t.Context(), d.raw)
	must(t, err)
	want := []string{typeBIOS, typeESP, typeRoot}
	if len(parts) != len(want) || len(d.report.Disk.Partitions) != len(want) {
		t.Fatalf("sfdisk sees %v, the report has %v", parts, d.report.Disk.Partitions)
	}
	for i, p := range parts {
		r := d.report.Disk.Partitions[i]
		if !strings.EqualFold(p.Type, want[i]) || !strings.EqualFold(r.Type, want[i]) {
			t.Errorf("partition %d has type %s (report: %s), want %s", i+1, p.Type, r.Type, want[i])
		}
		if p.Start != r.Start || p.Size != r.Size || p.Name != r.Name {
			t.Errorf("partition %d: sfdisk sees %+v, the report has %+v", i+1, p, r)
		}
	}
	root := parts[2]
	var st unix.Statfs_t
	must(t, unix.Statfs(mounted, &st))
	if size := int64(st.Blocks) * st.Bsize; size > root.Size || size < root.Size*9/10 {
		t.Errorf("the root file system has %d bytes, its partition %d", size, root.Size)
	}
}
