package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"hastd/test/lab/disk"
)

// Every operation of hastctl create once: it fails, or nothing after it reaches the
// disk (the process is gone), or the power goes with the disk's cache. Afterwards
// the component is no replica and says so, or a whole one; create makes it one; and
// a replica that create refused to touch is what it was.

// dump is the part of hastctl dump --json that is looked at.
type dump struct {
	Superblock struct {
		Resource string
		Resuid   string
		Localcnt uint64
		Epoch    uint64
		Marks    []string
	}
	SuperCopies  []struct{ State string } `json:"superblock_copies"`
	LogCopies    []struct{ State string } `json:"log_copies"`
	LogExtents   []uint32                 `json:"log_extents"`
	DirtyBytes   int64                    `json:"dirty_bytes"`
	PagesDamaged int                      `json:"map_pages_damaged"`
}

const (
	exitIO      = 74
	exitRefused = 77
)

// creating is a component that is created again and again.
type creating struct {
	*pair
	n   *Node
	old *dump // of the replica that stands in the snapshot "replica"
	// What a whole creation leaves: it draws nothing at random.
	made []byte
}

func newCreating(t *testing.T) *creating {
	p := newPair(t, Options{Size: 4 << 20})
	c := &creating{pair: p, n: p.a}
	p.ok(c.n.Disk.Snapshot("blank"))
	// A replica with a history: it wrote alone.
	p.ok(c.n.Create())
	p.ok(c.keepMade())
	p.ok(c.n.Start())
	p.promoteByForce(c.n)
	p.write(c.n, 3, "old data")
	p.write(c.n, 300, "old data")
	p.ok(c.n.Kill())
	old, code, text := c.dump()
	if code != 0 || old.Superblock.Localcnt == 0 || len(old.LogExtents)+int(old.DirtyBytes) == 0 {
		t.Fatalf("the replica to begin with has no history: %+v %s", old, text)
	}
	c.old = old
	p.ok(c.flushed("replica"))
	return c
}

// flushed keeps what is on the medium; nothing may stand in the cache.
func (c *creating) flushed(name string) error {
	f, err := os.OpenFile(c.n.Local(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return err
	}
	return c.n.Disk.Snapshot(name)
}

func (c *creating) keepMade() error {
	b, err := os.ReadFile(c.n.Local())
	c.made = b
	if d, _, text := c.dump(); d == nil || !d.whole() || !d.isNew() {
		c.Fatalf("an undisturbed creation leaves %s", text)
	}
	return err
}

// metadata is the end of a component, where the metadata stands; data all before.
func metadata(b []byte) []byte { return b[len(b)-metadataSize:] }
func data(b []byte) []byte     { return b[:len(b)-metadataSize] }

// metadataSize is more than the metadata of a small component needs, and less than
// what stands between it and the data that is written here.
const metadataSize = 3 << 19

func (c *creating) dump() (*dump, int, string) {
	out, errs, code := c.n.Hastctl("dump", Resource, "--json")
	if code != 0 {
		return nil, code, errs
	}
	var d dump
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		c.Fatalf("dump: %v: %s", err, out)
	}
	return &d, 0, out
}

func (d *dump) whole() bool {
	ok := d.PagesDamaged == 0
	for _, x := range append(d.SuperCopies, d.LogCopies...) {
		ok = ok && x.State == "ok"
	}
	return ok
}

// usable: one copy of each is enough for the daemon.
func (d *dump) usable() bool {
	supers, logs := 0, 0
	for _, x := range d.SuperCopies {
		if x.State == "ok" {
			supers++
		}
	}
	for _, x := range d.LogCopies {
		if x.State == "ok" {
			logs++
		}
	}
	return supers > 0 && logs == 2 && d.PagesDamaged == 0
}

func (d *dump) isOld(old *dump) bool {
	return reflect.DeepEqual(d.Superblock, old.Superblock) && reflect.DeepEqual(d.LogExtents, old.LogExtents) && d.DirtyBytes == old.DirtyBytes
}

func (d *dump) isNew() bool {
	return d.Superblock.Resource == Resource && d.Superblock.Localcnt == 0 && d.Superblock.Epoch == 0 && len(d.LogExtents) == 0 && d.DirtyBytes == 0
}

// after is what a case does at the n-th operation.
type after int

const (
	failsOnce after = iota
	goneAfter
	powerAfter
)

