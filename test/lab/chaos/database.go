package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hastd/test/lab"
)

// database is PostgreSQL on ext4 on the device of whichever node is primary, with
// its clients. Everything durable is switched on; memory is small, so that reads
// and writes reach the device.
type database struct {
	bin   string // PostgreSQL's programs
	as    *credential
	dir   string      // everything that is not on the device
	group *lab.Cgroup // memory; nil when there are no groups
	note  func(format string, args ...any)

	clients *clients
	bench   *pgbench
	meter_  *meter

	node    *lab.Node // where it runs; nil: nowhere
	cmd     *exec.Cmd
	ended   chan struct{}
	log     string
	made    bool
	since   int64 // where the log stood when it was last looked through
	stops   int   // how often the server was killed with its device
	checks  int
	checked int64 // transactions found as they must be, over all checks
	rows    int64 // rows of pgbench's history found, over all checks
	amcheck int
	sums    int // checks of all page checksums
}

// dbUser is the system's and the database's user.
const dbUser = "postgres"

// askEvery is how often a server that recovers is asked: each time is a process.
const askEvery = 100 * time.Millisecond

// umountLimit is how long a filesystem may be busy after its last user was killed.
const umountLimit = 5 * time.Second

// maxRows is how large the clients' table may become before it is emptied.
const maxRows = 20000

// A server that was killed fsyncs each of its thousand files before it recovers:
// one flush of the filesystem instead, or a link with delay makes it minutes.
const dbConfig = `
listen_addresses = ''
unix_socket_permissions = 0777
fsync = on
full_page_writes = on
synchronous_commit = on
shared_buffers = 4MB
max_connections = 20
max_wal_size = 32MB
min_wal_size = 4MB
checkpoint_timeout = 30s
max_parallel_workers = 0
max_wal_senders = 0
wal_level = minimal
huge_pages = off
log_checkpoints = off
recovery_init_sync_method = syncfs
log_line_prefix = '%m [%p] '
timezone = UTC
`

// findPostgres gives the folder of PostgreSQL's programs, the newest's.
func findPostgres() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") // the pattern is good
	if len(found) == 0 {
		return "", errors.New("needs PostgreSQL's server: install the Debian package postgresql")
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return len(a) - len(b) + strings.Compare(a, b) })), nil
}

// Needs says what is missing here, nil for nothing.
func Needs() error {
	if os.Getuid() != 0 {
		return errors.New("needs root: namespaces, mounts and loop devices")
	}
	if _, err := findPostgres(); err != nil {
		return err
	}
	if _, err := user.Lookup(dbUser); err != nil {
		return fmt.Errorf("needs PostgreSQL's user: %w", err)
	}
	for _, dev := range []string{"/dev/fuse", "/dev/loop-control", "/dev/net/tun"} {
		if _, err := os.Stat(dev); err != nil {
			return fmt.Errorf("needs %s", dev)
		}
	}
	for _, p := range []string{"mkfs.ext4", "e2fsck", "mount", "umount", "fsfreeze", "setpriv", "nft", "ip"} {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("needs %s", p)
		}
	}
	return nil
}

func newDatabase(dir string, g *lab.Cgroup, note func(string, ...any)) (*database, error) {
	bin, err := findPostgres()
	if err != nil {
		return nil, err
	}
	u, err := user.Lookup(dbUser)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	d := &database{
		bin: bin, as: &credential{Uid: uint32(uid), Gid: uint32(gid)}, dir: dir, group: g, note: note,
		log: filepath.Join(dir, "postgres.log"), meter_: &meter{},
	}
	for _, s := range []lab.Side{lab.Alpha, lab.Bravo} {
		for _, p := range []string{d.mountPoint(s), d.socket(s)} {
			if err := os.MkdirAll(p, 0o755); err != nil {
				return nil, err
			}
			if err := os.Chmod(p, 0o755); err != nil {
				return nil, err
			}
		}
		if err := os.Chown(d.socket(s), int(uid), int(gid)); err != nil {
			return nil, err
		}
	}
	acc, err := os.Create(filepath.Join(dir, "transactions.log"))
	if err != nil {
		return nil, err
	}
	d.clients = &clients{n: clientCount, bin: bin, as: d.as, door: newDoor(), accounts: newAccounts(acc), meter: d.meter_}
	d.bench = &pgbench{bin: bin, as: d.as}
	d.clients.start()
	return d, nil
}

