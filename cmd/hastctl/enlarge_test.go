package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A component that was enlarged has its metadata at the old end: nobody takes it for an
// empty one, and resize finds the replica again.
func TestEnlargedComponentKeepsItsReplica(t *testing.T) {
	for _, external := range []bool{false, true} {
		t.Run(fmt.Sprintf("external=%v", external), func(t *testing.T) {
			dir := t.TempDir()
			c := newCluster(t, "data", dir+"/disk")
			grows := dir + "/disk"
			if external {
				grows = dir + "/meta"
				appendTo(t, c.file, fmt.Sprintf("on.alpha.metadata = %q\n", grows))
			}
			c.must("create", "data", "--size", "16MiB")
			c.start()
			c.must("role", "primary", "data", "--force")
			c.must("role", "init", "data")
			before := c.must("dump", "data")
			resuid := regexp.MustCompile(`resuid +[0-9a-f]{16}`).FindString(before)
			st, err := os.Stat(grows)
			if err != nil {
				t.Fatal(err)
			}
			for _, size := range []int64{st.Size() + 64<<10, 40 << 20} {
				if err := os.Truncate(grows, size); err != nil {
					t.Fatal(err)
				}
				refused := func(code int, want string, args ...string) {
					t.Helper()
					if got, _, errs := call(c.args(args...)...); got != code || !strings.Contains(errs, want) || args[0] != "resize" && !strings.Contains(errs, "hastctl resize data") {
						t.Errorf("%v: status %d, want %d with %q:\n%s", args, got, code, want, errs)
					}
				}
				refused(77, "grew to", "create", "data")
				refused(74, "grew from", "dump", "data")
				refused(74, "grew from", "role", "secondary", "data")
				if size != 40<<20 {
					refused(73, "no room for the metadata", "resize", "data")
				}
			}
			if out := c.must("resize", "data"); !strings.Contains(out, "moved the metadata") {
				t.Errorf("resize says:\n%s", out)
			}
			if out := c.must("resize", "data"); !strings.Contains(out, "nothing to do") {
				t.Errorf("a second resize says:\n%s", out)
			}
			if after := c.must("dump", "data"); resuid == "" || !strings.Contains(after, resuid) {
				t.Errorf("not the same replica:\n%s%s", before, after)
			}
			c.must("role", "primary", "data")
			c.must("role", "init", "data")
			if err := os.Truncate(grows, st.Size()); err != nil {
				t.Fatal(err)
			}
			if code, _, errs := call(c.args("dump", "data")...); code != 74 || !strings.Contains(errs, "shrank from") {
				t.Errorf("an old copy was left behind: status %d:\n%s", code, errs)
			}
		})
	}
}

// A replica that was made anew on an enlarged component is the one that counts: what is
// left of the old one is data.
func TestCreationOnAnEnlargedComponentIsRemembered(t *testing.T) {
	for _, v := range []struct{ external, opened bool }{{false, false}, {false, true}, {true, false}, {true, true}} {
		t.Run(fmt.Sprintf("external=%v opened=%v", v.external, v.opened), func(t *testing.T) {
			dir := t.TempDir()
			c := newCluster(t, "data", dir+"/disk")
			grows := dir + "/disk"
			if v.external {
				grows = dir + "/meta"
				appendTo(t, c.file, fmt.Sprintf("on.alpha.metadata = %q\n", grows))
			}
			c.must("create", "data", "--size", "16MiB")
			if v.opened {
				c.start()
				c.must("role", "secondary", "data")
				c.must("role", "init", "data")
			}
			if err := os.Truncate(grows, 40<<20); err != nil {
				t.Fatal(err)
			}
			if code, _, errs := call(c.args("create", "data")...); code != 77 || !strings.Contains(errs, "grew to") {
				t.Errorf("the replica is not found again: status %d:\n%s", code, errs)
			}
			c.must("create", "data", "--force")
			before, err := os.ReadFile(grows)
			if err != nil {
				t.Fatal(err)
			}
			if out := c.must("resize", "data"); !strings.Contains(out, "nothing to do") {
				t.Errorf("resize says:\n%s", out)
			}
			if after, err := os.ReadFile(grows); err != nil || !bytes.Equal(before, after) {
				t.Errorf("resize wrote into it, %v", err)
			}
		})
	}
}

// With metadata elsewhere, a replica made anew is for the component as it is now.
func TestCreationAnewIsForTheComponentAsItIs(t *testing.T) {
	dir := t.TempDir()
	c := newCluster(t, "data", dir+"/disk")
	makeFile(t, dir+"/meta", 4<<20)
	appendTo(t, c.file, fmt.Sprintf("on.alpha.metadata = %q\n", dir+"/meta"))
	c.must("create", "data", "--size", "16MiB")
	for _, size := range []int64{32 << 20, 8 << 20} {
		if err := os.Truncate(dir+"/disk", size); err != nil {
			t.Fatal(err)
		}
		c.must("create", "data", "--force")
		if out := c.must("dump", "data"); !regexp.MustCompile(fmt.Sprintf(`data size +%d bytes`, size)).MatchString(out) {
			t.Errorf("a component of %d bytes:\n%s", size, out)
		}
	}
}