func (a after) String() string {
	return [...]string{"fails once", "is the first that does not happen", "is the first that does not happen, and the cache is lost"}[a]
}

// one plays a case: create (with force, where an old replica is to be overwritten).
func (c *creating) one(from string, op disk.Op, n int, how after, force bool) {
	c.Helper()
	name := fmt.Sprintf("%s, force %v: %s %d %v", from, force, op, n, how)
	c.ok(c.n.Disk.Restore(from))
	before, err := os.ReadFile(c.n.Local())
	c.ok(err)
	f := disk.Fault{Op: op, After: n}
	if how == failsOnce {
		f.Count = 1
	}
	c.ok(c.n.Disk.Fail(f))
	args := []string{"create", Resource}
	if force {
		args = append(args, "--force")
	}
	_, errs, code := c.n.Hastctl(args...)
	c.ok(c.n.Disk.Heal())
	if how == powerAfter {
		c.ok(c.n.Disk.PowerLoss())
		c.ok(c.n.Disk.PowerUp())
	}
	stands, err := os.ReadFile(c.n.Local())
	c.ok(err)
	if !bytes.Equal(data(stands), data(before)) {
		c.Errorf("%s: the data area changed", name)
	}
	if code != 0 && !strings.Contains(errs, Resource) {
		c.Errorf("%s: ended with %d and does not say what failed: %q", name, code, errs)
	}
	if from == "replica" && !force {
		if code == 0 {
			c.Errorf("%s: an existing replica was created anew without --force", name)
		}
		if !bytes.Equal(stands, before) {
			c.Errorf("%s: create was refused (%d) and changed the component", name, code)
		}
		return
	}
	none := false
	switch {
	case bytes.Equal(metadata(stands), metadata(c.made)):
	case code == 0:
		c.Errorf("%s: create succeeded, but there is no whole replica", name)
	case bytes.Equal(stands, before):
		none = from == "blank"
	default:
		d, dcode, text := c.dump()
		switch none = dcode == exitIO; {
		case none: // no replica, and told so
		case dcode != 0:
			c.Errorf("%s: dump ends with %d: %s", name, dcode, text)
		case d.usable() && d.isNew():
		case from == "replica" && d.isOld(c.old): // one of its superblocks is wiped
		default:
			c.Errorf("%s: neither no replica nor a whole one: %s", name, text)
		}
	}
	// Once more, with what a person does who reads the answer.
	_, errs, code = c.n.Hastctl("create", Resource)
	if code == exitRefused && strings.Contains(errs, "--force") && (!none || strings.Contains(errs, "cannot be used")) {
		_, errs, code = c.n.Hastctl("create", Resource, "--force")
	}
	again, err := os.ReadFile(c.n.Local())
	c.ok(err)
	if code != 0 || !bytes.Equal(metadata(again), metadata(c.made)) {
		c.Errorf("%s: create cannot be run again (%d %s)", name, code, errs)
	}
}

// counts are the operations of an undisturbed creation.
func (c *creating) counts(from string, args ...string) map[disk.Op]int {
	c.Helper()
	c.ok(c.n.Disk.Restore(from))
	c.ok(c.n.Disk.ResetStats())
	c.n.Hastctl(append([]string{"create", Resource}, args...)...)
	s, err := c.n.Disk.Stats()
	c.ok(err)
	return map[disk.Op]int{disk.OpRead: int(s.Reads), disk.OpWrite: int(s.Writes), disk.OpFlush: int(s.Flushes)}
}

func TestCreateWithEveryOperationFailing(t *testing.T) {
	t.Parallel()
	c := newCreating(t)
	cases := 0
	for _, row := range []struct {
		from  string
		force bool
	}{{"blank", false}, {"replica", true}, {"replica", false}} {
		var args []string
		if row.force {
			args = []string{"--force"}
		}
		for op, n := range c.counts(row.from, args...) {
			if row.from == "blank" && op == disk.OpWrite && n < 5 {
				t.Fatalf("create writes %d times: counted wrongly", n)
			}
			for i := range n {
				for how := failsOnce; how <= powerAfter; how++ {
					if how != failsOnce && op == disk.OpRead {
						continue // nothing was written by then
					}
					c.one(row.from, op, i, how, row.force)
					cases++
				}
			}
		}
	}
	t.Logf("%d cases of (component, operation, n, what happens)", cases)
}
