package source

import (
	"strings"
	"testing"
)

// The text is what podman 4.3 writes into a privileged container.
const containerEnv = `engine="podman-4.3.1"
name="kind_heisenberg"
id="4a7dba1fae95c63c6d88508a46b64ca849eac6e7d7f1b14e3f5e9859deb3bf7d"
image="quay.io/os/image:latest"
imageid="bfbe66b172901bb3b7f03c733312030efe4e8b8db72f517289890d9e276fc044"
rootless=0
graphRootMounted=1`

func TestContainerEnv(t *testing.T) {
	c, err := parseContainerEnv(strings.NewReader(containerEnv))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Source().String(), "containers-storage:@bfbe66b172901bb3b7f03c733312030efe4e8b8db72f517289890d9e276fc044"; got != want {
		t.Errorf("the source is %s, want %s", got, want)
	}
	if got, err := c.Target(""); got != "docker://quay.io/os/image:latest" || err != nil {
		t.Errorf("the target is %s (%v)", got, err)
	}
	if got, err := c.Target("oci"); got != "oci:quay.io/os/image:latest" || err != nil {
		t.Errorf("the target by another transport is %s (%v)", got, err)
	}
	for text, says := range map[string]string{
		"": "--privileged", // podman leaves the file empty without it
		strings.Replace(containerEnv, "rootless=0", "rootless=1", 1): "podman as root",
		`imageid="../../etc"`: "--privileged",
	} {
		if c, err := parseContainerEnv(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, %v; want an error with %q", text, c, err, says)
		}
	}
}

func TestContainerWithoutName(t *testing.T) {
	const id = "bfbe66b172901bb3b7f03c733312030efe4e8b8db72f517289890d9e276fc044"
	for _, name := range []string{"", id, "sha256:" + id} {
		c := Container{Image: name, ImageID: id}
		if target, err := c.Target(""); err == nil || !strings.Contains(err.Error(), "identifier") {
			t.Errorf("%q: target %q (%v)", name, target, err)
		}
	}
}
