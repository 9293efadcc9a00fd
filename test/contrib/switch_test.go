package contrib

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"hastd/test/lab"
)

// settings are hast-switch's environment with a folder of its own.
func settings(f *fake, more ...string) map[string]string {
	return f.with(append([]string{
		"HAST_SWITCH_CONF", "", "HAST_RUN", f.path("run"), "HAST_SWITCH", f.path("switch"), "HASTCTL", f.path("hastctl"),
		"HAST_RESOURCES", "data", "HAST_UP_LIMIT", "5", "HAST_DOWN_LIMIT", "5",
	}, more...)...)
}

func newSwitch(t testing.TB) *fake {
	t.Helper()
	f := newFake(t)
	must(t, os.Symlink(script(t, "switch/hast-switch"), f.path("switch")))
	return f
}

func (f *fake) hastSwitch(action string, more ...string) result {
	f.t.Helper()
	return call(f.t, settings(f, more...), os.Getuid(), f.path("switch"), action)
}

// orders are the changes of role that were asked for, in their order.
func (f *fake) orders() string {
	var all []string
	for line := range strings.Lines(f.read("calls")) {
		if _, order, ok := strings.Cut(strings.TrimSpace(line), " role "); ok {
			all = append(all, order)
		}
	}
	return strings.Join(all, ", ")
}

func TestSwitchEnds(t *testing.T) {
	waiting := uptodate.with(func(s *state) { s.peerRole = "primary" })
	short := []string{"HAST_UP_LIMIT", "2", "HAST_DOWN_LIMIT", "2"}
	for _, c := range []struct {
		name, action string
		does, env    []string
		want         int
		says         string
		orders       string
	}{
		{"usage", "sideways", nil, nil, 64, "usage", ""},
		{"up", "up", nil, nil, 0, "primary of data", "primary data"},
		{"up, several", "up", nil, []string{"HAST_RESOURCES", "a b"}, 0, "primary of a b", "primary a, primary b"},
		{"down, several", "down", nil, []string{"HAST_RESOURCES", "a b"}, 0, "secondary of a b", "secondary b, secondary a"},
		{"refused", "up", []string{"role-primary", fails(77), "status", uptodate.shows()}, nil, 77, "data: not promoted: it failed with 77; mend 77", "primary data, primary data, secondary data"},
		{"refused while the peer is primary", "up", []string{"role-primary", fails(77), "status", waiting.shows()}, short, 77, "it failed with 77", ""},
		{"busy", "up", []string{"role-primary", fails(75)}, short, 75, "it failed with 75", ""},
		{"hangs", "up", []string{"role-primary", "trap '' TERM; sleep 50"}, short, 75, "did not end within", ""},
		{"no hastd", "up", []string{"role-primary", fails(69)}, nil, 1, "it failed with 69", "primary data, secondary data"},
		{"the second is refused", "up", []string{"role-primary", `[ "$3" != b ] || { ` + fails(74) + `; }`}, []string{"HAST_RESOURCES", "a b"}, 1, "b: not promoted", "primary a, primary b, secondary b, secondary a"},
		{"mount fails", "up", nil, []string{"HAST_UP", "exit 3", "HAST_DOWN", "echo undone"}, 1, "HAST_UP ended with status 3", "primary data, secondary data"},
		{"down in use", "down", []string{"role-secondary", fails(75)}, short, 75, "still primary, perhaps: it failed with 75", ""},
		{"down without hastd", "down", []string{"role-secondary", fails(69)}, nil, 1, "it failed with 69", "secondary data"},
		{"unmount fails", "down", nil, []string{"HAST_DOWN", "exit 4"}, 0, "HAST_DOWN ended with status 4", "secondary data"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newSwitch(t)
			for i := 0; i < len(c.does); i += 2 {
				f.does(c.does[i], c.does[i+1])
			}
			r := f.hastSwitch(c.action, c.env...)
			if r.code != c.want {
				t.Errorf("status %d, want %d", r.code, c.want)
			}
			wantIn(t, r.output, c.says)
			if got := f.orders(); c.orders != "" && got != c.orders {
				t.Errorf("orders %q, want %q", got, c.orders)
			}
			if strings.Contains(f.read("calls"), "force") {
				t.Error("it used force")
			}
			if c.want == 0 || c.want == 64 {
				if f.read("run/"+strings.ReplaceAll(c.name, " ", "+")+"/refused") != "" {
					t.Error("noted as refused")
				}
			} else if c.action == "up" {
				wantIn(t, f.read("log"), "daemon.err", "not up")
			}
			if t.Failed() {
				t.Logf("it said:\n%s\nit called:\n%s", r.output, f.read("calls"))
			}
		})
	}
}

