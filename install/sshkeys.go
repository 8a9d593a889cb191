package install

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// sshTmpfiles is where bootc has systemd put root's keys, in a deployment.
// tmpfiles.d(5) makes the file at each start if it is not there, so that the
// keys are root's also where /root is lost or emptied.
const sshTmpfiles = "etc/tmpfiles.d/bootc-root-ssh.conf"

// checkSSHKeys refuses what holds no key.
func checkSSHKeys(keys []byte) error {
	for line := range bytes.Lines(keys) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return nil
		}
	}
	return errors.New("the file of root's SSH keys holds no key")
}

// sshTmpfilesLine is the line of tmpfiles.d(5) that makes root's keys: type f,
// content in Base64. rootLink is where the image's /root leads, "" if it is no
// link: systemd must not be sent through a link whose target it makes itself.
func sshTmpfilesLine(rootLink string, keys []byte) string {
	home := "/root"
	if rootLink != "" {
		home = path.Join("/", rootLink)
	}
	return fmt.Sprintf("f~ %s/.ssh/authorized_keys 600 root root - %s\n", home, base64.StdEncoding.EncodeToString(keys))
}

// writeSSHKeys puts the line into the deployment's own /etc.
func (r *run) writeSSHKeys(deployment string) error {
	if r.opts.RootSSHKeys == nil {
		return nil
	}
	if strings.ContainsAny(r.source.facts.rootLink, " \t\n%") {
		return fmt.Errorf("the image's /root leads to %q, which tmpfiles.d cannot name as it is", r.source.facts.rootLink)
	}
	dir := filepath.Join(r.target.root, deployment)
	released := r.ledger.Opened("fd", dir)
	defer released()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("opening the deployment for root's SSH keys: %w", err)
	}
	defer root.Close()
	if err := putFile(root, sshTmpfiles, sshTmpfilesLine(r.source.facts.rootLink, r.opts.RootSSHKeys)); err != nil {
		return fmt.Errorf("writing root's SSH keys into the deployment: %w", err)
	}
	return nil
}

// putFile writes a file and the directory that it stands in, whatever the umask.
func putFile(root *os.Root, name, text string) error {
	dir := path.Dir(name)
	switch err := root.Mkdir(dir, 0o755); {
	case err == nil:
		if err := root.Chmod(dir, 0o755); err != nil {
			return err
		}
	case !errors.Is(err, os.ErrExist):
		return err
	}
	if err := root.WriteFile(name, []byte(text), 0o644); err != nil {
		return err
	}
	return root.Chmod(name, 0o644)
}
