package choice

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"strings"
)

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

// rootKeys returns the line for the keys, "" where there are none.
func rootKeys(rootLink string, keys []byte) (string, error) {
	if keys == nil {
		return "", nil
	}
	if strings.ContainsAny(rootLink, " \t\n%") {
		return "", fmt.Errorf("its /root leads to %q, which tmpfiles.d cannot name as it is", rootLink)
	}
	return sshTmpfilesLine(rootLink, keys), nil
}
