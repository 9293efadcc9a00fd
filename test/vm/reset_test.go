package vm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// countdown is the watchdog's: long, so that a busy host does not reset a machine
	// that is well.
	countdown = 15 * time.Second
	// resetLimit is for the countdown on a machine whose clock is slow.
	resetLimit = 6 * countdown
	// soon is how long a machine may take for what takes moments.
	soon = time.Minute
)

// programs builds what runs in the machines, and others of cmd as needed.
func programs(t *testing.T, others ...string) map[string][]byte {
	t.Helper()
	files, dir := map[string][]byte{}, t.TempDir()
	packages := map[string]string{"/init": "./test/vm/guest", "/vipd": "./cmd/vipd"}
	for _, name := range others {
		packages["/"+name] = "./cmd/" + name
	}
	for path, pkg := range packages {
		out := filepath.Join(dir, filepath.Base(path))
		c := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
		c.Dir = "../.."
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		files[path] = b
	}
	return files
}

// machine boots one whose vipd has a group of one service, with failfast.
func machine(t *testing.T, toc string) (m *Machine, vipd int) {
	t.Helper()
	dir := needs(t)
	files := programs(t)
	files["/hast.toml"] = []byte(`[cluster]
name = "test"
insecure = true
toc = "` + toc + `"
watchdog-timeout = "` + countdown.String() + `"
[vipd]
control = "/run/vipd.sock"
http = ""
[node.alpha]
id = 0
address = ["10.9.0.1"]
[node.bravo]
id = 1
address = ["10.9.0.2"]
[group.data]
nodes = ["alpha", "bravo"]
election = "external"
[[group.data.service]]
name = "app"
start = ["/init", "service", "start", "/run/app"]
stop = ["/init", "service", "stop", "/run/app"]
monitor = ["/init", "service", "monitor", "/run/app"]
interval = "1s"
restart-limit = 0
failfast = true
`)
	m, err := Start(Options{Dir: dir, Files: files})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("console:\n" + m.Console())
		}
		m.Close()
	})
	t.Logf("booted within %s", m.Boot.Round(100*time.Millisecond))
	// What was found up stays up: the service needs nobody's order.
	do(t, m, Order{Op: "start", Args: []string{"/init", "service", "start", "/run/app"}})
	vipd = startVipd(t, m)
	if toc == "off" {
		return m, vipd
	}
	must(t, m.WaitConsole("this machine is reset when vipd does not answer", soon))
	must(t, m.WaitConsole("OFFLINE -> ONLINE", soon))
	if s := state(t, m); s != "active" {
		t.Fatalf("the watchdog is %s", s)
	}
	return m, vipd
}

func startVipd(t *testing.T, m *Machine) int {
	t.Helper()
	return do(t, m, Order{Op: "start", Args: []string{"/vipd", "-c", "/hast.toml", "--node", "alpha"}}).Pid
}

// needs is the folder of the kernel.
func needs(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("VM_DIR")
	if dir == "" {
		t.Skip("a machine is booted by make test-vm (VM_DIR is not set)")
	}
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, m *Machine, o Order) Answer {
	t.Helper()
	a, err := m.Do(o)
	must(t, err)
	return a
}

// state is what the kernel says of the watchdog: active while it counts.
func state(t *testing.T, m *Machine) string {
	t.Helper()
	return strings.TrimSpace(do(t, m, Order{Op: "read", Args: []string{"/sys/class/watchdog/watchdog0/state"}}).Text)
}

// says fails unless the words stand on the console in this order.
func says(t *testing.T, m *Machine, words ...string) {
	t.Helper()
	rest := m.Console()
	for _, w := range words {
		i := strings.Index(rest, w)
		if i < 0 {
			t.Errorf("the console does not say %q in its place", w)
			return
		}
		rest = rest[i+len(w):]
	}
}

func saysNothingOf(t *testing.T, m *Machine, words ...string) {
	t.Helper()
	text := m.Console()
	for _, w := range words {
		if strings.Contains(text, w) {
			t.Errorf("the console says %q", w)
		}
	}
}

const (
	kernelResets = "softdog: Initiating system reboot"
	lastWords    = "vipd: node alpha, group data: data/service/app: "
	performing   = "performing TOC to ensure data integrity"
)

// resets waits for it and says how long it took.
func resets(t *testing.T, m *Machine) {
	t.Helper()
	began := time.Now()
	must(t, m.WaitReset(resetLimit))
	t.Logf("reset after %s", time.Since(began).Round(100*time.Millisecond))
}

func TestVipdThatWasKilledResetsItsMachine(t *testing.T) {
	m, vipd := machine(t, "reset")
	do(t, m, Order{Op: "signal", Pid: vipd, Number: int(syscall.SIGKILL)})
	resets(t, m)
	says(t, m, "watchdog did not stop!", kernelResets)
}

func TestVipdThatStandsStillResetsItsMachine(t *testing.T) {
	m, vipd := machine(t, "reset")
	do(t, m, Order{Op: "signal", Pid: vipd, Number: int(syscall.SIGSTOP)})
	resets(t, m)
	says(t, m, kernelResets)
	saysNothingOf(t, m, "did not stop!")
}

