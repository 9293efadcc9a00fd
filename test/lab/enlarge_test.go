package lab

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestEnlargedDisks is what docs/failover.md says of components that were made larger:
// resize finds the replicas again, and made anew over their data they give a larger
// device.
func TestEnlargedDisks(t *testing.T) {
	t.Parallel()
	t.Run("off", func(t *testing.T) { enlarge(t, Options{Plain: true, Size: 16 << 20}) })
	t.Run("majority", func(t *testing.T) { enlarge(t, Options{LAN: true, Majority: true, Plain: true, Size: 16 << 20}) })
}

func enlarge(t *testing.T, o Options) {
	const limit, second, third = 30 * time.Second, 48 << 20, 64 << 20
	l := newLab(t, o)
	must(t, l.CreateAndStart())
	alpha, bravo := l.Nodes[Alpha], l.Nodes[Bravo]
	ok := func(n *Node, args ...string) {
		t.Helper()
		if out, errs, code := n.Hastctl(args...); code != 0 {
			t.Fatalf("%v: hastctl %v: status %d: %s%s\n%s", n.Side, args, code, out, errs, l.Tails(5))
		}
	}
	vipds := func(do func(*Node) error) {
		t.Helper()
		for _, n := range l.Nodes {
			if o.Majority {
				must(t, do(n))
			}
		}
	}
	role := func(n *Node, role string) { // a daemon that starts may be at work, and with votes there has to be a view
		t.Helper()
		must(t, poll(limit, func() (bool, error) {
			if _, errs, code := n.Hastctl("role", role, Resource); code != 0 {
				return false, errors.New(errs)
			}
			return true, nil
		}))
	}
	serve := func() {
		t.Helper()
		role(bravo, "secondary")
		role(alpha, "primary")
		must(t, l.AwaitComplete(limit))
	}
	grow := func(size int64) {
		t.Helper()
		for _, n := range []*Node{alpha, bravo} {
			ok(n, "role", "init", Resource)
			must(t, os.Truncate(n.Local(), size))
			if _, errs, code := n.Hastctl("create", Resource); code != CodeRefused || !strings.Contains(errs, "hastctl resize "+Resource) {
				t.Fatalf("create over a component that grew: status %d: %s", code, errs)
			}
		}
	}
	want := bytes.Repeat([]byte("kept"), 1<<18)
	reads := func() {
		t.Helper()
		c, err := alpha.NBD(background(t))
		must(t, err)
		defer c.Close()
		got := make([]byte, len(want))
		_, err = c.ReadAt(got, 1<<20)
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Error("the data is gone")
		}
	}
	size := func() int64 {
		t.Helper()
		st, err := alpha.Status()
		must(t, err)
		return st.Provider.Size
	}
	vipds((*Node).StartVipd)
	serve()
	c, err := alpha.NBD(background(t))
	must(t, err)
	_, err = c.WriteAt(want, 1<<20)
	must(t, err)
	must(t, c.Flush())
	must(t, c.Close())
	was := size()

	grow(second)
	ok(alpha, "resize", Resource)
	ok(bravo, "resize", Resource)
	serve()
	reads()
	if now := size(); now != was {
		t.Errorf("the device has %d bytes, it had %d", now, was)
	}

	grow(third)
	vipds((*Node).StopVipd)
	for _, n := range l.Nodes {
		must(t, n.Stop())
		ok(n, "create", "--force", Resource)
		if o.Majority {
			must(t, os.Remove(filepath.Join(n.Dir(), "state", "view")))
		}
	}
	for _, n := range l.Nodes {
		must(t, n.Start())
	}
	vipds((*Node).StartVipd)
	serve()
	reads()
	now := size()
	if now <= second {
		t.Errorf("the device has %d bytes, of components of %d", now, third)
	}
	must(t, l.CompareReplicas(now))
}
