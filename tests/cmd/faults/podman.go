package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// podman runs the installer in privileged containers whose root is a directory: the programs and
// libraries are this machine's own, mounted read-only, so that no image has to be copied into a
// store.
type podman struct {
	dir    string
	run    string // podman takes no path of more than 50 characters
	rootfs string
}

func newPodman(dir string) (*podman, error) {
	run, err := os.MkdirTemp("/run", "installer-faults-")
	if err != nil {
		return nil, err
	}
	p := &podman{dir: dir, run: run, rootfs: filepath.Join(dir, "rootfs")}
	for _, name := range []string{"usr", "etc", "proc", "sys", "dev", "run", "tmp", "var/tmp"} {
		if err := os.MkdirAll(filepath.Join(p.rootfs, name), 0o755); err != nil {
			return nil, err
		}
	}
	for link, target := range map[string]string{"lib": "usr/lib", "lib64": "usr/lib64", "bin": "usr/bin", "sbin": "usr/sbin"} {
		if err := os.Symlink(target, filepath.Join(p.rootfs, link)); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// command is one run of the installer in a container. Its files have the same names inside.
func (p *podman) command(t *trial, args []string) *exec.Cmd {
	images := filepath.Join(t.lab.dir, "images")
	run := []string{"--root", filepath.Join(p.dir, "root"), "--runroot", p.run, "--tmpdir", filepath.Join(p.dir, "tmp"),
		"--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none",
		"run", "--rm", "--privileged", "--pid=host", "--network=none",
		// Those of a container that may not raise its own.
		"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--log-driver", "none", "--volume", "/dev:/dev",
		"--volume", "/usr:/usr:ro", "--volume", t.dir + ":" + t.dir, "--volume", t.tmp + ":/var/tmp", "--volume", images + ":" + images + ":ro",
		"--volume", t.lab.opts.installer + ":/run/installer.bin:ro", "--env", "TMPDIR=" + t.tmp}
	if t.image == "real" {
		dir, _, _ := strings.Cut(strings.TrimPrefix(t.lab.images["real"], "oci:"), ":")
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			run = append(run, "--volume", real+":"+dir+":ro")
		}
	}
	run = append(run, "--rootfs", p.rootfs, "/run/installer.bin")
	return exec.Command("podman", append(run, args...)...)
}

// close undoes the mount that podman's storage library leaves on its directory.
func (p *podman) close() {
	_ = exec.Command("umount", filepath.Join(p.dir, "root", "overlay")).Run() // there may be none
	_ = os.RemoveAll(p.run)
}
