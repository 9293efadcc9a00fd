package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A cluster of two machines that their watchdogs reset, and a witness, which is a
// process of this host: it has nothing to be reset for. Clients are on this host, too,
// and all times are of its clock.

const (
	clusterText = `[cluster]
name = "test"
insecure = true
quorum = "majority"
lease = "` + leaseText + `"
rejoin = "2s"
toc = "reset"
watchdog = "WATCHDOG"
watchdog-timeout = "15s"
heartbeat = { interval = "1s", trouble = "4s", timeout = "8s" }
[hastd]
control = "/run/hastd.sock"
state = "/state"
http = ""
[vipd]
control = "/run/vipd.sock"
state = "/state"
hastd-timeout = "30s"
hastd-grace = "60s"
http = ""
[node.alpha]
id = 0
address = ["10.9.0.1"]
[node.bravo]
id = 1
address = ["10.9.0.2"]
[node.charlie]
id = 2
address = ["10.9.0.3"]
witness = true
vipd.control = "FOLDER/vipd.sock"
vipd.state = "FOLDER/state"
[resource.data]
provider = "nbd-server"
replication = "fullsync"
timeout = "8s"
start-as = "init"
on.alpha = { local = "/dev/vdb", provider-path = "10.9.0.1:10809" }
on.bravo = { local = "/dev/vdb", provider-path = "10.9.0.2:10809" }
[group.data]
nodes = ["alpha", "bravo"]
resources = ["data"]
address = ["10.9.0.100/24"]
interfaces = ["eth0"]
election = "vrrp"
start-delay = "500ms"
[[group.data.service]]
name = "app"
start = ["/init", "service", "start", "/run/app"]
stop = ["/init", "service", "stop", "/run/app"]
monitor = ["/init", "service", "monitor", "/run/app"]
interval = "10s"
`
	leaseText = "8s"

	diskSize  = 64 << 20
	stateSize = 16 << 20
	// serveLimit is for a takeover: the countdown, and what a busy host makes of it.
	serveLimit = 2 * time.Minute
	// backLimit is for a machine to boot and its replica to be in sync.
	backLimit = 4 * time.Minute
	// enough writes that a node serves.
	enough = 50
	// inFlight is how many writes, and reads, are sent at once.
	inFlight = 16
	calm     = 5 * time.Second
	// staleLimit is how long a machine that stood still may take to hear that.
	staleLimit = 10 * time.Second
	// pausedFor is how long a whole machine stands still.
	pausedFor = time.Minute
)

// site is all of it.
type site struct {
	t       *testing.T
	dir     string
	kernel  string
	files   map[string][]byte
	sw      *Switch
	witness *exec.Cmd
	nodes   [2]*vmNode
}

// vmNode is one of the two.
type vmNode struct {
	name, address string
	disks         []string
	m             *Machine
	hastd, vipd   int
	client        *client
	api           [2]*http.Client // hastd's, vipd's
}

func newSite(t *testing.T) *site {
	kernel, dir := needs(t), t.TempDir()
	s := &site{t: t, dir: dir, kernel: kernel, files: programs(t, "hastd", "hastctl")}
	must(t, os.Mkdir(filepath.Join(dir, "state"), 0o700))
	s.files["/hast.toml"] = []byte(strings.NewReplacer("FOLDER", "/run", "WATCHDOG", "/dev/watchdog").Replace(clusterText))
	// The witness has no watchdog, and must find none.
	must(t, os.WriteFile(filepath.Join(dir, "hast.toml"),
		[]byte(strings.NewReplacer("FOLDER", dir, "WATCHDOG", filepath.Join(dir, "none")).Replace(clusterText)), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "vipd"), s.files["/vipd"], 0o700))
	var err error
	s.sw, err = NewSwitch("10.9.0.3")
	must(t, err)
	t.Cleanup(s.close)
	var register atomic.Uint64
	for i, name := range []string{"alpha", "bravo"} {
		n := &vmNode{name: name, address: fmt.Sprintf("10.9.0.%d", i+1)}
		s.nodes[i] = n
		for d, size := range []int64{stateSize, diskSize} {
			path := filepath.Join(dir, fmt.Sprintf("%s%d.img", name, d))
			f, err := os.Create(path)
			must(t, err)
			must(t, f.Truncate(size))
			must(t, f.Close())
			n.disks = append(n.disks, path)
		}
		if out, err := exec.Command("mkfs.ext4", "-q", "-F", n.disks[0]).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for j, port := range []int{81, 82} {
			address := fmt.Sprintf("%s:%d", n.address, port)
			n.api[j] = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (c net.Conn, err error) {
				var d net.Dialer
				err = s.sw.Visit(func() error { c, err = d.DialContext(ctx, "tcp", address); return err })
				return c, err
			}}}
		}
		n.client = newClient(s.sw, n.address+":10809", uint64(i+1), &register)
	}
	s.startWitness()
	s.both(func(n *vmNode) error { return s.boot(n, true) })
	return s
}

