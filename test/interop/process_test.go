package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hastd/carp/runner"
	beatrunner "hastd/cluster/beat/runner"
)

// process is a program on a host.
type process struct {
	t    *testing.T
	host *host
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	dead chan struct{}

	mu     sync.Mutex
	log    bytes.Buffer
	events []event
}

// event is a line of the elector, or of the beater.
type event struct {
	Event, From, To, Reason, On, Error, Address, State string
	Stats                                              runner.Stats
	Node, Text                                         string
	Up, Jeopardy                                       bool
	Beat                                               beatrunner.Stats
	at                                                 time.Time
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

// start runs a program until the test ends.
func (h *host) start(t *testing.T, name string, argv ...string) *process {
	t.Helper()
	argv = h.command(argv...)
	p := &process{t: t, host: h, name: name, cmd: exec.Command(argv[0], argv[1:]...), dead: make(chan struct{})}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p.cmd.Stderr = p
	var err error
	p.in, err = p.cmd.StdinPipe()
	must(t, err)
	out, err := p.cmd.StdoutPipe()
	must(t, err)
	must(t, p.cmd.Start())
	go func() {
		defer close(p.dead)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			p.line(lines.Text())
		}
		p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s on %s:\n%s", p.name, h.name, p.output())
		}
	})
	return p
}

func (p *process) line(s string) {
	fmt.Fprintf(p, "%s %s\n", time.Now().Format("05.000"), s)
	e := event{at: time.Now()}
	if json.Unmarshal([]byte(s), &e) == nil {
		p.mu.Lock()
		p.events = append(p.events, e)
		p.mu.Unlock()
	}
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// signal goes to the program and its children: they are one process group.
func (p *process) signal(s syscall.Signal) { syscall.Kill(-p.cmd.Process.Pid, s) }

func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.dead
}

// terminate asks it to end, and waits.
func (p *process) terminate() {
	p.t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.dead:
	case <-time.After(10 * time.Second):
		p.t.Errorf("%s does not end", p.name)
	}
}

func (p *process) order(s string) { fmt.Fprintln(p.in, s) }

// count counts events.
func (p *process) count(match func(e *event) bool) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.events {
		if match(&p.events[i]) {
			n++
		}
	}
	return n
}

// time waits for an event that went well and says when the last one came. To is the state
// that it leads to; "": any.
func (p *process) time(what, to string) (at time.Time) {
	p.t.Helper()
	eventually(p.t, 5*time.Second, strings.TrimSpace(what+" "+to)+" of "+p.host.name+" is told", func() bool {
		return p.count(func(e *event) bool {
			ok := e.Event == what && e.Error == "" && (to == "" || e.To == to)
			if ok {
				at = e.at
			}
			return ok
		}) > 0
	})
	return at
}

// state is the elector's last.
func (p *process) state() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	state := "INIT"
	for i := range p.events {
		if p.events[i].Event == "state" {
			state = p.events[i].To
		}
	}
	return state
}

func (p *process) changes() int { return p.count(func(e *event) bool { return e.Event == "state" }) }

// stats asks the elector for its counts.
func (p *process) stats() runner.Stats {
	p.t.Helper()
	had := p.count(func(e *event) bool { return e.Event == "stats" })
	p.order("stats")
	eventually(p.t, 10*time.Second, "stats of "+p.host.name, func() bool {
		return p.count(func(e *event) bool { return e.Event == "stats" }) > had
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.events) - 1; ; i-- {
		if p.events[i].Event == "stats" {
			return p.events[i].Stats
		}
	}
}

// processor is the processor time that it used.
func (p *process) processor() time.Duration {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	must(p.t, err)
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var user, system int64
	fmt.Sscan(f[11], &user)
	fmt.Sscan(f[12], &system)
	return time.Duration(user+system) * 10 * time.Millisecond
}

var (
	programOnce sync.Once
	programDir  string
	programErr  error
)

// raced says whether the programs run under the race detector, which is slow.
func raced() bool { return os.Getenv("LAB_RACE") == "1" }

func elector(t *testing.T) string { return program(t, "elector") }

// program builds the programs of this test once, and names one.
func program(t *testing.T, name string) string {
	t.Helper()
	programOnce.Do(func() {
		if programDir, programErr = os.MkdirTemp("", "interop-"); programErr != nil {
			return
		}
		if programErr = os.Chmod(programDir, 0o755); programErr != nil {
			return
		}
		args := []string{"build", "-o", programDir + "/"}
		if raced() {
			args = append(args, "-race")
		}
		if out, err := exec.Command("go", append(args, "./cmd/elector", "./cmd/beater")...).CombinedOutput(); err != nil {
			programErr = fmt.Errorf("%w: %s", err, out)
		}
	})
	must(t, programErr)
	return programDir + "/" + name
}

// atOnce is how many tests run at the same time: they mostly wait.
const atOnce = "8"

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", atOnce)
	code := aside(m)
	if programDir != "" {
		os.RemoveAll(programDir)
	}
	os.Exit(code)
}

// carp starts an elector of CARP.
func (h *host) carp(t *testing.T, more ...string) *process {
	t.Helper()
	return h.start(t, "elector", append([]string{elector(t), "-if", "eth0", "-pass", "secret", "-addr", service4 + "/24"}, more...)...)
}

// vrrp starts an elector of VRRP with addresses of both families.
func (h *host) vrrp(t *testing.T, more ...string) *process {
	t.Helper()
	return h.start(t, "elector", append([]string{elector(t), "-proto", "vrrp", "-if", "eth0", "-interval", "200ms",
		"-addr", service4 + "/24," + service6 + "/64"}, more...)...)
}

// ucarp starts a real peer.
func (h *host) ucarp(t *testing.T, more ...string) *process {
	t.Helper()
	dir := t.TempDir()
	for name, do := range map[string]string{"up": "add", "down": "del"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nip addr "+do+" $2/24 dev $1\nexit 0\n"), 0o755))
	}
	return h.start(t, "ucarp", append([]string{"ucarp", "-i", "eth0", "-s", fmt.Sprintf("10.9.0.%d", h.n), "-v", "1", "-p", "secret",
		"-a", service4, "-u", dir + "/up", "-d", dir + "/down", "-z"}, more...)...)
}

// keepalived starts a real peer, with one instance for each family.
func (h *host) keepalived(t *testing.T, priority int, more string) *process {
	t.Helper()
	dir := t.TempDir()
	instance := func(name, addresses string) string {
		return fmt.Sprintf(`vrrp_instance %s {
	state BACKUP
	interface eth0
	virtual_router_id 1
	version 3
	priority %d
	advert_int 0.2
	%s
	virtual_ipaddress {
		%s
	}
}
`, name, priority, more, addresses)
	}
	text := "global_defs {\n\tvrrp_version 3\n}\n" + instance("four", service4+"/24") + instance("six", service6+"/64")
	must(t, os.WriteFile(dir+"/conf", []byte(text), 0o644))
	return h.start(t, "keepalived", "keepalived", "--dont-fork", "--log-console", "--log-detail", "--vrrp",
		"--use-file", dir+"/conf", "--pid", dir+"/pid", "--vrrp_pid", dir+"/vrrp")
}

// one says whether exactly one of the hosts has all addresses.
func one(addresses []string, hosts ...*host) (only *host) {
	for _, h := range hosts {
		n := 0
		for _, a := range addresses {
			if h.has(a) {
				n++
			}
		}
		switch {
		case n == 0:
		case n < len(addresses) || only != nil:
			return nil
		default:
			only = h
		}
	}
	return only
}
