package choice

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// checkSSHKeys refuses a file that holds no public key in the format of authorized_keys, see
// sshd(8).
func checkSSHKeys(keys []byte) error {
	if bytes.Contains(keys, []byte("PRIVATE KEY-----")) {
		return errors.New("the file of root's SSH keys holds a private key: give the public one, whose name ends in .pub")
	}
	if named, _ := countKeys(keys); named == 0 {
		return errors.New("the file of root's SSH keys holds no key: it needs a line such as \"ssh-ed25519 AAAA… name\"")
	}
	return nil
}

// keyType is the form of the name of a key's type, such as ssh-ed25519 and
// sk-ecdsa-sha2-nistp256@openssh.com.
var keyType = regexp.MustCompile(`^(ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9.@-]+$`)

// countKeys returns how many lines name the type of a key, with something behind it, and how many
// of them hold a key of that type: it begins with its type (RFC 4253, section 6.6). Options may
// stand before the type, with blanks in quotes.
func countKeys(keys []byte) (named, whole int) {
	for line := range bytes.Lines(keys) {
		fields := strings.Fields(string(line))
		if len(fields) == 0 || fields[0][0] == '#' {
			continue
		}
		i := slices.IndexFunc(fields[:len(fields)-1], keyType.MatchString)
		if i < 0 {
			continue
		}
		named++
		key, err := base64.StdEncoding.DecodeString(fields[i+1])
		if err != nil || len(key) < 4 {
			continue
		}
		if n := binary.BigEndian.Uint32(key); uint64(n) < uint64(len(key)-4) && string(key[4:4+n]) == fields[i] {
			whole++
		}
	}
	return named, whole
}

// noteKeys describes lines that sshd will not take for keys.
func noteKeys(keys []byte) string {
	named, whole := countKeys(keys)
	switch bad := named - whole; bad {
	case 0:
		return ""
	case 1:
		return "root's SSH keys: 1 line names a type and holds no key of that type, so sshd will not accept it"
	default:
		return fmt.Sprintf("root's SSH keys: %d lines name a type and hold no key of that type, so sshd will not accept them", bad)
	}
}

// sshTmpfilesLine is the line of tmpfiles.d(5) that makes root's keys: type f, content in Base64.
// rootLink is where the image's /root leads, "" if it is no link: systemd must not be sent through
// a link whose target it makes itself.
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
