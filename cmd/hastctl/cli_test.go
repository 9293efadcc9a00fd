package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// trouble is a command that must fail: with this status, one line of error and
// one of hint.
type trouble struct {
	name  string
	setup func(t *testing.T) []string // prepares and returns the arguments
	code  int
	err   string // regular expressions
	hint  string
}

var troubles = []trouble{
	{"daemon not running", func(t *testing.T) []string {
		return newCluster(t, "data", "/nowhere/disk").args("status")
	}, 69, `hastd is not running: nobody listens on .*/hastd\.sock`, `systemctl start hastd`},

	{"daemon not running, events", func(t *testing.T) []string {
		return newCluster(t, "data", "/nowhere/disk").args("events")
	}, 69, `hastd is not running`, `systemctl start hastd`},

	{"vipd not running", func(t *testing.T) []string {
		return newCluster(t, "data", "/nowhere/disk").args("group", "switch", "data")
	}, 69, `vipd is not running: nobody listens on .*vipd\.sock`, `systemctl start vipd`},

	{"node state, vipd not running", func(t *testing.T) []string {
		return newCluster(t, "data", "/nowhere/disk").args("node", "state")
	}, 69, `vipd is not running: nobody listens on .*vipd\.sock`, `systemctl start vipd`},

	{"others are down, and nobody to ask", func(t *testing.T) []string {
		return newCluster(t, "data", "/nowhere/disk").args("node", "start", "--others-are-down")
	}, 64, `nobody can be asked`, `--yes`},

	{"both forces", func(t *testing.T) []string {
		return newCluster(t, "data", "/nowhere/disk").args("node", "start", "--others-are-down", "--bootstrap", "--yes")
	}, 64, `do not go together`, `never ran`},

	{"group without a command", func(t *testing.T) []string {
		return newCluster(t, "data", "/nowhere/disk").args("group")
	}, 64, `no command given`, `group --help`},

	{"daemon frozen", func(t *testing.T) []string {
		c := newCluster(t, "data", "/nowhere/disk")
		freeze(t, c.start().Process)
		return append(c.args("status"), "--timeout", "100ms")
	}, 75, `did not answer within 100ms`, `hangs`},

	{"daemon frozen, events", func(t *testing.T) []string {
		c := newCluster(t, "data", "/nowhere/disk")
		freeze(t, c.start().Process)
		return append(c.args("events"), "--timeout", "100ms")
	}, 75, `hastd behind .*hastd\.sock did not answer within 100ms`, `hangs`},

	{"wrong name, events", func(t *testing.T) []string {
		c := newCluster(t, "data", "/nowhere/disk")
		c.start()
		return c.args("events", "date")
	}, 64, `resource "date" is not configured on node alpha`, `hastctl list`},

	{"wrong name, events of one daemon", func(t *testing.T) []string {
		c := newCluster(t, "data", "/nowhere/disk")
		c.start()
		return []string{"--control", c.path("run/hastd.sock"), "events", "date"}
	}, 64, `resource "date" is not configured on node alpha`, `hastctl list`},

	{"wrong name, daemon", func(t *testing.T) []string {
		c := newCluster(t, "data", "/nowhere/disk")
		c.start()
		return c.args("role", "primary", "date")
	}, 64, `resource "date" is not configured on node alpha`, `hastctl list`},

	{"wrong name, component", func(t *testing.T) []string {
		return newCluster(t, "data", "/nowhere/disk").args("create", "date")
	}, 64, `no resource "date"`, `hast\.toml has: data$`},

	{"wrong node", func(t *testing.T) []string {
		return append(newCluster(t, "data", "/nowhere/disk").args("create", "data"), "--node", "delta")
	}, 64, `no node "delta"`, `has: alpha, bravo$`},

	{"missing component, daemon", func(t *testing.T) []string {
		c := newCluster(t, "data", "/nowhere/disk")
		c.start()
		return c.args("role", "secondary", "data")
	}, 74, `/nowhere/disk: no such file .*if the replica is new, run .hastctl create data.`, `mend that, then order it again$`},

	{"component without metadata, daemon", func(t *testing.T) []string {
		disk := t.TempDir() + "/disk"
		makeFile(t, disk, 16<<20)
		c := newCluster(t, "data", disk)
		c.start()
		return c.args("role", "secondary", "data")
	}, 74, `disk holds no HAST metadata: run .hastctl create data.`, `mend that, then order it again$`},

	{"something in the way of the provider, daemon", func(t *testing.T) []string {
		c := newCluster(t, "data", t.TempDir()+"/disk")
		c.must("create", "data", "--size", "16MiB")
		makeFile(t, c.path("data.nbd"), 512)
		c.start()
		return c.args("role", "primary", "data", "--force")
	}, 74, `data\.nbd exists and is not a socket`, `mend that, then order it again$`},

	{"busy file", func(t *testing.T) []string {
		c := newCluster(t, "data", "")
		c = newCluster(t, "data", c.path("disk"))
		disk := c.component("data")
		makeFile(t, disk, 16<<20)
		holdByAnother(t, disk)
		return c.args("create", "data")
	}, 75, `data on node alpha: .*/disk is in use by hastctl\.test \(pid \d+\)`, `stop what holds it`},

	{"busy loop device", func(t *testing.T) []string {
		needRoot(t)
		image := t.TempDir() + "/image"
		makeFile(t, image, 16<<20)
		loop := tool(t, "losetup", "--find", "--show", image)
		t.Cleanup(func() { tool(t, "losetup", "--detach", loop) })
		holdByAnother(t, loop)
		return newCluster(t, "data", loop).args("create", "data")
	}, 75, `data on node alpha: /dev/loop\d+ is in use`, `stop what holds it|find what holds it`},

	{"file below a loop device", func(t *testing.T) []string {
		needRoot(t)
		image := t.TempDir() + "/image"
		makeFile(t, image, 16<<20)
		loop := tool(t, "losetup", "--find", "--show", image)
		t.Cleanup(func() { tool(t, "losetup", "--detach", loop) })
		return newCluster(t, "data", image).args("create", "data")
	}, 75, `image is in use by loop device /dev/loop\d+`, `stop what holds it`},

	{"full disk", func(t *testing.T) []string {
		needRoot(t)
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("a component that could not be made was left behind: %v", left)
			}
			if err := unix.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
		// 3 GiB have 25 pages of map: with the logs more than there is room for.
		return newCluster(t, "data", dir+"/disk").args("create", "data", "--size", "3GiB")
	}, 73, `data on node alpha: .*disk: no space left on device`, `make room`},

	{"full disk behind standard output", func(t *testing.T) []string {
		return []string{"-c", newCluster(t, "data", "/nowhere/disk").file, "check", "> /dev/full"}
	}, 74, `no space left on device`, `full`},

	{"full disk behind standard output, JSON", func(t *testing.T) []string {
		c := newCluster(t, "data", t.TempDir()+"/disk")
		c.must("create", "data", "--size", "16MiB")
		return c.args("--json", "dump", "data", "> /dev/full")
	}, 74, `no space left on device`, `full`},

	{"missing file", func(t *testing.T) []string {
		c := newCluster(t)
		return newCluster(t, "data", c.path("disk")).args("create", "data")
	}, 73, `data on node alpha: .*/disk does not exist`, `hastctl create data --size 1GiB`},

	{"missing folder, without a size", func(t *testing.T) []string {
		return newCluster(t, "data", "/nowhere/disk").args("create", "data")
	}, 73, `/nowhere/disk does not exist`, `mkdir -p /nowhere; then hastctl create data --size 1GiB`},

	{"missing file, dump", func(t *testing.T) []string {
		c := newCluster(t)
		return newCluster(t, "data", c.path("disk")).args("dump", "data")
	}, 73, `data on node alpha: .*/disk does not exist`, `--size`},

	{"missing folder", func(t *testing.T) []string {
		return newCluster(t, "data", "/nowhere/disk").args("create", "data", "--size", "16MiB")
	}, 73, `the folder /nowhere does not exist`, `mkdir -p /nowhere`},

	{"missing device is not made a file", func(t *testing.T) []string {
		return newCluster(t, "data", "/dev/hast-test-missing").args("create", "data", "--size", "16MiB")
	}, 73, `/dev/hast-test-missing does not exist, and a file in /dev is not a disk`, `attached`},

	{"link to nothing", func(t *testing.T) []string {
		disk := t.TempDir() + "/disk"
		if err := os.Symlink("/nowhere/disk", disk); err != nil {
			t.Fatal(err)
		}
		return newCluster(t, "data", disk).args("create", "data", "--size", "16MiB")
	}, 73, `/disk is a link to /nowhere/disk, which does not exist`, `correct the link`},

	{"folder as component", func(t *testing.T) []string {
		return newCluster(t, "data", t.TempDir()).args("create", "data", "--size", "16MiB")
	}, 73, `is a folder$`, `a file in it`},

	{"component too small", func(t *testing.T) []string {
		disk := t.TempDir() + "/disk"
		makeFile(t, disk, 64<<10)
		return newCluster(t, "data", disk).args("create", "data")
	}, 73, `has 65536 bytes, at least \d+ are needed`, `at least \d+ bytes larger`},

	{"no metadata", func(t *testing.T) []string {
		disk := t.TempDir() + "/disk"
		makeFile(t, disk, 16<<20)
		return newCluster(t, "data", disk).args("dump", "data")
	}, 74, `holds no metadata of HAST`, `hastctl create data`},

	{"older resource", func(t *testing.T) []string {
		c := newCluster(t, "data", t.TempDir()+"/disk")
		c.must("create", "data", "--size", "16MiB")
		return c.args("create", "data")
	}, 77, `already holds the resource data \(resuid [0-9a-f]{16}, localcnt 0, remotecnt 0`, `create data --force`},

	{"another resource", func(t *testing.T) []string {
		disk := t.TempDir() + "/disk"
		newCluster(t, "logs", disk).must("create", "logs", "--size", "16MiB")
		return newCluster(t, "data", disk).args("create", "data")
	}, 77, `already holds the resource logs`, `is the path right\?`},

	{"another resource, resize", func(t *testing.T) []string {
		disk := t.TempDir() + "/disk"
		newCluster(t, "logs", disk).must("create", "logs", "--size", "16MiB")
		return newCluster(t, "data", disk).args("resize", "data")
	}, 77, `holds the resource logs`, `is the path right\?`},

	{"ext4 in the way, file", func(t *testing.T) []string {
		disk := t.TempDir() + "/disk"
		makeFile(t, disk, 64<<20)
		tool(t, "mkfs.ext4", "-q", "-b", "4096", disk)
		return newCluster(t, "data", disk).args("create", "data")
	}, 77, `the ext4 on .*/disk reaches 1052672 bytes into the metadata area at its end: shrink it by that to 66056192 bytes`,
		`truncate -s \+\d+ .*/disk`},

	{"ext4 in the way, device", func(t *testing.T) []string {
		loop := loopWithExt4(t)
		return newCluster(t, "data", loop).args("create", "data")
	}, 77, `the ext4 on /dev/loop\d+ reaches 1052672 bytes into the metadata area at its end: shrink it by that to 66056192 bytes`,
		`e2fsck -f /dev/loop\d+ && resize2fs /dev/loop\d+ 64508K`},

	{"something in the way whose end is not known", func(t *testing.T) []string {
		disk := t.TempDir() + "/disk"
		makeFile(t, disk, 64<<20)
		f, err := os.OpenFile(disk, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte("NTFS    "), 3); err != nil {
			t.Fatal(err)
		}
		return newCluster(t, "data", disk).args("create", "data")
	}, 77, `the NTFS on .*/disk may reach 1052672 bytes into the metadata area at its end: where it ends is not known`,
		`put the metadata elsewhere .*; or, if it ends before byte 66056192 or may be given up: hastctl create data --force`},

	{"ext4 on the metadata device", func(t *testing.T) []string {
		dir := t.TempDir()
		makeFile(t, dir+"/meta", 64<<20)
		tool(t, "mkfs.ext4", "-q", "-b", "4096", dir+"/meta")
		c := newCluster(t, "data", dir+"/disk")
		appendTo(t, c.file, fmt.Sprintf("on.alpha.metadata = %q\n", dir+"/meta"))
		return c.args("create", "data", "--size", "16MiB")
	}, 77, `the metadata would overwrite the end of the ext4 on .*/meta$`, `is the path right\? .* device or file of its own, .* create data --force`},

	{"no command", func(*testing.T) []string { return nil }, 64, `no command given`, `hastctl help`},
	{"unknown command", func(*testing.T) []string { return []string{"statsu"} }, 64, `unknown command "statsu"`, `status`},
	{"unknown flag", func(*testing.T) []string { return []string{"status", "--jsn"} }, 64, `unknown flag: --jsn`, `usage: hastctl status`},
	{"too few arguments", func(*testing.T) []string { return []string{"role", "primary"} }, 64, `accepts 2 arg`, `usage: hastctl role primary\|secondary\|init NAME\|all`},
	{"unknown role", func(*testing.T) []string { return []string{"role", "master", "data"} }, 64, `no role "master"`, `primary, secondary or init`},
	{"bad size", func(t *testing.T) []string {
		return newCluster(t, "data", "/nowhere/disk").args("create", "data", "--size", "big")
	}, 64, `size "big"`, `1GiB`},
	{"bad timeout", func(t *testing.T) []string {
		return append(newCluster(t).args("status"), "--timeout", "-1s")
	}, 64, `timeout of -1s`, `30s`},

	{"missing configuration", func(*testing.T) []string { return []string{"-c", "/nowhere/hast.toml", "status"} },
		78, `/nowhere/hast\.toml: cannot be read`, `-c FILE`},
	{"mistakes in the configuration", func(t *testing.T) []string {
		c := newCluster(t, "data", "/nowhere/disk")
		appendTo(t, c.file, "checksm = \"none\"\ncompression = \"zip\"\n")
		return c.args("status")
	}, 78, `hast\.toml:\d+: resource\.data`, `hastctl check shows all 2 mistakes`},
	{"check", func(t *testing.T) []string {
		c := newCluster(t, "data", "/nowhere/disk")
		appendTo(t, c.file, "checksm = \"none\"\ncompression = \"zip\"\n")
		return c.args("check")
	}, 78, `has 2 mistakes`, `mend the lines`},

	{"key that exists", func(t *testing.T) []string {
		path := t.TempDir() + "/key"
		if code, _, errs := call("keygen", path); code != 0 {
			t.Fatal(errs)
		}
		return []string{"keygen", path}
	}, 73, `key file .*/key: it exists already`, `remove it first`},
	{"recover without saying so", func(t *testing.T) []string {
		c := newCluster(t, "data", "/nowhere/disk")
		c.start()
		return c.args("recover", "data")
	}, 64, `gives up the changes`, `--discard-local`},
}

