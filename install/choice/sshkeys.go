package choice

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"strings"
)

// checkSSHKeys refuses a file that holds no public key in the format of authorized_keys, see sshd(8).
func checkSSHKeys(keys []byte) error {
	if bytes.Contains(keys, []byte("PRIVATE KEY-----")) {
		return errors.New("the file of root's SSH keys holds a private key: give the public one, whose name ends in .pub")
	}
	for line := range bytes.Lines(keys) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && hasKey(string(line)) {
			return nil
		}
	}
	return errors.New("the file of root's SSH keys holds no key: it needs a line such as \"ssh-ed25519 AAAA… name\"")
}

// hasKey reports whether a line has the type of a key and the key itself, which begins with its type (RFC 4253, section
// 6.6). Options may stand before them, with blanks in quotes.
func hasKey(line string) bool {
	fields := strings.Fields(line)
	for i := range len(fields) - 1 {
		key, err := base64.StdEncoding.DecodeString(fields[i+1])
		if err != nil || len(key) < 4 {
			continue
		}
		if n := binary.BigEndian.Uint32(key); uint64(n) < uint64(len(key)-4) && string(key[4:4+n]) == fields[i] {
			return true
		}
	}
	return false
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
