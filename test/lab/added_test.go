package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// TestAddedTime measures how much later a group is there because of what it has on its
// device: nothing, an ext4 filesystem, PostgreSQL on that; after a switch by hand, and
// after both daemons of the node were killed. Without LAB_ADDED it only does so once
// with PostgreSQL, to see that such a group moves at all. LAB_ADDED=3 measures all kinds
// as often, LAB_ELECTION=carp chooses the other election. The disks are files behind
// FUSE, slow to flush: only the order of magnitude says something.
func TestAddedTime(t *testing.T) {
	times, interval := envInt("LAB_ADDED", 0), time.Duration(0)
	kinds := []string{"", "ext4", "postgresql"}
	if times == 0 {
		t.Parallel() // it measures nothing
		times, kinds, interval = 1, kinds[2:], calmInterval
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "on the device\tafter\tother node answers\tadded\tof it: parts of the group, down there and up here")
	base := map[string]time.Duration{}
	for _, kind := range kinds {
		t.Run("on the device "+kind, func(t *testing.T) {
			a := newAdded(t, kind, interval)
			for _, fault := range []string{switchedByHand, bothKilled} {
				var all []moved
				for range times {
					all = append(all, a.move(fault))
				}
				slices.SortFunc(all, func(x, y moved) int { return int(x.served - y.served) })
				m := all[len(all)/2]
				added := "-"
				if kind == "" {
					base[fault] = m.served
				} else if at, ok := base[fault]; ok {
					added = ms(m.served - at).String()
				}
				fmt.Fprintf(w, "%s\t%s\t%v\t%s\t%s\n", kind, fault, ms(m.served), added, strings.Join(m.parts, ", "))
			}
		})
	}
	w.Flush()
	t.Logf("the median of %d\n%s", times, b.String())
}

const bothKilled = "both daemons killed"

// added is a group with something on its device.
type added struct {
	t      *testing.T
	l      *Lab
	kind   string
	on     *Node
	client *Client
}

// moved is what one move took.
type moved struct {
	served time.Duration
	parts  []string // what vipd says of each part
}

// databaseScript is the service. The nodes of a lab share process numbers, as real ones
// do not: the lock of the other one is no lock, and the server is stopped by its number
// alone, for its device may be gone.
const databaseScript = `dir=%[1]s bin=%[2]s pid=%[3]s run=%[4]s
as() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
alive() { test -s $pid && kill -0 $(cat $pid) 2>/dev/null; }
cd /
case $1 in
start)
	alive && exit 0
	rm -f $dir/db/postmaster.pid
	as $bin/pg_ctl -D $dir/db -w -t 30 -l $dir/log -o "-k $run" start >/dev/null || exit 1
	head -1 $dir/db/postmaster.pid >$pid ;;
stop)
	for s in INT QUIT KILL; do
		alive || exit 0
		kill -$s $(cat $pid)
		for i in $(seq 100); do alive || exit 0; sleep 0.05; done
	done
	exit 1 ;;
monitor)
	alive && exit 110
	exit 100 ;;
esac
`

const databaseConfig = `
listen_addresses = ''
shared_buffers = 8MB
max_connections = 10
max_wal_size = 32MB
min_wal_size = 8MB
huge_pages = off
recovery_init_sync_method = syncfs
`

func postgresPrograms(t *testing.T) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") // the pattern is good
	if len(found) == 0 {
		t.Skip("needs PostgreSQL's server: install the Debian package postgresql")
	}
	if _, err := user.Lookup("postgres"); err != nil {
		t.Skipf("needs PostgreSQL's user: %v", err)
	}
	return filepath.Dir(slices.Max(found))
}

func newAdded(t *testing.T, kind string, interval time.Duration) *added {
	t.Helper()
	bin := postgresPrograms(t)
	election := os.Getenv("LAB_ELECTION")
	if election == "" {
		election = "vrrp"
	}
	l := newLab(t, Options{Group: true, LAN: true, Size: 16 << 20, Device: 192 << 20, OnDevice: kind, Election: election, Interval: interval})
	a := &added{t: t, l: l, kind: kind}
	must(t, l.CreateAndStart("--assume-clean"))
	must(t, a.fill(bin))
	// Whatever is there at the end, before the devices go.
	t.Cleanup(func() {
		for _, n := range l.Nodes {
			if n.vipd != nil {
				n.KillVipd()
			}
		}
		for _, n := range l.Nodes {
			exec.Command("sh", n.path("database"), "stop").Run() // there may be none
			for exec.Command("umount", "-l", n.Mount()).Run() == nil {
			}
			if err := n.Stop(); err != nil { // it takes its device away
				t.Error(err)
			}
		}
	})
	for _, n := range l.Nodes {
		must(t, n.StartVipd())
	}
	a.on = owner(t, l, downLimit)
	must(t, l.AwaitComplete(syncLimit))
	var err error
	a.client, err = NewClient(l, l.o.Service)
	must(t, err)
	t.Cleanup(func() { a.client.Close() })
	return a
}