func TestTroubleIsToldInOneLineWithAHint(t *testing.T) {
	for _, c := range troubles {
		t.Run(c.name, func(t *testing.T) {
			args := c.setup(t)
			var code int
			var errs string
			if n := len(args); n > 0 && args[n-1] == "> /dev/full" {
				code, errs = callInto(t, "/dev/full", args[:n-1])
			} else {
				code, _, errs = call(args...)
			}
			if code != c.code {
				t.Errorf("status %d, want %d", code, c.code)
			}
			lines := strings.Split(strings.TrimSuffix(errs, "\n"), "\n")
			if len(lines) != 2 || !strings.HasPrefix(lines[0], "hastctl: error: ") || !strings.HasPrefix(lines[1], "hastctl: hint: ") {
				t.Fatalf("want one line of error and one of hint:\n%s", errs)
			}
			for i, want := range []string{c.err, c.hint} {
				if !regexp.MustCompile(want).MatchString(lines[i]) {
					t.Errorf("line %q does not match %q", lines[i], want)
				}
			}
		})
	}
}

// freeze stops a process until the test ends it.
func freeze(t *testing.T, p *os.Process) {
	t.Helper()
	if err := p.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := unix.Waitid(unix.P_PID, p.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
}

// component is where the file says that a resource's component is.
func (c *cluster) component(name string) string {
	b, err := os.ReadFile(c.file)
	if err != nil {
		c.t.Fatal(err)
	}
	m := regexp.MustCompile(`\[resource\.` + name + `\]\n.*\non\.alpha\.local = "(.*)"`).FindSubmatch(b)
	return string(m[1])
}

func callInto(t *testing.T, path string, args []string) (int, string) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var errs strings.Builder
	return int(report(&errs, run(t.Context(), args, stdio{f, &errs}))), errs.String()
}

