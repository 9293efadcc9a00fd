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

// Node is one of the two machines: a daemon, its disk, its end of the link. It is
// for one goroutine, but for NBD, which load workers call.
type Node struct {
	Side Side
	Disk *disk.Process // of Resource
	// Cgroup is where the daemon runs from its next start on; nil: where the test
	// runs.
	Cgroup *Cgroup

	vipd   *vipd         // nil: not started
	second *disk.Process // of DeviceResource, if there is one
	lab    *Lab
	dir    string
	api    apiClient
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the daemon of cmd is gone
	err    error         // how it ended; valid after ended
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

// Alive says whether there is a daemon: started, and not ended by itself.
func (n *Node) Alive() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.ended:
		return false
	default:
		return true
	}
}

// Dir is the folder with everything of the node.
func (n *Node) Dir() string { return n.dir }

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
	for _, d := range n.disks() {
		if err := d.PowerLoss(); err != nil {
			return err
		}
	}
	if n.cmd != nil {
		return n.gone()
	}
	return nil
}

// PowerUp brings the node back: link, disk and daemon.
func (n *Node) PowerUp() error {
	for _, d := range n.disks() {
		if err := d.PowerUp(); err != nil {
			return err
		}
	}
	if err := n.lab.net.Cut(n.Side, CutNone); err != nil {
		return err
	}
	return n.Start()
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