// TestSwitchHooks: mounts come after the promotion and go before the demotion, and
// what they start does not hold the lock.
func TestSwitchHooks(t *testing.T) {
	f := newSwitch(t)
	must(t, os.WriteFile(f.path("conf"), []byte(`HAST_UP='echo "role hook-up" >>`+f.path("calls")+`; sleep 3 >/dev/null 2>&1 &'
HAST_DOWN='echo "x role hook-down" >>`+f.path("calls")+`'
`), 0o600))
	f.does("role-primary", "exit 0")
	for _, action := range []string{"up", "down"} {
		if r := f.hastSwitch(action, "HAST_SWITCH_CONF", f.path("conf")); r.code != 0 || r.took > 2500*time.Millisecond {
			t.Errorf("%s: status %d in %v\n%s", action, r.code, r.took, r.output)
		}
	}
	var order []string
	for line := range strings.Lines(f.read("calls")) {
		for _, w := range []string{"role primary", "hook-up", "hook-down", "role secondary"} {
			if strings.Contains(line, w) {
				order = append(order, w)
			}
		}
	}
	if got, want := strings.Join(order, ", "), "role primary, hook-up, hook-down, role secondary"; got != want {
		t.Errorf("%s; want %s", got, want)
	}
}

// TestSwitchCheck: whether this node may be master.
func TestSwitchCheck(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		s    state
		ok   bool
	}{
		{"primary", uptodate.with(func(s *state) { s.role = "primary" }), true},
		{"primary in split-brain", uptodate.with(func(s *state) { s.role, s.status, s.connection = "primary", "split-brain", "split-brain" }), true},
		{"primary without any disk", uptodate.with(func(s *state) { s.role, s.status = "primary", "failed" }), false},
		{"secondary", uptodate, true},
		{"secondary alone", uptodate.with(func(s *state) { s.connection, s.peerDisk = "connecting", "unknown" }), true},
		{"target", uptodate.with(func(s *state) { s.status, s.disk = "syncing", "inconsistent" }), true},
		{"target alone", uptodate.with(func(s *state) { s.connection, s.disk, s.peerDisk = "connecting", "inconsistent", "unknown" }), false},
		{"outdated alone", uptodate.with(func(s *state) { s.connection, s.disk, s.peerDisk = "connecting", "outdated", "unknown" }), false},
		{"split-brain", uptodate.with(func(s *state) { s.status, s.connection = "split-brain", "split-brain" }), false},
		{"refused", uptodate.with(func(s *state) { s.connection = "refused" }), false},
		{"init", uptodate.with(func(s *state) { s.role, s.status, s.disk = "init", "init", "diskless" }), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newSwitch(t)
			f.does("status", c.s.shows())
			if r := f.hastSwitch("check"); (r.code == 0) != c.ok || r.code > 1 || c.ok != (r.output == "") {
				t.Errorf("status %d\n%s", r.code, r.output)
			}
		})
	}
	f := newSwitch(t)
	f.does("status", fails(69))
	if r := f.hastSwitch("check"); r.code != 1 {
		t.Errorf("without hastd: status %d", r.code)
	}
	f.does("status", uptodate.shows())
	f.does("role-primary", fails(77))
	f.hastSwitch("up")
	if r := f.hastSwitch("check"); r.code != 1 {
		t.Errorf("after a refusal: status %d\n%s", r.code, r.output)
	} else {
		wantIn(t, r.output, "promotion failed less than 60 s ago")
	}
	if r := f.hastSwitch("check", "HAST_REST", "0"); r.code != 0 {
		t.Errorf("a refusal does not pass: status %d\n%s", r.code, r.output)
	}
	f.does("role-primary", "exit 0")
	f.hastSwitch("up")
	if r := f.hastSwitch("check"); r.code != 0 {
		t.Errorf("after a success: status %d\n%s", r.code, r.output)
	}
}

// TestSwitchIsOvertaken: a down that comes while an up waits ends it, and the node is
// secondary afterwards, as when keepalived flaps.
func TestSwitchIsOvertaken(t *testing.T) {
	t.Parallel()
	f := newSwitch(t)
	f.does("role-primary", fails(75))
	done := make(chan result, 1)
	env := settings(f, "HAST_UP_LIMIT", "50")
	go func() { done <- call(t, env, os.Getuid(), f.path("switch"), "up") }()
	await(t, "an attempt", func() bool { return strings.Contains(f.orders(), "primary") })
	if r := f.hastSwitch("down"); r.code != 0 {
		t.Errorf("down: status %d\n%s", r.code, r.output)
	}
	r := <-done
	if r.code != 77 || r.took > 20*time.Second {
		t.Errorf("up: status %d in %v\n%s", r.code, r.took, r.output)
	}
	if got := f.orders(); !strings.HasSuffix(got, "secondary data") {
		t.Errorf("orders %s", got)
	}
	if f.read("run/data/refused") != "" {
		t.Error("being overtaken counts as a refusal")
	}
}