func makeFile(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprint(f, text)
}

func loopWithExt4(t *testing.T) string {
	t.Helper()
	needRoot(t)
	image := t.TempDir() + "/image"
	makeFile(t, image, 64<<20)
	tool(t, "mkfs.ext4", "-q", "-b", "4096", image)
	loop := tool(t, "losetup", "--find", "--show", image)
	t.Cleanup(func() { tool(t, "losetup", "--detach", loop) })
	return loop
}

// The advice for a filesystem in the way must be advice that works.
func TestMakingRoomAsToldMakesRoom(t *testing.T) {
	for _, kind := range []string{"file", "device"} {
		t.Run(kind, func(t *testing.T) {
			disk := t.TempDir() + "/disk"
			if kind == "device" {
				disk = loopWithExt4(t)
			} else {
				makeFile(t, disk, 64<<20)
				tool(t, "mkfs.ext4", "-q", "-b", "4096", disk)
			}
			c := newCluster(t, "data", disk)
			_, _, errs := call(c.args("create", "data")...)
			m := regexp.MustCompile(`hint: (?:make the file longer: )?(.*), then create again`).FindStringSubmatch(errs)
			if m == nil {
				t.Fatalf("no command that makes room:\n%s", errs)
			}
			tool(t, "sh", "-c", "PATH=$PATH:/usr/sbin:/sbin; "+strings.Replace(m[1], "e2fsck -f", "e2fsck -fy", 1))
			if out := c.must("create", "data"); !strings.Contains(out, "found on "+disk+": ext4, 6") {
				t.Errorf("it does not tell what it found:\n%s", out)
			}
			tool(t, "e2fsck", "-fn", disk)
		})
	}
}

