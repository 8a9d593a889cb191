package tests

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// OstreeChecks fails the test unless Debian's ostree takes the sysroot for its own: every object is
// the content that its name says, and there is a deployment. The sysroot may be mounted read-only.
func OstreeChecks(t testing.TB, sysroot string) {
	t.Helper()
	if err := ostreeChecks(t.Context(), sysroot); err != nil {
		t.Error(err)
	}
}

var statusLine = regexp.MustCompile(`(?m)^[ *]+(\S+) ([0-9a-f]{64})\.(\d+)`)

func ostreeChecks(ctx context.Context, sysroot string) error {
	out, err := command(ctx, "ostree", "fsck", "--repo="+filepath.Join(sysroot, "ostree/repo"))
	if err == nil && !strings.Contains(out, "no errors found") {
		err = fmt.Errorf("ostree fsck of %s:\n%s", sysroot, out)
	}
	_, statusErr := deployments(ctx, sysroot)
	return errors.Join(err, statusErr)
}

// deployments lists the directories of the deployments that ostree sees, the default one first.
func deployments(ctx context.Context, sysroot string) ([]string, error) {
	out, err := command(ctx, "ostree", "admin", "status", "--sysroot="+sysroot)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, m := range statusLine.FindAllStringSubmatch(out, -1) {
		dirs = append(dirs, filepath.Join(sysroot, "ostree/deploy", m[1], "deploy", m[2]+"."+m[3]))
	}
	if len(dirs) == 0 {
		return nil, fmt.Errorf("ostree sees no deployment in %s: %s", sysroot, out)
	}
	return dirs, nil
}

// DefaultDeployment is the directory of the deployment that boots next.
func DefaultDeployment(t testing.TB, sysroot string) string {
	t.Helper()
	dirs, err := deployments(t.Context(), sysroot)
	if err != nil {
		t.Fatal(err)
	}
	return dirs[0]
}
