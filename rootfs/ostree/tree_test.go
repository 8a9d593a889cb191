package ostree

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// treeMaker makes random directory trees with everything the format can hold.
type treeMaker struct {
	t   testing.TB
	rnd *rand.Rand
	n   int
}

var oddNames = []string{"new\nline", "quote\"'", "space name", "-dash", ".hidden", "ünïcödé", "日本語", "tab\tname", "back\\slash", "*?[", "\x01ctl", "a=b", "%41"}

func (m *treeMaker) name() string {
	m.n++
	if m.rnd.Intn(6) == 0 {
		return fmt.Sprintf("%s%d", oddNames[m.rnd.Intn(len(oddNames))], m.n)
	}
	return fmt.Sprintf("%x-%d", m.rnd.Intn(1<<uint(4*(1+m.rnd.Intn(7)))), m.n)
}

func (m *treeMaker) check(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// populate fills a directory with about files files and some levels below.
func (m *treeMaker) populate(dir string, files, depth int) {
	m.t.Helper()
	for i := m.rnd.Intn(files + 1); i >= 0; i-- {
		path := filepath.Join(dir, m.name())
		if m.rnd.Intn(4) == 0 {
			m.symlink(path)
		} else {
			m.file(path, m.size())
		}
	}
	if depth == 0 {
		return
	}
	for i := m.rnd.Intn(4); i > 0; i-- {
		sub := filepath.Join(dir, m.name())
		m.check(os.Mkdir(sub, 0o755))
		m.populate(sub, files, depth-1)
		m.dress(sub, false)
	}
}

func (m *treeMaker) size() int {
	switch m.rnd.Intn(10) {
	case 0:
		return 0
	case 1:
		return m.rnd.Intn(200 << 10)
	}
	return 1 + m.rnd.Intn(3000)
}

func (m *treeMaker) file(path string, size int) {
	m.t.Helper()
	data := make([]byte, size)
	m.rnd.Read(data)
	m.check(os.WriteFile(path, data, 0o600))
	m.dress(path, false)
}

func (m *treeMaker) symlink(path string) {
	m.t.Helper()
	target := fmt.Sprintf("../%0*d/ü", 1+m.rnd.Intn(400), m.rnd.Intn(1000))
	m.check(os.Symlink(target, path))
	m.dress(path, true)
}

// capability is a version 2 security.capability value: cap_net_bind_service.
var capability = append([]byte{1, 0, 0, 2, 0, 4, 0, 0}, make([]byte, 12)...)

// acl is a system.posix_acl_access value: user::rw- user:1000:r-- group::r-- mask::r-- other::r--.
var acl = []byte{
	2, 0, 0, 0,
	1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff,
	2, 0, 4, 0, 0xe8, 3, 0, 0,
	4, 0, 4, 0, 0xff, 0xff, 0xff, 0xff,
	16, 0, 4, 0, 0xff, 0xff, 0xff, 0xff,
	32, 0, 4, 0, 0xff, 0xff, 0xff, 0xff,
}

// dress gives a file or directory an owner, a mode and attributes.
func (m *treeMaker) dress(path string, link bool) {
	m.t.Helper()
	ids := []int{0, 0, 0, 1, 1000, 65534, 1<<32 - 2}
	m.check(unix.Lchown(path, ids[m.rnd.Intn(len(ids))], ids[m.rnd.Intn(len(ids))]))
	if link {
		if m.rnd.Intn(3) == 0 {
			m.check(unix.Lsetxattr(path, "trusted.link", []byte("x\x00y"), 0))
		}
		return
	}
	modes := []uint32{0o644, 0o644, 0o755, 0o600, 0, 0o4755, 0o2755, 0o1777, 0o7777}
	m.check(unix.Chmod(path, modes[m.rnd.Intn(len(modes))]))
	if m.rnd.Intn(3) == 0 {
		m.xattrs(path)
	}
}

func (m *treeMaker) xattrs(path string) {
	m.t.Helper()
	st, err := os.Lstat(path)
	m.check(err)
	set := func(name string, value []byte) { m.check(unix.Lsetxattr(path, name, value, 0)) }
	if st.Mode().IsRegular() && m.rnd.Intn(2) == 0 {
		set("security.capability", capability)
	}
	if m.rnd.Intn(3) == 0 {
		set("system.posix_acl_access", acl)
	}
	if m.rnd.Intn(2) == 0 {
		set("user.z", []byte("last"))
		set("user.a", make([]byte, 1+m.rnd.Intn(300)))
	}
	if m.rnd.Intn(3) == 0 {
		set("trusted.t", []byte{0, 1, 2})
	}
	if m.rnd.Intn(3) == 0 {
		set("security.selinux", []byte("system_u:object_r:etc_t:s0\x00"))
	}
	if m.rnd.Intn(4) == 0 {
		set("user.empty", nil) // not part of the object
	}
}

// makeTree is a random tree with some features always present.
func makeTree(t testing.TB, seed int64) string {
	t.Helper()
	m := &treeMaker{t: t, rnd: rand.New(rand.NewSource(seed))}
	dir := t.TempDir()
	m.populate(dir, 12, 3)
	m.check(os.MkdirAll(dir+"/usr/etc/empty", 0o755))
	m.check(os.WriteFile(dir+"/usr/etc/passwd", []byte("root\n"), 0o644))
	m.file(dir+"/usr/etc/dressed", 100)
	m.symlink(dir + "/usr/etc/link")
	m.check(os.WriteFile(dir+"/usr/etc/nothing", nil, 0o644))
	m.check(os.WriteFile(dir+"/usr/etc/nothing2", nil, 0o644))
	m.dress(dir+"/usr/etc", false)
	m.check(os.Chmod(dir, 0o755))
	return dir
}