func (s *site) close() {
	for _, n := range s.nodes {
		if n != nil && n.client != nil {
			n.client.close()
		}
	}
	for _, n := range s.nodes {
		if n != nil && n.m != nil {
			if s.t.Failed() {
				s.t.Logf("console of %s:\n%s", n.name, n.m.Console())
			}
			n.m.Close()
		}
	}
	if s.witness != nil {
		_ = s.witness.Process.Kill()
		_ = s.witness.Wait()
		if s.t.Failed() {
			b, _ := os.ReadFile(filepath.Join(s.dir, "charlie.log"))
			s.t.Logf("log of charlie:\n%s", b)
		}
	}
	s.sw.Close()
}

func (s *site) startWitness() {
	argv := s.sw.Command(filepath.Join(s.dir, "vipd"), "-c", filepath.Join(s.dir, "hast.toml"), "--node", "charlie")
	log, err := os.Create(filepath.Join(s.dir, "charlie.log"))
	must(s.t, err)
	defer log.Close()
	s.witness = exec.Command(argv[0], argv[1:]...)
	s.witness.Stdout, s.witness.Stderr = log, log
	s.witness.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(s.t, s.witness.Start())
}

// both does something to both nodes at a time.
func (s *site) both(do func(n *vmNode) error) {
	s.t.Helper()
	var wg sync.WaitGroup
	var errs [2]error
	for i, n := range s.nodes {
		wg.Go(func() { errs[i] = do(n) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			s.t.Fatalf("%s: %v", s.nodes[i].name, err)
		}
	}
}

// boot starts a node with what its disks have; the first time it makes its replica.
func (s *site) boot(n *vmNode, first bool) error {
	m, err := Start(Options{Dir: s.kernel, Files: s.files, Switch: s.sw, Port: n.name, Disks: n.disks})
	if err != nil {
		return err
	}
	n.m = m
	for _, o := range []Order{
		{Op: "address", Args: []string{"eth0", n.address}},
		{Op: "mount", Args: []string{"/dev/vda", "/state", "ext4"}},
		{Op: "socket", Args: []string{n.address + ":81", "/run/hastd.sock"}},
		{Op: "socket", Args: []string{n.address + ":82", "/run/vipd.sock"}},
	} {
		if _, err := m.Do(o); err != nil {
			return err
		}
	}
	if first {
		if err := n.hastctl("create", "data", "--assume-clean"); err != nil {
			return err
		}
	}
	for _, p := range []struct {
		pid    *int
		path   string
		daemon int
	}{{&n.hastd, "/hastd", 0}, {&n.vipd, "/vipd", 1}} {
		a, err := m.Do(Order{Op: "start", Args: []string{p.path, "-c", "/hast.toml", "--node", n.name}})
		if err != nil {
			return err
		}
		*p.pid = a.Pid
		// One after the other: a busy host needs its time for each.
		if err := n.answers(p.daemon, soon); err != nil {
			return fmt.Errorf("%s of %s: %w", p.path, n.name, err)
		}
	}
	return nil
}

// hastctl runs it in the machine.
func (n *vmNode) hastctl(args ...string) error {
	a, err := n.m.Do(Order{Op: "start", Args: append([]string{"/hastctl", "-c", "/hast.toml", "--node", n.name}, args...)})
	if err == nil {
		a, err = n.m.Do(Order{Op: "wait", Pid: a.Pid, Number: int(soon.Milliseconds())})
	}
	if err != nil || a.Code != 0 || !a.Ended {
		return fmt.Errorf("hastctl %s on %s: %+v %w", strings.Join(args, " "), n.name, a, err)
	}
	return nil
}

// answers waits for a daemon.
func (n *vmNode) answers(daemon int, limit time.Duration) error {
	for end := time.Now().Add(limit); ; time.Sleep(500 * time.Millisecond) {
		err := n.get(daemon, "/v1/version", new(any))
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// get asks one of the daemons; 0 is hastd, 1 vipd.
func (n *vmNode) get(daemon int, path string, into any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node"+path, nil)
	if err != nil {
		return err
	}
	a, err := n.api[daemon].Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	b, err := io.ReadAll(io.LimitReader(a.Body, 1<<20))
	if err != nil {
		return err
	}
	if a.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, a.Status, b)
	}
	return json.Unmarshal(b, into)
}

// storage is what hastd tells of the resource, group what vipd does of the group.
type storage struct {
	Role, Status, Connection, Disk, Reason string
	IO                                     struct {
		Suspended bool
		Reason    string
	}
}

type group struct {
	State, Reason string
}

func (n *vmNode) storage() (s storage, err error) { return s, n.get(0, "/v1/resources/data", &s) }
func (n *vmNode) group() (g group, err error)     { return g, n.get(1, "/v1/groups/data", &g) }

// await waits for a node's replica.
func (n *vmNode) await(role, status string, limit time.Duration) error {
	for end := time.Now().Add(limit); ; time.Sleep(500 * time.Millisecond) {
		s, err := n.storage()
		if err == nil && s.Role == role && s.Status == status {
			return nil
		}
		select {
		case <-n.m.gone:
			return fmt.Errorf("%s went down, and was to be %s", n.name, role)
		default:
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s is not %s and %s within %s, but %+v (%w)", n.name, role, status, limit, s, err)
		}
	}
}

// settled says in which view all three are members and both replicas in sync.
func (n *vmNode) settled() string {
	var c struct {
		Generation string
		Votes      struct{ Members, Heard int }
		Resources  []struct {
			InSync []string `json:"in_sync"`
		}
	}
	if n.get(1, "/v1/cluster", &c) != nil || c.Votes.Members != 3 || c.Votes.Heard != 3 || len(c.Resources) != 1 || len(c.Resources[0].InSync) != 2 {
		return ""
	}
	return c.Generation
}

// serving waits until one node has the group, both replicas are in sync, and the view
// that says so has stood for a while: a host that is too busy makes members late.
func (s *site) serving(limit time.Duration) (on, other *vmNode) {
	s.t.Helper()
	var g [2]group
	for end := time.Now().Add(limit); ; time.Sleep(500 * time.Millisecond) {
		for i, n := range s.nodes {
			if a := do(s.t, n.m, Order{Op: "wait", Pid: n.vipd}); a.Ended {
				s.t.Fatalf("vipd of %s ended: %+v", n.name, a)
			}
			g[i], _ = n.group()
			if o := s.nodes[1-i]; g[i].State == "online" {
				must(s.t, n.await("primary", "complete", limit))
				must(s.t, o.await("secondary", "complete", limit))
				was := n.settled()
				time.Sleep(calm)
				if was != "" && n.settled() == was {
					return n, o
				}
			}
		}
		if time.Now().After(end) {
			s.t.Fatalf("nobody has the group within %s: %+v", limit, g)
		}
	}
}

// kept wants all that was acknowledged to be where a node reads it.
func (s *site) kept(on *vmNode) {
	s.t.Helper()
	total := 0
	for _, n := range s.nodes {
		c, err := on.client.keeps(n.client)
		must(s.t, err)
		total += c
	}
	s.t.Logf("%d acknowledged writes are there, as %s reads them", total, on.name)
}