// TestKeepalivedNotify calls the notify script with what keepalived passes.
func TestKeepalivedNotify(t *testing.T) {
	for _, c := range []struct {
		args string
		want string
		code int
	}{
		{"master", "up", 0}, {"backup", "down", 0}, {"fault", "down", 0}, {"stop", "down", 0},
		{"INSTANCE data MASTER 150", "up", 0}, {"INSTANCE data BACKUP 150", "down", 0},
		{"GROUP data FAULT 0", "down", 0}, {"INSTANCE data STOP 0", "down", 0}, {"INSTANCE data DELETED 0", "down", 0},
		{"", "", 64}, {"INSTANCE data", "", 64},
	} {
		f := newFake(t)
		f.program("switch", `echo "$*" >>"$here/switched"`)
		r := call(t, settings(f), os.Getuid(), append([]string{script(t, "keepalived/notify")}, strings.Fields(c.args)...)...)
		if got := strings.TrimSpace(f.read("switched")); r.code != c.code || got != c.want {
			t.Errorf("%s: status %d, %q; want %d, %q", c.args, r.code, got, c.code, c.want)
		}
	}
}

// fakeUcarp calls a script as ucarp does, waits for it, and notes when it is told to
// be backup.
const fakeUcarp = `
trap 'echo demoted >>"$here/signals"; exit 0' USR2
"$@" eth0 192.0.2.10 </dev/null
echo returned >>"$here/signals"
n=0
while [ $n -lt 40 ]; do sleep 0.1; n=$((n + 1)); done`