func (d *database) mountPoint(s lab.Side) string { return filepath.Join(d.dir, s.String(), "files") }
func (d *database) socket(s lab.Side) string     { return filepath.Join(d.dir, s.String(), "socket") }
func (d *database) data(s lab.Side) string       { return filepath.Join(d.mountPoint(s), "data") }

func (d *database) resource() string { return lab.DeviceResource }
func (d *database) meter() *meter    { return d.meter_ }

// make puts a filesystem and a database on a new device.
func (d *database) make(ctx context.Context, n *lab.Node) error {
	if _, err := tool(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", n.Device()); err != nil {
		return err
	}
	if err := d.mount(ctx, n); err != nil {
		return err
	}
	data := d.data(n.Side)
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	if err := os.Chown(data, int(d.as.Uid), int(d.as.Gid)); err != nil {
		return err
	}
	if _, err := command(ctx, d.as, "", filepath.Join(d.bin, "initdb"), "-D", data, "-U", dbUser, "-A", "trust",
		"--data-checksums", "--wal-segsize=1", "--locale=C", "-E", "UTF8"); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(dbConfig)
	return errors.Join(err, f.Close())
}

func (d *database) mount(ctx context.Context, n *lab.Node) error {
	_, err := tool(ctx, "mount", "-t", "ext4", n.Device(), d.mountPoint(n.Side))
	return err
}

// start recovers filesystem and database on a node that has become primary, and
// lets the clients in.
func (d *database) start(ctx context.Context, n *lab.Node) error {
	if err := await(ctx, startLimit, "the device appears", func() (bool, error) {
		_, err := os.Stat(n.Device())
		return err == nil, err
	}); err != nil {
		return err
	}
	if !d.made {
		if err := d.make(ctx, n); err != nil {
			return err
		}
	} else {
		// Mounting replays the journal and ends with the orphans; what is there
		// then must be without a mistake.
		if err := d.mount(ctx, n); err != nil {
			return err
		}
		if _, err := tool(ctx, "umount", d.mountPoint(n.Side)); err != nil {
			return err
		}
		if _, err := tool(ctx, "e2fsck", "-fn", n.Device()); err != nil {
			return err
		}
		if err := d.mount(ctx, n); err != nil {
			return err
		}
	}
	d.node = n
	if err := d.serve(ctx); err != nil {
		return err
	}
	if !d.made {
		if err := d.fill(ctx); err != nil {
			return err
		}
		d.made = true
	}
	d.clients.door.open(d.socket(n.Side), true)
	return d.bench.start(d.socket(n.Side))
}

// serve starts the server and waits until it has recovered.
func (d *database) serve(ctx context.Context) error {
	s := d.node.Side
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(log, "---- start on %v\n", s)
	server := []string{"setpriv", "--reuid", fmt.Sprint(d.as.Uid), "--regid", fmt.Sprint(d.as.Gid), "--clear-groups", "--pdeathsig", "KILL",
		filepath.Join(d.bin, "postgres"), "-D", d.data(s), "-k", d.socket(s)}
	if d.group != nil {
		server = d.group.Command(server...)
	}
	cmd := exec.Command(server[0], server[1:]...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	d.cmd, d.ended = cmd, ended
	go func() {
		cmd.Wait() // how it ended is in its log
		close(ended)
	}()
	err = await(ctx, startLimit, "the database recovers", func() (bool, error) {
		if !d.alive() {
			return true, nil
		}
		_, err := d.clients.query(ctx, d.socket(s), "SELECT 1;\n")
		if err != nil {
			err = errors.Join(err, sleep(ctx, askEvery))
		}
		return err == nil, err
	})
	if err == nil && !d.alive() {
		err = errors.New("chaos: the database did not start")
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, d.tail())
	}
	return nil
}