func TestCreateDumpAndCreateAnew(t *testing.T) {
	for _, external := range []bool{false, true} {
		t.Run(fmt.Sprintf("external=%v", external), func(t *testing.T) {
			dir := t.TempDir()
			c := newCluster(t, "data", dir+"/disk")
			if external {
				appendTo(t, c.file, fmt.Sprintf("on.alpha.metadata = %q\n", dir+"/meta"))
			}
			c.must("create", "data", "--size", "16MiB", "--assume-clean")
			if _, err := os.Stat(dir + "/meta"); (err == nil) != external {
				t.Errorf("metadata file: %v", err)
			}
			var d struct {
				Resource   string
				Capacity   int64
				Superblock struct {
					Resource  string
					Data_Size int64
					Marks     []string
				}
				Superblock_Copies []struct{ State string }
			}
			if err := json.Unmarshal([]byte(c.must("--json", "dump", "data")), &d); err != nil {
				t.Fatal(err)
			}
			sb := d.Superblock
			if sb.Resource != "data" || sb.Data_Size != 16<<20 || len(sb.Marks) != 1 || sb.Marks[0] != "assume-clean" || d.Superblock_Copies[0].State != "ok" {
				t.Errorf("dump tells %+v", d)
			}
			if out := c.must("create", "data", "--force"); !strings.Contains(out, "warning: ") {
				t.Errorf("a forced creation does not warn:\n%s", out)
			}
			if out := c.must("dump", "data"); !strings.Contains(out, "marks            none") {
				t.Errorf("created anew, the old marks are still there:\n%s", out)
			}
		})
	}
}

