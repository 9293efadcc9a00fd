package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/daemon"
	"hastd/cmd/internal/exit"
	"hastd/conf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a daemon in this process, with its files in a folder of the test.
type node struct {
	t      *testing.T
	dir    string
	port   int
	cancel context.CancelFunc
	ended  chan error
	log    *safeBuffer
	client *api.Client
	told   chan string // what systemd is told
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newNode(t *testing.T, resources string) *node {
	n := &node{t: t, dir: t.TempDir(), port: freePort(t), log: &safeBuffer{}}
	n.configure("127.0.0.1", resources)
	n.client = api.NewClient(n.path("run/hastd.sock"), 10*time.Second)
	return n
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

func (n *node) configure(address, resources string) {
	n.t.Helper()
	text := fmt.Sprintf(`[cluster]
name     = "test"
insecure = true
[hastd]
port    = %d
control = "%[2]s/run/hastd.sock"
state   = "%[2]s/state"
http    = "127.0.0.1:%[3]d"
[node.alpha]
id      = 0
address = ["%[4]s"]
[node.bravo]
id      = 1
address = ["127.0.0.2"]
`, n.port, n.dir, n.port+1, address) + strings.ReplaceAll(resources, "DIR", n.dir)
	if err := os.WriteFile(n.path("hast.toml"), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

const oneResource = `[resource.data]
provider = "nbd-server"
on.alpha.local = "DIR/missing"
on.alpha.provider-path = "DIR/data.nbd"
on.bravo.local = "/nowhere"
`

// start runs the daemon and waits until it tells that it is ready.
func (n *node) start() {
	n.t.Helper()
	n.told = listenNotify(n.t, n.path("notify"))
	n.t.Setenv("NOTIFY_SOCKET", n.path("notify"))
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.ended = cancel, make(chan error, 1)
	go func() {
		n.ended <- daemon.Run(ctx, about, []string{"-c", n.path("hast.toml"), "--node", "alpha", "--log-level", "debug"}, daemon.Stdio{Out: io.Discard, Err: n.log}, begin)
	}()
	n.t.Cleanup(func() {
		if n.cancel != nil {
			if err := n.stop(); err != nil {
				n.t.Errorf("stop: %v\n%s", err, n.log)
			}
		}
	})
	n.awaitTold("READY=1")
}

func (n *node) awaitTold(what string) {
	n.t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case s := <-n.told:
			if strings.Contains(s, what) {
				return
			}
		case err := <-n.ended:
			n.ended <- err
			n.t.Fatalf("hastd ended: %v\n%s", err, n.log)
		case <-late:
			n.t.Fatalf("systemd was not told %s\n%s", what, n.log)
		}
	}
}

func (n *node) stop() error {
	n.cancel()
	n.cancel = nil
	select {
	case err := <-n.ended:
		return err
	case <-time.After(30 * time.Second):
		return fmt.Errorf("hastd does not stop")
	}
}

// runOnce runs a daemon that must not come up.
func (n *node) runOnce(args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return daemon.Run(ctx, about, append([]string{"-c", n.path("hast.toml"), "--node", "alpha"}, args...), daemon.Stdio{Out: io.Discard, Err: n.log}, begin)
}

func listenNotify(t *testing.T, path string) chan string {
	t.Helper()
	os.Remove(path)
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	told, done := make(chan string, 64), make(chan struct{})
	t.Cleanup(func() { c.Close(); <-done })
	go func() {
		defer close(done)
		for b := make([]byte, 4096); ; {
			k, err := c.Read(b)
			if err != nil {
				return
			}
			told <- string(b[:k])
		}
	}()
	return told
}

// freePort finds a port whose successor is free, too.
func freePort(t *testing.T) int {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).Port
		next, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		if err == nil {
			next.Close()
			return port
		}
	}
}