// alive says whether the server runs.
func (d *database) alive() bool {
	if d.cmd == nil {
		return false
	}
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// tail is the end of the server's log.
func (d *database) tail() string {
	b, _ := os.ReadFile(d.log) // it is for a report
	return "the database's log: " + cut(string(b[max(0, len(b)-2000):]))
}

func (d *database) fill(ctx context.Context) error {
	socket := d.socket(d.node.Side)
	sql := `CREATE TABLE chaos (id bigint PRIMARY KEY, client int NOT NULL, body text NOT NULL);
CREATE TABLE chaos_client (client int PRIMARY KEY, n bigint NOT NULL);
INSERT INTO chaos_client SELECT i, 0 FROM generate_series(0, ` + strconv.Itoa(clientCount-1) + `) i;
CREATE EXTENSION amcheck;
`
	if _, err := d.clients.query(ctx, socket, sql); err != nil {
		return err
	}
	_, err := command(ctx, d.as, "", filepath.Join(d.bin, "pgbench"), "-i", "-q", "-s", "1", "-h", socket, "-U", dbUser, dbUser)
	return err
}

// stop ends server and clients at once, as a machine that dies does, and takes
// the filesystem away from its device, which may be dead.
func (d *database) stop(ctx context.Context) error {
	d.clients.door.shut()
	n := d.node
	if n == nil {
		return nil
	}
	d.stops++
	if d.cmd != nil {
		d.cmd.Process.Kill()
	}
	data := d.data(n.Side)
	if err := await(ctx, goneLimit, "the database's processes are gone", func() (bool, error) {
		return killBelow(data) == 0 && !d.alive(), nil
	}); err != nil {
		return err
	}
	d.clients.kill()
	d.bench.stop()
	if err := d.clients.door.empty(ctx); err != nil {
		return err
	}
	d.node, d.cmd = nil, nil
	return d.unmount(ctx, n, true)
}

// leave ends everything in good order.
func (d *database) leave(ctx context.Context) error {
	n := d.node
	d.clients.door.shut()
	if err := d.clients.door.empty(ctx); err != nil {
		return err
	}
	d.cmd.Process.Signal(syscall.SIGINT) // "fast": clients are sent away
	if err := await(ctx, quietLimit, "the database stops", func() (bool, error) { return !d.alive(), nil }); err != nil {
		return fmt.Errorf("%w\n%s", err, d.tail())
	}
	d.bench.stop()
	if _, err := commandWithin(ctx, readLimit, d.as, "", filepath.Join(d.bin, "pg_checksums"), "--check", "-D", d.data(n.Side)); err != nil {
		return err
	}
	d.sums++
	d.node, d.cmd = nil, nil
	return d.unmount(ctx, n, false)
}

func (d *database) unmount(ctx context.Context, n *lab.Node, lazy bool) error {
	dir := d.mountPoint(n.Side)
	if !lazy {
		_, err := tool(ctx, "umount", dir)
		return err
	}
	// A killed process lets go of its files a moment after it is gone.
	err := await(ctx, umountLimit, "umount "+dir, func() (bool, error) {
		_, err := tool(ctx, "umount", dir)
		return err == nil, err
	})
	if err == nil {
		return nil
	}
	d.note("%v; taken away lazily", err)
	_, err = tool(ctx, "umount", "-l", dir)
	return err
}

// settled is for the ledger of blocks: an unknown transaction is settled by a check.
func (d *database) settled() {}

// powerLost changes nothing: what is committed was flushed.
func (d *database) powerLost() {}

// complained gives what the server's log has about errors of its device since the
// last call.
func (d *database) complained() string {
	b, _ := os.ReadFile(d.log) // an unreadable log is an empty one
	fresh := string(b[min(d.since, int64(len(b))):])
	d.since = int64(len(b))
	for line := range strings.Lines(fresh) {
		if strings.Contains(line, "Input/output error") || strings.Contains(line, "PANIC") || strings.Contains(line, "invalid page") {
			return cut(fresh)
		}
	}
	return ""
}

// end ends everything, whatever state it is in.
func (d *database) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*goneLimit)
	defer cancel()
	err := d.stop(ctx)
	d.clients.end()
	for _, s := range []lab.Side{lab.Alpha, lab.Bravo} {
		for range 3 {
			if mounted(d.mountPoint(s)) {
				_, e := tool(ctx, "umount", "-l", d.mountPoint(s))
				err = errors.Join(err, e)
			}
		}
	}
	return err
}

