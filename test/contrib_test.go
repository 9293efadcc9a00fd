package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hastd/conf"
)

// TestExampleConfigurationsLoad: what we give people to copy has no mistake in it.
func TestExampleConfigurationsLoad(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "contrib", "*.toml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no example found: %v", err)
	}
	for _, f := range files {
		c, err := conf.Load(f)
		if err != nil {
			t.Errorf("%s:\n%v", f, err)
			continue
		}
		for _, w := range c.Warnings {
			t.Errorf("%s: warning: %v", f, w)
		}
	}
}

// TestReadmeConfigurationLoads checks the file of the quick start.
func TestReadmeConfigurationLoads(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "```toml\n")
	if !ok {
		t.Fatal("README.md shows no configuration")
	}
	text, _, _ := strings.Cut(rest, "```")
	c, err := conf.Parse("README.md", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range c.Warnings {
		t.Errorf("warning: %v", w)
	}
}

// TestHookExampleRuns calls the example hook as hastd does.
func TestHookExampleRuns(t *testing.T) {
	dir := t.TempDir()
	// The system log and the mail stay out of it.
	for name, body := range map[string]string{
		"logger":   `echo "logger $*" >>"$0.said"`,
		"mail":     `cat >/dev/null; echo "mail $*" >>"$0.said"`,
		"hastctl":  `echo state`,
		"hostname": `echo alpha`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"role", "data", "secondary", "primary"}, {"connect", "data"}, {"split-brain", "data"},
	} {
		cmd := exec.Command(filepath.Join(root, "contrib", "hook.sh"), args...)
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	for file, want := range map[string]string{"logger.said": "data: secondary became primary", "mail.said": "split-brain of data on alpha"} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s: %q, %v; want %q", file, b, err, want)
		}
	}
}