// With --json standard output is the dump alone, and warnings are not lost.
func TestCreationWarnsBesideJSON(t *testing.T) {
	c := newCluster(t, "data", t.TempDir()+"/disk")
	text, err := os.ReadFile(c.file)
	if err != nil {
		t.Fatal(err)
	}
	votes := strings.Replace(string(text), "[hastd]", "quorum = \"majority\"\n[hastd]", 1) + fmt.Sprintf("[vipd]\nstate = %q\n", c.path("vipd"))
	if err := os.WriteFile(c.file, []byte(votes), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(c.path("vipd/view"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.must("create", "data", "--size", "16MiB")
	code, out, errs := call(c.args("--json", "create", "data", "--force")...)
	var d struct{ Resource string }
	if err := json.Unmarshal([]byte(out), &d); err != nil || d.Resource != "data" || code != 0 {
		t.Errorf("status %d, %v:\n%s", code, err, out)
	}
	for _, want := range []string{"; forced\n", "data: warning: vipd remembers the replica"} {
		if !strings.Contains(errs, want) {
			t.Errorf("standard error lacks %q:\n%s", want, errs)
		}
	}
}

// A size that cannot be kept is told; the replica is made all the same.
func TestCreationWarnsThatTheSizeIsNotKept(t *testing.T) {
	c := newCluster(t, "data", t.TempDir()+"/disk")
	if err := os.MkdirAll(c.path("state/data.json.new"), 0o700); err != nil { // stands in the way of the new file
		t.Fatal(err)
	}
	if out := c.must("create", "data", "--size", "16MiB"); !strings.Contains(out, "data: warning: its size cannot be kept in "+c.path("state")) {
		t.Errorf("create says:\n%s", out)
	}
}

// Where there is no room for the metadata yet, what is asked for suffices.
func TestEnlargingAsToldIsEnough(t *testing.T) {
	const page = 127 << 20 // of map stands for so much, so that the next 1 MiB needs another one
	for _, external := range []bool{false, true} {
		t.Run(fmt.Sprintf("external=%v", external), func(t *testing.T) {
			dir := t.TempDir()
			c := newCluster(t, "data", dir+"/disk")
			grows := dir + "/disk"
			if external {
				grows = dir + "/meta"
				appendTo(t, c.file, fmt.Sprintf("on.alpha.metadata = %q\n", grows))
			}
			c.must("create", "data", "--size", strconv.Itoa(page-512<<10))
			grow := func(path string, by int64) {
				t.Helper()
				st, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(path, st.Size()+by); err != nil {
					t.Fatal(err)
				}
			}
			if external {
				grow(dir+"/disk", 2*page)
			} else {
				grow(grows, 4096)
			}
			code, _, errs := call(c.args("resize", "data")...)
			m := regexp.MustCompile(`make it at least (\d+) bytes larger`).FindStringSubmatch(errs)
			if code != 73 || m == nil {
				t.Fatalf("status %d:\n%s", code, errs)
			}
			by, err := strconv.ParseInt(m[1], 10, 64)
			if err != nil || by > 2<<20 {
				t.Errorf("%d bytes are asked for, %v", by, err)
			}
			grow(grows, by)
			c.must("resize", "data")
			c.must("dump", "data")
		})
	}
}

// A component that shrank lost its metadata, not its replica: nobody takes it for a new one.
func TestShrunkComponentIsNotMadeANewReplica(t *testing.T) {
	for _, external := range []bool{false, true} {
		t.Run(fmt.Sprintf("external=%v", external), func(t *testing.T) {
			dir := t.TempDir()
			c := newCluster(t, "data", dir+"/disk")
			shrinks := dir + "/disk"
			if external {
				shrinks = dir + "/meta"
				makeFile(t, shrinks, 32<<20)
				appendTo(t, c.file, fmt.Sprintf("on.alpha.metadata = %q\n", shrinks))
			}
			c.must("create", "data", "--size", "32MiB")
			c.start()
			if err := os.Truncate(shrinks, 16<<20); err != nil {
				t.Fatal(err)
			}
			for _, r := range []struct {
				code int
				hint string
				args []string
			}{
				{77, "hastctl create data --force", []string{"create", "data"}},
				{74, "hastctl create data --force", []string{"dump", "data"}},
				{74, "hastctl create data --force", []string{"resize", "data"}},
				{74, "hastctl create data --force", []string{"role", "secondary", "data"}},
			} {
				code, _, errs := call(c.args(r.args...)...)
				if code != r.code || !strings.Contains(errs, "shrank from") || !regexp.MustCompile(`[Gg]ive (it|the component) its old size back`).MatchString(errs) || !strings.Contains(errs, r.hint) {
					t.Errorf("%v: status %d, want %d:\n%s", r.args, code, r.code, errs)
				}
			}
			if out := c.must("create", "data", "--force"); !strings.Contains(out, "warning: "+shrinks+" shrank from") {
				t.Errorf("a forced creation does not warn:\n%s", out)
			}
			c.must("role", "secondary", "data")
			c.must("role", "init", "data")
			if external {
				return
			}
			if err := os.Remove(shrinks); err != nil {
				t.Fatal(err)
			}
			c.must("create", "data", "--size", "8MiB") // a new file is nothing that shrank
		})
	}
}

// A move that was cut off is carried out when it is ordered again, and nothing opens the
// component before: neither the copy at the old end nor the old size is forgotten.
func TestResizeThatWasCutOffIsCarriedOut(t *testing.T) {
	disk := t.TempDir() + "/disk"
	c := newCluster(t, "data", disk)
	c.must("create", "data", "--size", "16MiB")
	before, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	state, err := os.ReadFile(c.path("state/data.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 40<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(c.path("state/data.json.new"), 0o700); err != nil { // stands in the way of the new file
		t.Fatal(err)
	}
	if code, _, errs := call(c.args("resize", "data")...); code != 74 || !strings.Contains(errs, "cannot be kept") || !strings.Contains(errs, "then resize again") {
		t.Errorf("status %d:\n%s", code, errs)
	}
	if err := os.Remove(c.path("state/data.json.new")); err != nil {
		t.Fatal(err)
	}
	c.must("resize", "data")
	moved, err := os.ReadFile(c.path("state/data.json"))
	if err != nil || !strings.Contains(string(moved), fmt.Sprintf(`"size":%d`, 40<<20)) {
		t.Errorf("ordered again, the size is not kept: %s, %v", moved, err)
	}
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	put := func(b []byte, at int64) {
		t.Helper()
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	cutOff := func() { // before the wipe: the old end has it, too, and the old size is kept
		t.Helper()
		tail := int64(len(before)) - 1<<20
		put(before[tail:], tail)
		if err := os.WriteFile(c.path("state/data.json"), state, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.start()
	carriedOut := func() {
		t.Helper()
		if code, _, errs := call(c.args("role", "secondary", "data")...); code != 74 || !strings.Contains(errs, "hastctl resize data") {
			t.Errorf("status %d:\n%s", code, errs)
		}
		if out := c.must("resize", "data"); !strings.Contains(out, "moved the metadata") {
			t.Errorf("resize says:\n%s", out)
		}
		c.must("role", "secondary", "data")
		c.must("role", "init", "data")
	}
	cutOff()
	carriedOut()
	// In the first superblock: that one is torn, the other one was not written.
	cutOff()
	const end = 40 << 20
	put(make([]byte, 4096), end-1<<20)
	put([]byte("torn"), end-4096+100)
	for _, cmd := range []string{"create", "dump"} {
		if code, _, errs := call(c.args(cmd, "data")...); code == 0 || !strings.Contains(errs, "grew") || !strings.Contains(errs, "hastctl resize data") {
			t.Errorf("%s: status %d:\n%s", cmd, code, errs)
		}
	}
	carriedOut()
	if err := os.Truncate(disk, int64(len(before))); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := call(c.args("dump", "data")...); code != 74 {
		t.Errorf("the old copy was left behind: status %d:\n%s", code, out)
	}
}

// What was made to reach into the new room is not overwritten, on whichever device.
func TestResizeRefusesAFilesystemThatGrewToo(t *testing.T) {
	for _, external := range []bool{false, true} {
		t.Run(fmt.Sprintf("external=%v", external), func(t *testing.T) {
			dir := t.TempDir()
			c := newCluster(t, "data", dir+"/disk")
			grows := dir + "/disk"
			if external {
				grows = dir + "/meta"
				makeFile(t, grows, 16<<20)
				appendTo(t, c.file, fmt.Sprintf("on.alpha.metadata = %q\n", grows))
			}
			c.must("create", "data", "--size", "16MiB")
			if err := os.Truncate(grows, 40<<20); err != nil {
				t.Fatal(err)
			}
			refused := func(want string) {
				t.Helper()
				if code, _, errs := call(c.args("resize", "data")...); code != 77 || !strings.Contains(errs, want) {
					t.Errorf("status %d, want 77 with %q:\n%s", code, want, errs)
				}
			}
			mkfs := func(size string) { tool(t, "mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "nodiscard", grows, size) }
			mkfs("39M")
			refused("the ext4 on " + grows)
			mkfs("12M")
			c.must("resize", "data")
		})
	}
}
