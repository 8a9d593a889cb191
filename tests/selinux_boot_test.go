package tests

import (
	_ "embed"
	"regexp"
	"slices"
	"strings"
	"testing"

	"installer/tests/chunked"
	"installer/tests/layout"
)

// nativeSELinux makes the image with an SELinux policy an ostree-native one: the commit of its disk
// in chunks, and a layer over it that adds a file to /etc and a program.
func nativeSELinux(t *testing.T) (ref string) {
	t.Helper()
	raw, report := selinuxDisk(t)
	dir, repo := t.TempDir(), t.TempDir()
	mustCommand(t, "ostree", "init", "--repo="+repo, "--mode=bare")
	mustCommand(t, "ostree", "pull-local", "--repo="+repo, MountRootReadOnly(t, raw)+"/ostree/repo", report.Deployment.Commit)
	layers, err := chunked.Layers(repo, dir, chunked.Options{Chunks: 30, Version: 1})
	must(t, err)
	labels, err := chunked.Labels(layers)
	must(t, err)
	layers = append(layers, tarFile(t, dir+"/over", map[string]string{"etc/motd": "derived\n", "usr/bin/derived": "#!/bin/sh\n"}))
	must(t, layout.Write(dir+"/oci", layers, layout.Options{Tag: "latest", Labels: labels}))
	return "oci:" + dir + "/oci:latest"
}

// An ostree-native image with an SELinux policy boots enforcing, as a plain Debian of its packages
// does, from a root on composefs; nothing is denied, and no label differs from the policy's, but for
// the faults of that Debian.
func TestSELinuxBoot(t *testing.T) {
	dir := t.TempDir()
	raw := dir + "/disk.raw"
	makeRaw(t, raw, diskSize)
	installSELinux(t, nativeSELinux(t), raw, dir+"/report.json")
	wantSound(t, raw)
	report := readReport(t, dir+"/report.json")
	if report.Source.BaseLayers != 31 {
		t.Errorf("%d base layers, want 31", report.Source.BaseLayers)
	}
	o := BootOptions{Disk: raw, Firmware: BIOS, Slack: 2}
	var e *Evidence
	var err error
	wait := aside(t, func() { e, err = Boot(t.Context(), o) })
	t.Parallel()
	wait()
	must(t, err)
	t.Logf("\n%s", e)
	for _, problem := range e.Problems() {
		if !strings.HasPrefix(problem, noStatus) {
			t.Error(problem)
		}
	}
	if mounts := e.Sections["mounts"].Text(); !strings.Contains(mounts, "/deploy/"+report.Deployment.Commit+".0/etc") {
		t.Errorf("the deployment of the installation did not boot:\n%s", mounts)
	}
	if root := e.Sections["root"].Text(); !strings.HasPrefix(root, "composefs overlay ") {
		t.Errorf("the root is %q", root)
	}
	if enforce := e.Sections["enforce"].Text(); enforce != "Enforcing" {
		t.Errorf("SELinux is %q", enforce)
	}
	relabel := relabelled(e.Sections["relabel"].Text(), madeAtBoot)
	control := slices.IndexFunc(relabel, func(line string) bool { return strings.Contains(line, "/etc/installer-selftest-control ") })
	if control < 0 {
		t.Errorf("restorecon does not see the file that has a wrong label: %q", e.Sections["relabel"].Text())
	} else {
		relabel = slices.Delete(relabel, control, control+1)
	}
	for _, line := range relabel {
		t.Error(line)
	}
	denials := e.Sections["denials"].Lines
	if len(denials) == 0 {
		t.Error("nothing was denied, though a plain Debian has denials: the logs were not read")
	}
	for _, line := range unknownDenials(denials) {
		t.Error(line)
	}
}

// noStatus is the problem that Debian's policy makes: it keeps ostree's generator from looking at
// /boot/loader, so that /boot is not mounted, and ostree admin status fails.
const noStatus = "ostree admin status shows no booted deployment"

// madeAtBoot are files of an empty /var that programs make with the label of its directory: the image
// that ostree itself deploys has the same ones.
var madeAtBoot = []*regexp.Regexp{
	regexp.MustCompile(`^/var/lib/systemd/random-seed `),
	regexp.MustCompile(`^/var/cache/ldconfig(/aux-cache)? `),
}

// denialsOfDebian are the denials that a plain Debian of the image's packages logs when it boots, or
// the image when ostree itself has deployed it and setfiles has labelled its /etc and /var: process,
// its type, the type and the class of the object, and the permission.
//
//go:embed selinux-denials.txt
var denialsOfDebian string

var denial = regexp.MustCompile(`denied +\{ ([^}]*) \} for .*?comm="([^"]*)".* scontext=\w+:\w+:(\w+):\S* tcontext=\w+:\w+:(\w+):\S* tclass=(\w+)`)

// unknownDenials returns those lines of denials that are none of a plain Debian's.
func unknownDenials(lines []string) (unknown []string) {
	known := map[string]bool{}
	for line := range strings.Lines(denialsOfDebian) {
		known[strings.TrimSpace(line)] = true
	}
	for _, line := range lines {
		m := denial.FindStringSubmatch(line)
		if m == nil {
			unknown = append(unknown, line)
			continue
		}
		for permission := range strings.FieldsSeq(m[1]) {
			if !known[strings.Join([]string{m[2], m[3], m[4], m[5], permission}, " ")] {
				unknown = append(unknown, line)
				break
			}
		}
	}
	return unknown
}