// ucarp runs a script below a process of that name and ends it by its number.
func (f *fake) ucarp(name string, until func() bool) {
	f.t.Helper()
	f.program("ucarp", fakeUcarp)
	cmd := exec.Command(f.path("ucarp"), script(f.t, "ucarp/"+name))
	for k, v := range settings(f) {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	must(f.t, cmd.Start())
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	await(f.t, "ucarp/"+name+" has done its work", until)
}

func TestUcarpScripts(t *testing.T) {
	t.Parallel()
	f := newSwitch(t)
	f.does("status", uptodate.shows())
	f.does("role-primary", "sleep 1")
	f.ucarp("up", func() bool { return f.read("ip-calls") != "" })
	if got := f.read("ip-calls"); got != "addr add 192.0.2.10/32 dev eth0\n" {
		t.Errorf("ip %s", got)
	}
	if f.orders() != "primary data" || f.read("signals") != "returned\n" {
		t.Errorf("orders %s, signals %s", f.orders(), f.read("signals"))
	}
	os.Remove(f.path("ip-calls"))
	f.ucarp("down", func() bool { return strings.HasSuffix(f.orders(), "secondary data") })
	if got := f.read("ip-calls"); got != "addr del 192.0.2.10/32 dev eth0\n" {
		t.Errorf("ip %s", got)
	}

	os.Remove(f.path("ip-calls"))
	f.does("role-primary", fails(77))
	f.ucarp("up", func() bool { return strings.Contains(f.read("signals"), "demoted") })
	wantIn(t, f.read("log"), "not primary: giving up 192.0.2.10 on eth0", "it failed with 77; mend 77")
	if got := f.read("ip-calls"); got != "" {
		t.Errorf("an address without a primary: ip %s", got)
	}
}

// TestSwitchOnAPair moves the primary between two real daemons, as keepalived and
// ucarp would.
func TestSwitchOnAPair(t *testing.T) {
	t.Parallel()
	l := newPair(t, lab.Options{})
	must(t, l.AwaitConnected(runLimit))
	fakes, env := [2]*fake{}, [2]map[string]string{}
	for s, n := range l.Nodes {
		fakes[s] = newSwitch(t)
		env[s] = settings(fakes[s], "HASTCTL", programs.Hastctl, "HAST_ARGUMENTS", "-c "+n.Config()+" --node "+n.Side.String(), "HAST_UP_LIMIT", "20", "HAST_REST", "0")
	}
	notify := func(s lab.Side, state string) result {
		t.Helper()
		return call(t, env[s], os.Getuid(), script(t, "keepalived/notify"), "INSTANCE", "data", state, "150")
	}
	check := func(s lab.Side) result {
		t.Helper()
		return call(t, env[s], os.Getuid(), fakes[s].path("switch"), "check")
	}
	want := func(s lab.Side, role string) {
		t.Helper()
		if st, err := l.Nodes[s].Status(); err != nil || st.Role != role {
			t.Fatalf("%v is %v %v, want %s", s, st, err, role)
		}
	}
	if r := notify(lab.Alpha, "MASTER"); r.code != 0 {
		t.Fatalf("status %d\n%s", r.code, r.output)
	}
	want(lab.Alpha, "primary")
	must(t, l.AwaitComplete(runLimit))

	// Bravo becomes master while alpha still steps down: a client keeps the device.
	c, err := l.Nodes[lab.Alpha].NBD(t.Context())
	must(t, err)
	up := make(chan result, 1)
	down := make(chan result, 1)
	go func() { down <- notify(lab.Alpha, "BACKUP") }()
	go func() { up <- notify(lab.Bravo, "MASTER") }()
	await(t, "both wait", func() bool {
		return strings.Contains(fakes[0].read("log"), "waiting to become secondary") && strings.Contains(fakes[1].read("log"), "waiting to become primary")
	})
	want(lab.Alpha, "primary")
	c.Close()
	if r := <-down; r.code != 0 {
		t.Errorf("down: status %d\n%s", r.code, r.output)
	}
	if r := <-up; r.code != 0 {
		t.Errorf("up: status %d\n%s", r.code, r.output)
	}
	want(lab.Alpha, "secondary")
	want(lab.Bravo, "primary")
	for s := range l.Nodes {
		if r := check(lab.Side(s)); r.code != 0 {
			t.Errorf("check: status %d\n%s", r.code, r.output)
		}
	}

	// Bravo's daemon dies: it may not be master, and alpha takes over.
	must(t, l.AwaitComplete(runLimit))
	must(t, l.Nodes[lab.Bravo].Kill())
	if r := check(lab.Bravo); r.code != 1 {
		t.Errorf("check of a dead daemon: status %d\n%s", r.code, r.output)
	}
	if r := notify(lab.Alpha, "MASTER"); r.code != 0 {
		t.Fatalf("takeover: status %d\n%s", r.code, r.output)
	}
	want(lab.Alpha, "primary")

	// Both die, bravo first, and bravo alone comes back: what alpha wrote meanwhile it
	// cannot know. It is refused, and says so.
	must(t, l.Nodes[lab.Bravo].Start())
	must(t, l.AwaitComplete(runLimit))
	must(t, l.Nodes[lab.Bravo].Kill())
	write(t, l.Nodes[lab.Alpha])
	must(t, l.Nodes[lab.Alpha].Kill())
	must(t, l.Nodes[lab.Bravo].Start())
	if r := notify(lab.Bravo, "MASTER"); r.code != 77 {
		t.Fatalf("stale: status %d\n%s", r.code, r.output)
	}
	wantIn(t, fakes[1].read("log"), "promotion refused: ", "not up: taking down what was begun of data")
	want(lab.Bravo, "secondary")
}

// TestSystemdUnit: the unit starts and stops what it says, and nothing starts it.
func TestSystemdUnit(t *testing.T) {
	b, err := os.ReadFile(script(t, "systemd/hast-primary@.service"))
	must(t, err)
	f := newSwitch(t)
	for _, action := range []string{"up", "down"} {
		key := map[string]string{"up": "ExecStart=", "down": "ExecStop="}[action]
		_, rest, ok := strings.Cut(string(b), "\n"+key)
		line, _, _ := strings.Cut(rest, "\n")
		if words := strings.Fields(line); !ok || len(words) != 2 || words[0] != "/usr/local/libexec/hast/hast-switch" || words[1] != action {
			t.Errorf("%s%s", key, line)
		}
		if r := f.hastSwitch(action, "HAST_RESOURCES", "web"); r.code != 0 {
			t.Errorf("%s: status %d\n%s", action, r.code, r.output)
		}
	}
	if got := f.orders(); got != "primary web, secondary web" {
		t.Errorf("orders %s", got)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "[Install]") {
			t.Error("it may be enabled: nothing may promote at boot")
		}
		for _, key := range []string{"TimeoutStartSec=", "TimeoutStopSec="} {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), key); ok {
				// promotion, demotion, both hooks
				if n, err := strconv.Atoi(v); err != nil || n < 30+60+2*60 {
					t.Error(fmt.Sprint(key, v, " is shorter than what it waits for"))
				}
			}
		}
	}
}
