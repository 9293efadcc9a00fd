package ha

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hastd/cmd/internal/demo/stage"
	"hastd/cmd/internal/exit"
)

// node is one of the two machines: a place, a folder, two daemons.
type node struct {
	name    string
	skew    int // of its election
	dir     string
	d       *demo
	daemons []*daemon // that run
}

// daemon is hastd or vipd on a node.
type daemon struct {
	name  string
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // how it ended, after ended
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

func (n *node) index() int {
	if n == n.d.nodes[0] {
		return 0
	}
	return 1
}

// hastctl runs the command of the same name on this node, and shows it.
func (n *node) hastctl(ctx context.Context, args ...string) (string, error) {
	n.d.Say("%s$ hastctl %s", n.name, strings.Join(args, " "))
	return n.quiet(ctx, args...)
}

// quiet runs hastctl without showing it.
func (n *node) quiet(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit+5*time.Second)
	defer cancel()
	argv := n.d.net.in(n.name, append([]string{n.d.Hastctl, "-c", n.d.path("hast.toml"), "--node", n.name, "--timeout", commandLimit.String()}, args...)...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // Ctrl-C ends it through ctx
	err := cmd.Run()
	if err == nil {
		return out.String(), nil
	}
	code := exit.IO
	if e := (*exec.ExitError)(nil); errors.As(err, &e) && e.Exited() {
		code = exit.Code(e.ExitCode())
	}
	text := strings.TrimSpace(errs.String())
	if text == "" {
		text = err.Error()
	}
	return "", exit.New(code, "", "hastctl %s on %s: %s", strings.Join(args, " "), n.name, text)
}

// start starts a daemon; it need not answer yet.
func (n *node) start(name, program string) error {
	log, err := os.OpenFile(n.path(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	argv := n.d.net.in(n.name, program, "-c", n.d.path("hast.toml"), "--node", n.name)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = stage.OwnEnv()
	// Out of reach of the terminal's Ctrl-C, which is for the demonstration; and
	// gone with it, should it be killed. nsenter becomes the program.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return exit.New(exit.CantCreate, "", "start %s: %w", program, err)
	}
	m := &daemon{name: name, cmd: cmd, ended: make(chan struct{})}
	n.daemons = append(n.daemons, m)
	go func() {
		m.err = cmd.Wait()
		close(m.ended)
	}()
	return nil
}

func (n *node) startHastd() error { return n.start("hastd", n.d.Hastd) }
func (n *node) startVipd() error  { return n.start("vipd", n.d.Vipd) }

// kill ends both daemons at once, as a fault of memory would; the processes are
// gone afterwards. It gives their ids.
func (n *node) kill() (pids []int, err error) {
	for _, m := range n.daemons {
		pids = append(pids, m.cmd.Process.Pid)
		m.cmd.Process.Kill()
	}
	for _, m := range n.daemons {
		if stage.Within(killLimit, func() error { <-m.ended; return nil }) != nil {
			err = errors.Join(err, fmt.Errorf("%s on %s (process %d) does not end", m.name, n.name, m.cmd.Process.Pid))
		}
	}
	n.daemons = nil
	return pids, err
}

// alive wants the daemons that were started to run.
func (n *node) alive() error {
	for _, m := range n.daemons {
		select {
		case <-m.ended:
			return exit.New(exit.IO, "look at its log", "%s on %s ended by itself: %v", m.name, n.name, m.err)
		default:
		}
	}
	return nil
}

// state is what is waited for of a node.
type state struct {
	Role, Status, Connection, Disk string // of the resource
	Group, Why                     string // its state and reason
	Address                        string // interface that has the service address
}

func (s state) String() string {
	return fmt.Sprintf("resource %s, %s, %s; group %s (%s), address on %q", s.Role, s.Status, s.Connection, s.Group, s.Why, s.Address)
}

func (n *node) resource(ctx context.Context) (s state, err error) {
	var list struct {
		Resources []struct{ Role, Status, Connection, Disk string }
	}
	if err := n.ask(ctx, &list, "status"); err != nil || len(list.Resources) != 1 {
		return s, err
	}
	r := list.Resources[0]
	return state{Role: r.Role, Status: r.Status, Connection: r.Connection, Disk: r.Disk}, nil
}

func (n *node) group(ctx context.Context) (s state, err error) {
	var list struct {
		Groups []struct{ State, Reason string }
	}
	if err := n.ask(ctx, &list, "group", "status"); err != nil || len(list.Groups) != 1 {
		return s, err
	}
	var vips struct {
		VIPs []struct {
			Interface string
			Held      bool
		}
	}
	if err := n.ask(ctx, &vips, "vip"); err != nil || len(vips.VIPs) != 1 {
		return s, err
	}
	s = state{Group: list.Groups[0].State, Why: list.Groups[0].Reason}
	if vips.VIPs[0].Held {
		s.Address = vips.VIPs[0].Interface
	}
	return s, nil
}

func (n *node) ask(ctx context.Context, into any, args ...string) error {
	out, err := n.quiet(ctx, append(args, "--json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), into)
}

// await waits until what is asked of the node is as wanted.
func (n *node) await(ctx context.Context, limit time.Duration, what string, ask func(context.Context) (state, error), want func(state) bool) error {
	var last state
	err := stage.Poll(ctx, limit, pollEvery, what+" on "+n.name, func() (bool, error) {
		n.d.Progress(-1, "waiting for %s", what)
		if err := n.alive(); err != nil {
			return false, err
		}
		s, err := ask(ctx)
		if err == nil {
			last = s
		}
		return err == nil && want(s), err
	})
	n.d.Clear()
	if err != nil {
		return fmt.Errorf("%w; last seen: %v", err, last)
	}
	return nil
}

// awaitGroup waits until the group is in a state on the node.
func (n *node) awaitGroup(ctx context.Context, limit time.Duration, want string) error {
	return n.await(ctx, limit, "the group to be "+want, n.group, func(s state) bool { return s.Group == want })
}

// awaitComplete waits until both replicas agree.
func (n *node) awaitComplete(ctx context.Context, limit time.Duration) error {
	return n.await(ctx, limit, "the replicas to agree", n.resource, func(s state) bool { return s.Status == "complete" && s.Connection == "connected" })
}
