package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hastd/test/lab/disk"
	"hastd/test/lab/nbdclient"
)

// Resource is the name of the lab's one resource.
const Resource = "data"

// Node is one of the two machines: a daemon, its disk, its end of the link. It is
// for one goroutine, but for NBD, which load workers call.
type Node struct {
	Side Side
	Disk *disk.Process
	// Cgroup is where the daemon runs from its next start on; nil: where the test
	// runs.
	Cgroup *Cgroup

	lab   *Lab
	dir   string
	api   apiClient
	cmd   *exec.Cmd
	ended chan struct{} // closed when the daemon of cmd is gone
	err   error         // how it ended; valid after ended
}

func (n *Node) path(name string) string { return filepath.Join(n.dir, name) }

// Config is the path of the node's configuration.
func (n *Node) Config() string { return n.path("hast.toml") }

// Control is the path of the daemon's control socket.
func (n *Node) Control() string { return n.path("hastd.sock") }

// Socket is the path of the provider's NBD socket.
func (n *Node) Socket() string { return n.path("data.nbd") }

// LogPath is the file that has the daemon's log, over all its lives.
func (n *Node) LogPath() string { return n.path("hastd.log") }

// Log is everything the daemon has logged.
func (n *Node) Log() string {
	b, _ := os.ReadFile(n.LogPath())
	return string(b)
}

// PID is the daemon's process, 0 when there is none.
func (n *Node) PID() int {
	if n.cmd == nil {
		return 0
	}
	return n.cmd.Process.Pid
}

// Start starts the daemon and waits until it answers on its control socket.
func (n *Node) Start() error {
	if n.cmd != nil {
		return fmt.Errorf("lab: %v runs already", n.Side)
	}
	log, err := os.OpenFile(n.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(log, "---- start at %s\n", time.Now().Format("15:04:05.000"))
	argv := n.lab.net.Command(n.Side, n.lab.o.Programs.Hastd, "-c", n.Config(), "--node", n.Side.String(), "--log-level", n.lab.o.LogLevel)
	if n.Cgroup != nil {
		argv = n.Cgroup.Command(argv...)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr, cmd.Stdout = log, log
	cmd.Env = append(os.Environ(), n.lab.o.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("lab: start %v: %w", n.Side, err)
	}
	ended := make(chan struct{})
	n.cmd, n.ended, n.err = cmd, ended, nil
	go func() {
		err := cmd.Wait()
		n.err = err
		close(ended)
	}()
	err = poll(startLimit, func() (bool, error) {
		select {
		case <-ended:
			return true, nil
		default:
		}
		_, err := n.Status()
		return err == nil, err
	})
	select {
	case <-ended:
		n.cmd = nil
		return fmt.Errorf("lab: hastd on %v ended at once: %v\n%s", n.Side, n.err, n.LogTail(15))
	default:
	}
	if err != nil {
		return fmt.Errorf("lab: hastd on %v does not answer: %w", n.Side, err)
	}
	return nil
}

// Stop ends the daemon as systemd does and wants exit status 0.
func (n *Node) Stop() error {
	if n.cmd == nil {
		return nil
	}
	n.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.ended:
		n.cmd = nil
		if n.err != nil {
			return fmt.Errorf("lab: hastd on %v after SIGTERM: %w", n.Side, n.err)
		}
		return nil
	case <-time.After(stopLimit):
		return errors.Join(fmt.Errorf("lab: hastd on %v still runs %v after SIGTERM\n%s", n.Side, stopLimit, n.trace()), n.Kill())
	}
}

// trace asks a hanging daemon for its goroutines, through its log.
func (n *Node) trace() string {
	n.cmd.Process.Signal(syscall.SIGCONT)
	n.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-n.ended:
	case <-time.After(killLimit):
	}
	return n.LogTail(200)
}

// Kill ends the daemon with SIGKILL: the process is gone, the machine goes on.
func (n *Node) Kill() error {
	if n.cmd == nil {
		return nil
	}
	n.cmd.Process.Kill()
	return n.gone()
}

func (n *Node) gone() error {
	select {
	case <-n.ended:
		n.cmd = nil
		return nil
	case <-time.After(killLimit):
		return fmt.Errorf("lab: hastd on %v still there %v after SIGKILL (a disk that hangs?)", n.Side, killLimit)
	}
}

// Freeze stops the daemon in its tracks; nothing of it ends.
func (n *Node) Freeze() error { return n.cmd.Process.Signal(syscall.SIGSTOP) }

// Thaw lets it go on.
func (n *Node) Thaw() error { return n.cmd.Process.Signal(syscall.SIGCONT) }

