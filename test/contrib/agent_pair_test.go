package contrib

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"hastd/test/lab"
)

// on is a call of the agent on a node of a pair.
func on(t testing.TB, f *fake, n *lab.Node, action string, more ...string) result {
	t.Helper()
	return agent(t, f, action, append([]string{
		"OCF_RESKEY_hastctl", programs.Hastctl, "OCF_RESKEY_config", n.Config(), "OCF_RESKEY_node", n.Side.String(),
		"OCF_RESKEY_resource", lab.Resource,
	}, more...)...)
}

// TestAgentOnAPair is a cluster's life with the real programs: start, promote, move,
// a device in use, a dead daemon, split-brain. Each step has the action, what it must
// answer, and the score that Pacemaker is left with.
func TestAgentOnAPair(t *testing.T) {
	t.Parallel()
	l := newPair(t, lab.Options{StartAs: "init"})
	alpha, bravo := l.Nodes[lab.Alpha], l.Nodes[lab.Bravo]
	fakes := map[*lab.Node]*fake{alpha: newFake(t), bravo: newFake(t)}
	for _, f := range fakes {
		f.scores()
	}
	step := func(n *lab.Node, action string, want int, more ...string) result {
		t.Helper()
		r := on(t, fakes[n], n, action, more...)
		if r.code != want {
			t.Fatalf("%s on %v: status %d, want %d\n%s", action, n.Side, r.code, want, r.output)
		}
		return r
	}
	score := func(n *lab.Node, want string) {
		t.Helper()
		if got := strings.TrimPrefix(fakes[n].lastScore(), "--promotion "); got != want {
			s, _ := n.Status()
			t.Fatalf("score on %v: %q, want %q (%v)", n.Side, got, want, s)
		}
	}
	post := func(n *lab.Node) { t.Helper(); step(n, "notify", success, "OCF_RESKEY_CRM_meta_notify_type", "post") }

	for _, n := range l.Nodes {
		step(n, "validate-all", success)
		step(n, "monitor", notRunning)
		step(n, "demote", notRunning)
		step(n, "promote", notRunning)
		step(n, "stop", success)
		step(n, "start", success)
		step(n, "start", success)
		step(n, "monitor", success)
	}
	must(t, l.AwaitConnected(runLimit))
	post(alpha)
	score(alpha, "-v 10") // new: nobody has data yet
	step(alpha, "promote", success)
	score(alpha, "-v 10000")
	step(alpha, "promote", success)
	step(alpha, "monitor", promoted)
	must(t, l.AwaitComplete(runLimit))
	post(bravo)
	score(bravo, "-v 1000")

	// The other one is primary, and stays it.
	r := step(bravo, "promote", generic)
	wantIn(t, r.output, "promotion refused: alpha is primary", "run hastctl role secondary data on alpha first")
	score(bravo, "-D")

	// A device in use: demotion waits, and says who uses it.
	c, err := alpha.NBD(t.Context())
	must(t, err)
	r = step(alpha, "demote", generic, "OCF_RESKEY_CRM_meta_timeout", "2000")
	wantIn(t, r.output, "ocf-exit-reason:demote: ", "; stop what uses it")
	step(alpha, "monitor", promoted)
	r = step(alpha, "stop", generic, "OCF_RESKEY_CRM_meta_timeout", "2000")
	step(alpha, "monitor", promoted)
	released := make(chan struct{})
	go func() { time.Sleep(time.Second); c.Close(); close(released) }()
	step(alpha, "demote", success)
	<-released
	step(alpha, "demote", success)
	step(bravo, "promote", success)
	step(bravo, "monitor", promoted)

	// A primary is demoted by stop, and by start.
	step(bravo, "stop", success)
	step(bravo, "monitor", notRunning)
	score(bravo, "-D")
	step(bravo, "start", success)
	must(t, l.AwaitConnected(runLimit))
	step(bravo, "promote", success)
	step(bravo, "start", success)
	step(bravo, "monitor", success)

	// hastd dies on the primary: it is not running there, and the other takes over.
	step(bravo, "promote", success)
	must(t, l.AwaitComplete(runLimit))
	must(t, bravo.Kill())
	gone := notRunning
	stopped := success
	if os.Getuid() != 0 {
		gone, stopped = permission, permission
	}
	step(bravo, "monitor", gone)
	step(bravo, "demote", gone)
	step(bravo, "stop", stopped)
	score(bravo, map[bool]string{true: "-D", false: "-v 10000"}[os.Getuid() == 0])
	r = step(bravo, "start", generic, "OCF_RESKEY_CRM_meta_timeout", "2000")
	wantIn(t, r.output, "hastd is not running")
	step(alpha, "promote", success)
	must(t, bravo.Start())
	step(bravo, "start", success)
	must(t, l.AwaitComplete(runLimit))

	// A hastd that hangs is an error, never "stopped".
	must(t, bravo.Freeze())
	for _, action := range []string{"monitor", "stop"} {
		step(bravo, action, generic, "OCF_RESKEY_CRM_meta_timeout", "2000")
	}
	must(t, bravo.Thaw())
	await(t, "bravo answers again", func() bool { return on(t, fakes[bravo], bravo, "monitor").code == success })
	must(t, l.AwaitComplete(runLimit))

	// The link is cut and both write: after that nobody may be promoted anew.
	must(t, l.Cut(lab.Alpha, lab.CutReset))
	must(t, bravo.WaitConnection("connecting", runLimit))
	step(bravo, "monitor", success)
	score(bravo, "-v 100")
	write(t, alpha)
	step(bravo, "promote", success)
	write(t, bravo)
	must(t, l.Heal())
	must(t, bravo.WaitStatus("split-brain", runLimit))
	step(bravo, "monitor", promoted)
	score(bravo, "-v 10000") // it serves; a person decides
	step(bravo, "demote", success)
	step(bravo, "monitor", success)
	score(bravo, "-D")
	r = step(bravo, "promote", generic)
	wantIn(t, r.output, "ocf-exit-reason:promote: resource data on node bravo: promotion refused: split-brain", "recover --discard-local")
}

