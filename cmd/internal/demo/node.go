package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/demo/stage"
	"hastd/cmd/internal/exit"
)

// Bounds of what is waited for.
const (
	commandLimit = 30 * time.Second
	startLimit   = 30 * time.Second
	stopLimit    = 30 * time.Second
	killLimit    = 10 * time.Second
	pollEvery    = 30 * time.Millisecond
)

// node is one of the two machines: a folder, an address, a daemon.
type node struct {
	name    string
	address string
	dir     string
	http    string // where its metrics are
	d       *demo
	api     *api.Client
	cmd     *exec.Cmd     // nil: no daemon runs
	ended   chan struct{} // closed when the daemon of cmd is gone
	endErr  error         // how it ended, after ended
	store   store         // open on its device, or nil
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }
func (n *node) disk() string            { return n.path("disk") }
func (n *node) control() string         { return n.path("run/hastd.sock") }
func (n *node) device() string          { return n.path("device") }
func (n *node) log() string             { return n.path("hastd.log") }

// hastctl runs the command of the same name for this node, and shows it.
func (n *node) hastctl(ctx context.Context, args ...string) (string, error) {
	n.d.Say("$ hastctl --node %s %s", n.name, strings.Join(args, " "))
	return n.quiet(ctx, args...)
}

// demoteLimit bounds the tries of a demotion, demotePause parts them: who just closed the
// device may not be gone from it yet.
const (
	demoteLimit = 10 * time.Second
	demotePause = 100 * time.Millisecond
)

// demote makes the resource secondary.
func (n *node) demote(ctx context.Context) (string, error) {
	out, err := n.hastctl(ctx, "role", "secondary", resource)
	for end := time.Now().Add(demoteLimit); exit.CodeOf(err) == exit.Again && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return out, err
		case <-time.After(demotePause):
		}
		out, err = n.quiet(ctx, "role", "secondary", resource)
	}
	return out, err
}

// quiet runs hastctl without showing it.
func (n *node) quiet(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit+5*time.Second)
	defer cancel()
	argv := append([]string{"-c", n.d.path("hast.toml"), "--node", n.name, "--timeout", commandLimit.String()}, args...)
	cmd := exec.CommandContext(ctx, n.d.Hastctl, argv...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // Ctrl-C ends it through ctx
	done := make(chan error, 1)
	go func() { done <- cmd.Run() }()
	err := n.d.Spin(done, "hastctl "+strings.Join(args, " "))
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

// start starts the daemon and waits until it answers.
func (n *node) start(ctx context.Context) error {
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(n.d.Hastd, "-c", n.d.path("hast.toml"), "--node", n.name)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = n.dir
	cmd.Env = stage.OwnEnv()
	// Out of reach of the terminal's Ctrl-C, which is for the demonstration; and
	// gone with it, should it be killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return exit.New(exit.CantCreate, "give the place of the daemon with --hastd PATH", "start %s: %w", n.d.Hastd, err)
	}
	ended := make(chan struct{})
	n.cmd, n.ended, n.endErr = cmd, ended, nil
	go func() {
		n.endErr = cmd.Wait()
		close(ended)
	}()
	return n.await(ctx, startLimit, "hastd on "+n.name+" to start", func(api.Resource) bool { return true })
}

// kill ends the daemon as a power switch would; the process is gone afterwards.
func (n *node) kill() error {
	if n.cmd == nil {
		return nil
	}
	n.cmd.Process.Kill()
	return n.gone(killLimit)
}

// stop ends the daemon cleanly.
func (n *node) stop() error {
	if n.cmd == nil {
		return nil
	}
	n.cmd.Process.Signal(syscall.SIGTERM)
	if err := n.gone(stopLimit); err != nil {
		return errors.Join(err, n.kill())
	}
	if n.endErr != nil {
		return exit.New(exit.IO, "look at its log", "hastd on %s did not stop cleanly: %w", n.name, n.endErr)
	}
	return nil
}

func (n *node) gone(limit time.Duration) error {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-n.ended:
		n.cmd = nil
		return nil
	case <-t.C:
		return exit.New(exit.Again, "", "hastd on %s (process %d) does not end", n.name, n.cmd.Process.Pid)
	}
}

// await waits until the node's resource is as wanted, with a bar: of the
// synchronisation if there is one.
func (n *node) await(ctx context.Context, limit time.Duration, what string, want func(api.Resource) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	var last string
	for {
		r, err := n.api.Resource(ctx, resource)
		if err == nil && want(r) {
			n.d.Clear()
			return nil
		}
		last = describe(r, err, last)
		share := -1.0
		if all := r.Sync.BytesDone + r.Sync.BytesLeft; r.Sync.State == "running" && all > 0 {
			share = float64(r.Sync.BytesDone) / float64(all)
		}
		n.d.Progress(share, "waiting for %s", what)
		select {
		case <-n.ended:
			return exit.New(exit.IO, "look at its log", "hastd on %s ended by itself (%v) while %s was waited for", n.name, n.endErr, what)
		case <-ctx.Done():
			return exit.New(exit.Again, "look at both logs", "waited %v for %s in vain; %s", limit, what, last)
		case <-t.C:
		}
	}
}

func describe(r api.Resource, err error, last string) string {
	if err != nil {
		if last != "" {
			return last
		}
		return err.Error()
	}
	s := fmt.Sprintf("%s is %s and %s, connection %s, disk %s", r.Name, r.Role, r.Status, r.Connection, r.Disk)
	if r.Reason != "" {
		s += " (" + r.Reason + ")"
	}
	return s
}

// describe is the state of the node for a failure's report.
func (n *node) describe() string {
	if n.cmd == nil {
		return "its daemon does not run"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	r, err := n.api.Resource(ctx, resource)
	return describe(r, err, "")
}

// syncSent asks the daemon's metrics how many bytes synchronisations moved.
func (n *node) syncSent(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+n.http+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		return 0, fmt.Errorf("metrics of %s: %w", n.name, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return 0, fmt.Errorf("metrics of %s: %w", n.name, err)
	}
	const name = "hast_resource_sync_sent_bytes_total{"
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, name) {
			continue
		}
		f := strings.Fields(line)
		v, err := strconv.ParseFloat(f[len(f)-1], 64)
		return int64(v), err
	}
	return 0, fmt.Errorf("metrics of %s: %s is missing", n.name, name)
}

// freePort finds a TCP port that is free on all the addresses.
func freePort(addresses ...string) (int, error) {
	const tries = 50
	var last error
	for range tries {
		l, err := net.Listen("tcp", net.JoinHostPort(addresses[0], "0"))
		if err != nil {
			return 0, exit.New(exit.CantCreate, "is the loopback interface up? ip link set lo up", "listen on %s: %w", addresses[0], err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		last = nil
		for _, a := range addresses[1:] {
			m, err := net.Listen("tcp", net.JoinHostPort(a, strconv.Itoa(port)))
			if err != nil {
				last = err
				break
			}
			m.Close()
		}
		l.Close()
		if last == nil {
			return port, nil
		}
	}
	return 0, exit.New(exit.CantCreate, "is the loopback interface up? ip link set lo up", "no port is free on all of %s: %w", strings.Join(addresses, ", "), last)
}