func (n *node) get(path string) (int, string) {
	n.t.Helper()
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(fmt.Sprintf("http://127.0.0.1:%d%s", n.port+1, path))
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func wantError(t *testing.T, err error, code exit.Code, text string) {
	t.Helper()
	if exit.CodeOf(err) != code || err == nil || !strings.Contains(err.Error(), text) || exit.HintOf(err) == "" {
		t.Errorf("got %v (code %d, hint %q), want %q with code %d and a hint", err, exit.CodeOf(err), exit.HintOf(err), text, code)
	}
}

func TestDaemonStartsWithABrokenDiskAndStopsCleanly(t *testing.T) {
	n := newNode(t, oneResource)
	n.start()
	st, err := n.client.Status(t.Context())
	if err != nil || st.Node != "alpha" || len(st.Resources) != 1 || st.Resources[0].Role != "init" || st.Resources[0].Status != "init" {
		t.Errorf("status %+v, %v", st, err)
	}
	_, err = n.client.Command(t.Context(), "data", "role", api.RoleRequest{Role: "secondary"})
	if err == nil || !strings.Contains(err.Error(), "resource data on node alpha") || exit.HintOf(err) == "" {
		t.Errorf("without a disk it became secondary, or does not tell why: %v", err)
	}
	if err := n.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if _, err := os.Stat(n.path("run/hastd.sock")); !os.IsNotExist(err) {
		t.Errorf("the control socket is still there: %v", err)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	n := newNode(t, oneResource)
	n.start()
	err := n.runOnce()
	wantError(t, err, exit.Again, "another hastd is running")
	if want := "hastctl version --control " + n.path("run/hastd.sock"); !strings.Contains(exit.HintOf(err), want) {
		t.Errorf("hint %q, want %q in it", exit.HintOf(err), want)
	}
	if _, err := n.client.Version(t.Context()); err != nil {
		t.Errorf("the first one does not answer any more: %v", err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	n := newNode(t, oneResource)
	if err := os.Mkdir(n.path("run"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: n.path("run/hastd.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	n.start()
	if _, err := n.client.Version(t.Context()); err != nil {
		t.Error(err)
	}
	st, err := os.Stat(n.path("run/hastd.sock"))
	if err != nil || st.Mode().Perm()&0o007 != 0 {
		t.Errorf("everybody may use the control socket: %v, %v", st.Mode(), err)
	}
}

func TestForeignSocketIsLeftAlone(t *testing.T) {
	n := newNode(t, oneResource)
	if err := os.Mkdir(n.path("run"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", n.path("run/hastd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	wantError(t, n.runOnce(), exit.Again, "another program serves the socket")
}

func TestTakenReplicationPort(t *testing.T) {
	n := newNode(t, oneResource)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", n.port))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	wantError(t, n.runOnce(), exit.CantCreate, "cannot listen on")
}

func TestTakenHTTPPortAndMissingAddressDoNotStopTheStorage(t *testing.T) {
	n := newNode(t, oneResource)
	n.configure("192.0.2.1", oneResource) // TEST-NET-1: nobody has it
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", n.port+1))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n.start()
	if _, err := n.client.Status(t.Context()); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"no metrics and no status page", "no address of this node is there yet"} {
		if !strings.Contains(n.log.String(), want) {
			t.Errorf("the log does not tell %q:\n%s", want, n.log)
		}
	}
}

func TestWrongStarts(t *testing.T) {
	n := newNode(t, oneResource)
	wantError(t, n.runOnce("--node", "delta"), exit.Config, "delta")
	wantError(t, n.runOnce("--log-level", "loud"), exit.Usage, "loud")
	wantError(t, n.runOnce("--log-format", "xml"), exit.Usage, "xml")
	wantError(t, n.runOnce("--bogus"), exit.Usage, "bogus")
	wantError(t, n.runOnce("-c", n.path("nowhere.toml")), exit.Config, "cannot be read")
	n.configure("127.0.0.1", "[resource.data]\nbogus = 1\n")
	wantError(t, n.runOnce(), exit.Config, "hast.toml:")
}

func TestHTTP(t *testing.T) {
	n := newNode(t, oneResource)
	n.start()
	if code, body := n.get("/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	code, body := n.get("/metrics")
	for _, want := range []string{`hast_resource_role{resource="data",role="init"} 1`, "hast_build_info{", "go_goroutines"} {
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("/metrics: %d, without %s", code, want)
		}
	}
	if code, body = n.get("/"); code != 200 || !strings.Contains(body, "<td>data</td><td>init</td>") {
		t.Errorf("/: %d\n%s", code, body)
	}
	if code, _ = n.get("/v1/resources"); code != 404 {
		t.Errorf("the API answers on TCP: %d", code)
	}
}

func TestReloadTellsWhatItDid(t *testing.T) {
	n := newNode(t, oneResource)
	n.start()
	logs := strings.ReplaceAll(strings.ReplaceAll(oneResource, "data", "logs"), "DIR/missing", "DIR/other")
	logs = strings.ReplaceAll(logs, "/nowhere", "/nowhere2")
	n.configure("127.0.0.1", oneResource+"on-peer-loss = \"suspend\"\nchecksum = \"crc32c\"\n"+logs)
	want := func(what string, got, want []string) {
		t.Helper()
		if strings.Join(got, "; ") != strings.Join(want, "; ") {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	r, err := n.client.Reload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want("changed", r.Changed, []string{"resource.data.on-peer-loss: continue to suspend", "resource.logs added"})
	want("restart", r.Restart, []string{"resource.data.checksum: none to crc32c"})

	// What needs a restart is told until it happened; what is in force is not.
	n.configure("127.0.0.1", oneResource+"on-peer-loss = \"suspend\"\nchecksum = \"crc32c\"\n")
	if r, err = n.client.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("changed", r.Changed, []string{"resource.logs removed"})
	want("restart", r.Restart, []string{"resource.data.checksum: none to crc32c"})

	file, err := os.ReadFile(n.path("hast.toml"))
	if err != nil {
		t.Fatal(err)
	}
	renamed := strings.Replace(string(file), `"test"`, `"x"`, 1)
	renamed = strings.Replace(renamed, "on.bravo.", "on.charlie.", 1) + "\n[node.charlie]\nid = 2\naddress = [\"127.0.0.3\"]\n"
	if err := os.WriteFile(n.path("hast.toml"), []byte(renamed), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r, err = n.client.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		want("restart", r.Restart, []string{"cluster.name: test to x", "resource.data.checksum: none to crc32c", "resource.data.on: bravo to charlie"})
	}

	n.configure("127.0.0.1", "[resource.data]\nbogus = 1\n")
	_, err = n.client.Reload(t.Context())
	wantError(t, err, exit.Config, "hast.toml:")
	if st, err := n.client.Status(t.Context()); err != nil || len(st.Resources) != 1 {
		t.Errorf("a bad file changed something: %+v, %v", st, err)
	}
}

// A setting that nothing carries out is told of at the start and at each reload, and no
// restart is said to help.
func TestSettingsThatDoNothingAreTold(t *testing.T) {
	const idle = " is not in this build: it has no effect"
	n := newNode(t, oneResource+"after-split-brain = \"discard-older\"\n")
	n.start()
	if !strings.Contains(n.log.String(), "resource.data.after-split-brain: ") || !strings.Contains(n.log.String(), idle) {
		t.Errorf("the start does not tell:\n%s", n.log)
	}
	n.configure("127.0.0.1", oneResource+"sync.verify-after-sync = \"all\"\n")
	r, err := n.client.Reload(t.Context())
	if err != nil || len(r.Restart) != 0 {
		t.Errorf("reload: %+v, %v", r, err)
	}
	for end := time.Now().Add(10 * time.Second); !strings.Contains(n.log.String(), "verify-after-sync: "); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the reload does not tell:\n%s", n.log)
		}
	}
}

// What the process took from the file, and from files it names, when it began.
func TestReloadTellsWhatTheProcessBeganWith(t *testing.T) {
	n := newNode(t, oneResource)
	key := func() {
		t.Helper()
		os.Remove(n.path("key"))
		line, err := conf.GenerateKey()
		if err == nil {
			err = conf.WriteKey(n.path("key"), line)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(cluster, bravo string) {
		t.Helper()
		n.configure("127.0.0.1", "[vipd]\n"+oneResource)
		b, err := os.ReadFile(n.path("hast.toml"))
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(b), "insecure = true", fmt.Sprintf("key-file = %q\n%s", n.path("key"), cluster), 1)
		text = strings.Replace(text, "[\"127.0.0.2\"]", "[\"127.0.0.2\"]\n"+bravo, 1)
		if err := os.WriteFile(n.path("hast.toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key()
	write("", "")
	n.start()
	for _, c := range []struct{ cluster, bravo, want string }{
		{"lease = \"2s\"", "", ""}, // without votes it is nothing to hastd
		{"", "hastd.port = 9999", fmt.Sprintf("node.bravo.hastd.port: %d to 9999", n.port)},
		{"quorum = \"majority\"\ntoc = \"reset\"\nlease = \"2s\"\nwatchdog-timeout = \"7s\"", "",
			"cluster.quorum: off to majority; cluster.toc: off to reset; cluster.lease: 3s to 2s; cluster.watchdog-timeout: 5s to 7s"},
		{"", "", ""},
	} {
		write(c.cluster, c.bravo)
		r, err := n.client.Reload(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.Restart, "; "); got != c.want || r.Daemon != "hastd" {
			t.Errorf("%s tells %q, want %q", r.Daemon, got, c.want)
		}
	}
	key()
	want := "cluster.key-file: " + n.path("key") + " has another key"
	if r, err := n.client.Reload(t.Context()); err != nil || strings.Join(r.Restart, "; ") != want {
		t.Errorf("another key: %+v, %v", r, err)
	}
}

func TestHangupReloads(t *testing.T) {
	n := newNode(t, oneResource)
	n.start()
	n.configure("127.0.0.1", oneResource+"on-peer-loss = \"suspend\"\n")
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	n.awaitTold("RELOADING=1")
	n.awaitTold("READY=1")
	// The log is written behind the daemon's back: one that hangs must stop nothing.
	for end := time.Now().Add(10 * time.Second); !strings.Contains(n.log.String(), "continue to suspend"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the log does not tell:\n%s", n.log)
		}
	}
}

func TestLogIsJSONOnDemand(t *testing.T) {
	n := newNode(t, oneResource)
	l, err := net.Listen("unix", n.path("other")) // makes the start end early
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Mkdir(n.path("run"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(n.path("other"), n.path("run/hastd.sock")); err != nil {
		t.Fatal(err)
	}
	n.runOnce("--log-format", "json")
	for line := range strings.Lines(n.log.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
	if n.log.String() == "" {
		t.Error("nothing was logged")
	}
}

// An event stream that nobody reads to its end does not hold up the stop.
func TestStopWithAnOpenEventStream(t *testing.T) {
	n := newNode(t, oneResource)
	n.start()
	started, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- n.client.Events(context.Background(), func() { close(started) }, func(api.Event) error { return nil })
	}()
	<-started
	begin := time.Now()
	if err := n.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("the stop took %v", d)
	}
	if err := <-ended; exit.CodeOf(err) != exit.Unreachable {
		t.Errorf("the follower was told %v", err)
	}
}