func mounted(dir string) bool {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	return strings.Contains(string(b), " "+dir+" ")
}

// progress waits until the clients have committed more.
func (d *database) progress(ctx context.Context) error {
	want := d.meter_.count() + 3*clientCount
	err := await(ctx, moveLimit, "the database's clients commit", func() (bool, error) {
		return d.meter_.count() >= want || !d.alive(), nil
	})
	if err == nil && !d.alive() {
		err = errors.New("chaos: the database's server has ended by itself")
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, d.tail())
	}
	return nil
}

// check lets the clients rest, compares their ledger with the tables, and the
// replicas with each other while the filesystem is frozen. amcheck now and then.
func (d *database) check(ctx context.Context, compare func() error) error {
	door, socket := d.clients.door, d.socket(d.node.Side)
	door.shut()
	if err := door.empty(ctx); err != nil {
		return err
	}
	// A backend whose client is gone may still be at work.
	if err := await(ctx, quietLimit, "no transaction of a client that is gone is under way", func() (bool, error) {
		out, err := d.clients.query(ctx, socket, "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND query LIKE '%chaos%' AND pid <> pg_backend_pid();\n")
		return out == "0", err
	}); err != nil {
		return err
	}
	if err := d.judge(ctx, socket); err != nil {
		return err
	}
	d.checks++
	if d.checks%amcheckEvery == 0 {
		if _, err := command(ctx, d.as, "", filepath.Join(d.bin, "pg_amcheck"), "-h", socket, "-U", dbUser, "--heapallindexed", dbUser); err != nil {
			return err
		}
		d.amcheck++
	}
	if err := d.compareFrozen(ctx, compare); err != nil {
		return err
	}
	door.open(socket, false)
	return nil
}

// amcheckEvery is how many checks there are for one with pg_amcheck, which takes
// about a second.
const amcheckEvery = 4

func (d *database) judge(ctx context.Context, socket string) error {
	// As a query of its own a table of 20,000 rows is a few megabytes.
	out, err := d.clients.query(ctx, socket, "COPY (SELECT id, client, body FROM chaos) TO STDOUT;\n")
	if err != nil {
		return err
	}
	checked, per, err := d.clients.accounts.check(strings.NewReader(out))
	if err != nil {
		return err
	}
	d.checked += checked
	counters, err := d.clients.query(ctx, socket, "SELECT client, n FROM chaos_client ORDER BY client;\n")
	if err != nil {
		return err
	}
	var want strings.Builder
	for c := range clientCount {
		fmt.Fprintf(&want, "%d|%d\n", c, per[c])
	}
	if counters != strings.TrimSpace(want.String()) {
		return fmt.Errorf("chaos: transactions were torn: the counters are %q, and the rows %q", counters, want.String())
	}
	rows, err := d.bench.check(ctx, d.clients, socket)
	if err != nil {
		return err
	}
	d.rows += rows
	if checked > maxRows {
		if _, err := d.clients.query(ctx, socket, "BEGIN;\nTRUNCATE chaos;\nUPDATE chaos_client SET n = 0;\nCOMMIT;\n"); err != nil {
			return err
		}
		d.clients.accounts.forget()
		return d.bench.empty(ctx, d.clients, socket)
	}
	return nil
}

// compareFrozen compares while nothing writes.
func (d *database) compareFrozen(ctx context.Context, compare func() error) (err error) {
	dir := d.mountPoint(d.node.Side)
	if _, err := tool(ctx, "fsfreeze", "-f", dir); err != nil {
		return err
	}
	defer func() {
		thaw, cancel := context.WithTimeout(context.Background(), goneLimit)
		defer cancel()
		_, e := tool(thaw, "fsfreeze", "-u", dir)
		err = errors.Join(err, e)
	}()
	// What was frozen is written; the device's own flush makes it durable.
	f, err := os.OpenFile(d.node.Device(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	began := time.Now()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("chaos: flush of the device, after %v: %w", time.Since(began), err)
	}
	return compare()
}