// write changes a block through the provider and flushes it.
func write(t testing.TB, n *lab.Node) {
	t.Helper()
	c, err := n.NBD(t.Context())
	must(t, err)
	defer c.Close()
	_, err = c.WriteAt(bytes.Repeat([]byte{byte(n.Side) + 1}, 4096), 0)
	must(t, err)
	must(t, c.Flush())
}

// TestOCFTester runs Debian's own tester of agents on a pair.
func TestOCFTester(t *testing.T) {
	tester, err := exec.LookPath("ocf-tester")
	if err != nil {
		if _, err := os.Stat("/usr/sbin/ocf-tester"); err != nil {
			t.Skip("needs ocf-tester: install the Debian package resource-agents")
		}
		tester = "/usr/sbin/ocf-tester"
	}
	if os.Getuid() != 0 {
		t.Skip("ocf-tester needs root")
	}
	t.Parallel()
	l := newPair(t, lab.Options{StartAs: "secondary"})
	must(t, l.AwaitConnected(runLimit))
	n := l.Nodes[lab.Alpha]
	f := newFake(t)
	b, err := os.ReadFile(script(t, "ocf/hast"))
	must(t, err)
	// It asks whether nobody may run the agent; the tree may stand where nobody may go.
	must(t, os.WriteFile(f.path("hast"), b, 0o755))
	r := call(t, f.with("HA_LOGFILE", f.path("ha.log")), 0, tester, "-n", "hast-data",
		"-o", "resource="+lab.Resource, "-o", "hastctl="+programs.Hastctl, "-o", "config="+n.Config(), "-o", "node=alpha", f.path("hast"))
	if r.code != 0 || !strings.Contains(r.output, "passed all tests") {
		t.Errorf("status %d\n%s", r.code, r.output)
	}
	for line := range strings.Lines(r.output) {
		if strings.HasPrefix(line, "*") && !strings.Contains(line, "(optional)") {
			t.Error(line)
		}
	}
	fmt.Fprint(t.Output(), r.output)
}