// sockets is where the database listens: what is on the device has been elsewhere.
func sockets(n *Node) string { return n.path("sockets") }

// fill makes the filesystem and the database, on the first node.
func (a *added) fill(bin string) error {
	if a.kind == "" {
		return nil
	}
	var errs []error
	errs = append(errs, os.Chmod(a.l.o.Dir, 0o711))
	for _, n := range a.l.Nodes {
		errs = append(errs, os.Chmod(n.dir, 0o711), os.Mkdir(n.Mount(), 0o755), os.Mkdir(sockets(n), 0o755), run("", "chown", "postgres", sockets(n)),
			os.WriteFile(n.path("database"), fmt.Appendf(nil, databaseScript, n.Mount(), bin, n.path("database.pid"), sockets(n)), 0o600))
	}
	n, peer := a.l.Nodes[Alpha], a.l.Nodes[Bravo].Replica(DeviceResource)
	r := n.Replica(DeviceResource)
	errs = append(errs, peer.Role("secondary", false), r.Role("secondary", false), r.WaitConnection("connected", syncLimit), r.Role("primary", false))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	steps := [][]string{{"mkfs.ext4", "-q", n.Device()}, {"mount", n.Device(), n.Mount()}}
	if a.kind == "postgresql" {
		db := n.Mount() + "/db"
		as := []string{"setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"}
		steps = append(steps, []string{"chown", "postgres", n.Mount()},
			append(as, bin+"/initdb", "-D", db, "-A", "trust", "-N", "--wal-segsize=1"),
			append(as, "sh", "-c", "cat >>"+db+"/postgresql.conf <<E\n"+databaseConfig+"E"),
			[]string{"sh", n.path("database"), "start"},
			append(as, "psql", "-qh", sockets(n), "-c", "create table rows (n int, text text)"),
			[]string{"sh", n.path("database"), "stop"})
	}
	for _, s := range append(steps, []string{"umount", n.Mount()}) {
		if err := run("", s...); err != nil {
			return err
		}
	}
	return errors.Join(r.Role("init", false), peer.Role("init", false))
}

// work leaves something to recover: a file, rows of a table.
func (a *added) work() {
	a.t.Helper()
	switch dir := a.on.Mount(); a.kind {
	case "ext4":
		must(a.t, run("", "sh", "-c", "dd if=/dev/urandom of="+dir+"/file bs=1M count=8 status=none conv=fsync; cp "+dir+"/file "+dir+"/copy"))
	case "postgresql":
		must(a.t, run("", "psql", "-U", "postgres", "-qh", sockets(a.on), "-c", "insert into rows select n, repeat('x', 200) from generate_series(1, 20000) n"))
	}
}

var partTook = regexp.MustCompile(`msg="data/((?:mount|service/db|resource)[^ ]*) is (up|down)".*took=(\S+)`)

// parts tells from a log, behind an offset, how long the group's parts took.
func parts(n *Node, from int, word string) (list []string) {
	for _, m := range partTook.FindAllStringSubmatch(n.VipdLog()[from:], -1) {
		if what, _, _ := strings.Cut(m[1], "/"); m[2] == word {
			list = append(list, what+" "+m[2]+" "+m[3])
		}
	}
	return list
}

func (a *added) move(fault string) (m moved) {
	t := a.t
	t.Helper()
	on, other := a.on, a.l.other(a.on)
	must(t, other.WaitVIP("backup", downLimit))
	_, err := a.client.served(on.Side, time.Now())
	must(t, err)
	a.work()
	fromOn, fromOther := len(on.VipdLog()), len(other.VipdLog())
	began := time.Now()
	if fault == bothKilled {
		must(t, on.KillBoth())
	} else if out, errs, code := on.Hastctl("group", "switch", GroupName); code != 0 {
		t.Fatalf("group switch: status %d: %s%s", code, out, errs)
	}
	first, err := a.client.served(other.Side, began)
	must(t, err)
	m.served = first.Sub(began)
	must(t, other.WaitGroup("online", downLimit))
	m.parts = append(parts(on, fromOn, "down"), parts(other, fromOther, "up")...)
	t.Logf("%s on the device, %s: %v answers after %v (%s)", a.kind, fault, other.Side, ms(m.served), strings.Join(m.parts, ", "))
	if fault == bothKilled {
		// What it left is taken down before it takes part again.
		must(t, on.Start())
		must(t, on.StartVipd())
	}
	must(t, a.l.AwaitComplete(syncLimit))
	if a.on = owner(t, a.l, downLimit); a.on != other {
		t.Fatalf("the group is on %v", a.on.Side)
	}
	if a.kind == "postgresql" {
		out, err := exec.Command("psql", "-U", "postgres", "-Atqh", sockets(a.on), "-c", "select count(*) % 20000 from rows").CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "0" {
			t.Errorf("rows after the move: %s %v", out, err)
		}
	}
	return m
}
