package lab

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"
)

// newCgroup makes a cgroup that ends with the test, or skips it.
func newCgroup(t testing.TB, limit int64) *Cgroup {
	t.Helper()
	c, err := NewCgroup(limit)
	if errors.Is(err, ErrNoCgroup) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c)
		}
		if err := c.Remove(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestCgroupHoldsAProcessToItsLimit(t *testing.T) {
	const limit = 16 << 20
	c := newCgroup(t, limit)
	run := func(bytes string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		argv := c.Command("dd", "if=/dev/zero", "of=/dev/null", "bs="+bytes, "count=1")
		out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
		t.Logf("dd of %s: %v %s", bytes, err, out)
		return err
	}
	if err := run("4M"); err != nil {
		t.Fatal(err)
	}
	if e, err := c.Events(); err != nil || e.OOMKills != 0 {
		t.Errorf("%+v %v after a process that kept the limit", e, err)
	}
	if err := run("64M"); err == nil {
		t.Error("a process used four times the limit")
	}
	if e, err := c.Events(); err != nil || e.OOMKills != 1 || e.LimitHits == 0 {
		t.Errorf("%+v %v, want one killed process", e, err)
	}
	if n := c.Usage(); n < 0 || n > limit {
		t.Errorf("%d bytes charged", n)
	}
	must(t, c.SetLimit(0))
	if err := run("64M"); err != nil {
		t.Error("without a limit:", err)
	}
}