// TestVipdThatIsBackInTimeSavesItsMachine, and keeps the group.
func TestVipdThatIsBackInTimeSavesItsMachine(t *testing.T) {
	m, vipd := machine(t, "reset")
	do(t, m, Order{Op: "signal", Pid: vipd, Number: int(syscall.SIGKILL)})
	if a := do(t, m, Order{Op: "wait", Pid: vipd, Number: int(soon.Milliseconds())}); !a.Ended {
		t.Fatal("it was not killed")
	}
	vipd = startVipd(t, m)
	do(t, m, Order{Op: "sleep", Number: int(countdown.Milliseconds() * 5 / 4)})
	if a := do(t, m, Order{Op: "wait", Pid: vipd}); a.Ended || state(t, m) != "active" {
		t.Errorf("vipd: %+v, the watchdog is %s", a, state(t, m))
	}
	says(t, m, "OFFLINE -> ONLINE", "did not stop!", "OFFLINE -> ONLINE")
	saysNothingOf(t, m, kernelResets, performing, "STOPPING")
}

// TestCleanStopResetsNothing: nor does a vipd that stood still for a moment, or a machine
// that was paused.
func TestCleanStopResetsNothing(t *testing.T) {
	m, vipd := machine(t, "reset")
	isPrepared(t, m, vipd)
	do(t, m, Order{Op: "signal", Pid: vipd, Number: int(syscall.SIGSTOP)})
	do(t, m, Order{Op: "sleep", Number: int(countdown.Milliseconds() / 3)})
	do(t, m, Order{Op: "signal", Pid: vipd, Number: int(syscall.SIGCONT)})
	must(t, m.Pause())
	time.Sleep(time.Second)
	must(t, m.Resume())
	do(t, m, Order{Op: "signal", Pid: vipd, Number: int(syscall.SIGTERM)})
	if a := do(t, m, Order{Op: "wait", Pid: vipd, Number: int(soon.Milliseconds())}); !a.Ended || a.Code != 0 {
		t.Fatalf("vipd: %+v", a)
	}
	if s := state(t, m); s != "inactive" {
		t.Errorf("the watchdog is %s after the end of vipd", s)
	}
	do(t, m, Order{Op: "sleep", Number: int(countdown.Milliseconds() * 5 / 4)})
	if s := state(t, m); s != "inactive" {
		t.Errorf("the watchdog is %s", s)
	}
	saysNothingOf(t, m, "did not stop!", kernelResets, performing)
}

// isPrepared fails unless one thread of vipd, the one that feeds, has a real-time
// priority, and its memory is locked and small.
func isPrepared(t *testing.T, m *Machine, vipd int) {
	t.Helper()
	at := fmt.Sprintf("/proc/%d/", vipd)
	rr := 0
	for _, thread := range strings.Fields(do(t, m, Order{Op: "list", Args: []string{at + "task"}}).Text) {
		stat := do(t, m, Order{Op: "read", Args: []string{at + "task/" + thread + "/stat"}}).Text
		f := strings.Fields(stat[strings.LastIndex(stat, ")")+1:]) // from the third field on
		if priority, policy := f[40-3], f[41-3]; policy == "2" && priority == "1" {
			rr++
		} else if policy != "0" {
			t.Errorf("thread %s has policy %s", thread, policy)
		}
	}
	if rr != 1 {
		t.Errorf("%d threads have SCHED_RR", rr)
	}
	sizes := map[string]int{}
	for _, line := range strings.Split(do(t, m, Order{Op: "read", Args: []string{at + "status"}}).Text, "\n") {
		var name string
		var kib int
		if n, _ := fmt.Sscanf(line, "%s %d kB", &name, &kib); n == 2 {
			sizes[name] = kib
		}
	}
	t.Logf("vipd has %d KiB resident, %d KiB locked", sizes["VmRSS:"], sizes["VmLck:"])
	if sizes["VmRSS:"] >= 32<<10 || sizes["VmLck:"] == 0 {
		t.Error("that is not what it may have")
	}
}

func TestFailfastResetsItsMachine(t *testing.T) {
	m, _ := machine(t, "reset")
	do(t, m, Order{Op: "remove", Args: []string{"/run/app"}})
	resets(t, m)
	says(t, m, lastWords, performing)
	saysNothingOf(t, m, kernelResets)
}

func TestFailfastCrashesItsMachine(t *testing.T) {
	m, _ := machine(t, "crash")
	do(t, m, Order{Op: "remove", Args: []string{"/run/app"}})
	resets(t, m) // panic=1 starts it anew
	says(t, m, lastWords, performing, "Kernel panic - not syncing: sysrq triggered crash")
}

// TestKilledWithoutTOC: nothing opens the watchdog.
func TestKilledWithoutTOC(t *testing.T) {
	m, vipd := machine(t, "off")
	must(t, m.WaitConsole("OFFLINE -> ONLINE", soon))
	if s := state(t, m); s != "inactive" {
		t.Errorf("the watchdog is %s", s)
	}
	do(t, m, Order{Op: "signal", Pid: vipd, Number: int(syscall.SIGKILL)})
	if a := do(t, m, Order{Op: "wait", Pid: vipd, Number: int(soon.Milliseconds())}); !a.Ended {
		t.Error("it was not killed")
	}
	saysNothingOf(t, m, "did not stop!", performing)
}