// One of two copies is enough, and dump says which one is bad.
func TestDumpTellsOfADamagedCopy(t *testing.T) {
	disk := t.TempDir() + "/disk"
	c := newCluster(t, "data", disk)
	c.must("create", "data", "--size", "16MiB")
	var d struct {
		Superblock_Copies []struct {
			Offset int64
			State  string
		}
	}
	damage := func(off int64) {
		f, err := os.OpenFile(disk, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte("damage"), off+100); err != nil {
			t.Fatal(err)
		}
	}
	read := func() {
		if err := json.Unmarshal([]byte(c.must("--json", "dump", "data")), &d); err != nil {
			t.Fatal(err)
		}
	}
	read()
	damage(d.Superblock_Copies[1].Offset)
	read()
	if d.Superblock_Copies[0].State != "ok" || !strings.Contains(d.Superblock_Copies[1].State, "checksum") {
		t.Errorf("copies: %+v", d.Superblock_Copies)
	}
	damage(d.Superblock_Copies[0].Offset)
	code, _, errs := call(c.args("dump", "data")...)
	if code != 74 || !strings.Contains(errs, "both superblock copies are bad") || !strings.Contains(errs, "create data --force") {
		t.Errorf("status %d:\n%s", code, errs)
	}
}

// With all, the good ones are done, each trouble is told, and the worst decides.
func TestAllEndsWithTheWorst(t *testing.T) {
	dir := t.TempDir()
	makeFile(t, dir+"/good", 16<<20)
	makeFile(t, dir+"/held", 16<<20)
	holdByAnother(t, dir+"/held")
	c := newCluster(t, "missing", dir+"/missing", "held", dir+"/held", "good", dir+"/good")
	code, out, errs := call(c.args("create", "all")...)
	if code != 73 || strings.Count(errs, "hastctl: error: ") != 2 || strings.Count(errs, "hastctl: hint: ") != 2 || !strings.Contains(out, "good: created") {
		t.Errorf("status %d\n%s%s", code, out, errs)
	}
}