// PowerLoss takes the node's power: nobody hears of it, its daemon is gone, and
// what its disk had not flushed is lost but for a random share.
func (n *Node) PowerLoss() error {
	if err := n.lab.net.Cut(n.Side, CutBoth); err != nil {
		return err
	}
	if n.cmd != nil {
		n.cmd.Process.Kill()
	}
	// Only now the disk: a daemon that saw its disk fail would tell its peer.
	// And before the daemon is gone: what hangs in the disk ends here.
	if err := n.Disk.PowerLoss(); err != nil {
		return err
	}
	if n.cmd != nil {
		return n.gone()
	}
	return nil
}

// PowerUp brings the node back: link, disk and daemon.
func (n *Node) PowerUp() error {
	if err := n.Disk.PowerUp(); err != nil {
		return err
	}
	if err := n.lab.net.Cut(n.Side, CutNone); err != nil {
		return err
	}
	return n.Start()
}

// Status asks the daemon.
func (n *Node) Status() (Status, error) {
	var s Status
	err := n.api.call("GET", "/v1/resources/"+Resource, 5*time.Second, nil, &s)
	return s, err
}

// commandLimit bounds one command to a daemon.
const commandLimit = 30 * time.Second

func (n *Node) command(name string, body any) error {
	err := n.api.call("POST", "/v1/resources/"+Resource+"/"+name, commandLimit, body, nil)
	if err != nil {
		return fmt.Errorf("%v: %s %v: %w", n.Side, name, body, err)
	}
	return nil
}

// Role changes the node's role.
func (n *Node) Role(role string, force bool) error {
	return n.command("role", map[string]any{"role": role, "force": force})
}

// Connect lets the resource connect to its peer.
func (n *Node) Connect() error { return n.command("connect", nil) }

// Disconnect ends that until Connect.
func (n *Node) Disconnect() error { return n.command("disconnect", nil) }

// Resume lets suspended I/O go on, or fail.
func (n *Node) Resume(withError bool) error {
	return n.command("resume", map[string]any{"error": withError})
}

// RecoverDiscard gives up this node's changes after a split-brain.
func (n *Node) RecoverDiscard() error {
	return n.command("recover", map[string]any{"discard_local": true})
}

// Wait waits until the status is as wanted.
func (n *Node) Wait(limit time.Duration, what string, want func(Status) bool) (Status, error) {
	var last Status
	err := poll(limit, func() (bool, error) {
		if n.cmd != nil {
			select {
			case <-n.ended:
				return true, nil
			default:
			}
		}
		s, err := n.Status()
		if err != nil {
			return false, err
		}
		last = s
		return want(s), nil
	})
	if err == nil && !want(last) {
		return last, fmt.Errorf("lab: hastd on %v is gone while waiting for %s: %v", n.Side, what, n.err)
	}
	if err != nil {
		return last, fmt.Errorf("lab: %v: waiting for %s: %w; it is: %v", n.Side, what, err, last)
	}
	return last, nil
}

// WaitStatus waits for a value of status.
func (n *Node) WaitStatus(status string, limit time.Duration) error {
	_, err := n.Wait(limit, "status "+status, func(s Status) bool { return s.Status == status })
	return err
}

// WaitConnection waits for a value of connection.
func (n *Node) WaitConnection(connection string, limit time.Duration) error {
	_, err := n.Wait(limit, "connection "+connection, func(s Status) bool { return s.Connection == connection })
	return err
}

// NBD opens the provider.
func (n *Node) NBD(ctx context.Context) (*nbdclient.Client, error) {
	return nbdclient.Dial(ctx, nbdclient.Options{Network: "unix", Addr: n.Socket(), Export: Resource})
}

// Hastctl runs hastctl for this node and gives what it printed and its status.
func (n *Node) Hastctl(args ...string) (stdout, stderr string, code int) {
	argv := n.lab.net.Command(n.Side, append([]string{n.lab.o.Programs.Hastctl, "-c", n.Config(), "--node", n.Side.String()}, args...)...)
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit+10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		code, errs = -1, *bytes.NewBufferString(err.Error())
	}
	return out.String(), errs.String(), code
}

// Create makes the node's replica.
func (n *Node) Create(args ...string) error {
	out, errs, code := n.Hastctl(append([]string{"create", Resource}, args...)...)
	if code != 0 {
		return fmt.Errorf("lab: hastctl create on %v: status %d: %s%s", n.Side, code, out, errs)
	}
	return nil
}

// RSS is the daemon's resident memory in bytes.
func (n *Node) RSS() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		var kb int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kb); err == nil {
			return kb << 10, nil
		}
	}
	return 0, fmt.Errorf("lab: no VmRSS of process %d", n.PID())
}

// LogTail is the end of the daemon's log.
func (n *Node) LogTail(lines int) string {
	all := strings.Split(strings.TrimRight(n.Log(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