func TestCheckPrintsEveryMistake(t *testing.T) {
	c := newCluster(t, "data", "/nowhere/disk")
	if code, out, _ := call(c.args("check")...); code != 0 || !strings.Contains(out, "warning: ") || !strings.Contains(out, "no mistakes") {
		t.Errorf("status %d:\n%s", code, out)
	}
	appendTo(t, c.file, "checksm = \"none\"\ncompression = \"zip\"\n")
	_, out, _ := call(c.args("check")...)
	if strings.Count(out, "\n") != 2 || !strings.Contains(out, "resource.data.checksm") || !strings.Contains(out, "resource.data.compression") {
		t.Errorf("not both mistakes:\n%s", out)
	}
	var res checkResult
	_, out, _ = call(c.args("check", "--json")...)
	if err := json.Unmarshal([]byte(out), &res); err != nil || len(res.Mistakes) != 2 || res.Mistakes[0].Line == 0 || res.OK {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestKeygenWritesAKeyForRootAlone(t *testing.T) {
	path := t.TempDir() + "/key"
	if code, _, errs := call("keygen", path); code != 0 {
		t.Fatal(errs)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
}

func TestCompletionKnowsTheResources(t *testing.T) {
	c := newCluster(t, "data", "/a", "logs", "/b")
	_, out, _ := call("__complete", "-c", c.file, "role", "primary", "")
	if !strings.HasPrefix(out, "data\nlogs\nall\n") {
		t.Errorf("completion offers:\n%s", out)
	}
	if code, out, _ := call("completion", "bash"); code != 0 || !strings.Contains(out, "hastctl") {
		t.Errorf("status %d", code)
	}
}

// A daemon that holds a component keeps create and dump away from it.
func TestComponentOfADaemonIsBusy(t *testing.T) {
	c := newCluster(t, "data", t.TempDir()+"/disk")
	c.must("create", "data", "--size", "16MiB")
	c.start()
	c.must("role", "secondary", "data")
	for _, cmd := range []string{"create", "dump"} {
		code, _, errs := call(c.args(cmd, "data")...)
		if code != 75 || !strings.Contains(errs, "is in use by hastd (pid ") || !strings.Contains(errs, "hint: hastd holds it") {
			t.Errorf("%s: status %d\n%s", cmd, code, errs)
		}
	}
}

// What a killed daemon leaves of a FUSE provider, its next start removes.
func TestStartCleansUpAfterAKilledDaemon(t *testing.T) {
	needRoot(t)
	c := newCluster(t, "data", t.TempDir()+"/disk")
	text, err := os.ReadFile(c.file)
	if err != nil {
		t.Fatal(err)
	}
	fuse := strings.Replace(string(text), `provider = "nbd-server"`, `provider = "fuse"`, 1)
	if err := os.WriteFile(c.file, []byte(strings.Replace(fuse, "data.nbd", "device", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	c.must("create", "data", "--size", "16MiB")
	killed := exec.Command(hastdBinary(t), "-c", c.file, "--node", "alpha")
	ready := listenNotify(t, c.path("notify-killed"))
	killed.Env = append(os.Environ(), "NOTIFY_SOCKET="+c.path("notify-killed"))
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	<-ready
	c.must("role", "primary", "data", "--force")
	if loops := tool(t, "losetup", "--list", "--noheadings"); !strings.Contains(loops, c.dir) {
		t.Errorf("no loop device for the provider:\n%s", loops)
	}
	killed.Process.Kill()
	killed.Wait()
	c.start()
	if loops := tool(t, "losetup", "--list", "--noheadings"); strings.Contains(loops, c.dir) {
		t.Errorf("the loop device of the killed daemon is still there:\n%s", loops)
	}
	if _, err := os.Lstat(c.path("device")); !os.IsNotExist(err) {
		t.Errorf("the link to the dead device is still there: %v", err)
	}
}
