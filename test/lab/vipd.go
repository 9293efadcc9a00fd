package lab

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// ServiceAddress is the address of the lab's group.
const ServiceAddress = "10.77.0.100"

// GroupName is the lab's group.
const GroupName = "data"

// vipd is a running controller.
type vipd struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // valid after ended
}

func (v *vipd) kill() error {
	v.cmd.Process.Kill()
	select {
	case <-v.ended:
		return nil
	case <-time.After(killLimit):
		return fmt.Errorf("lab: vipd still there %v after SIGKILL", killLimit)
	}
}

// VipdControl is the path of the controller's control socket.
func (n *Node) VipdControl() string { return n.path("vipd.sock") }

// App is the file that stands for the group's service while it runs.
func (n *Node) App() string { return n.path("app") }

// Mount is where the group mounts its filesystem on the node, if it has one.
func (n *Node) Mount() string { return n.path("mnt") }

// VipdLog is everything the controller has logged.
func (n *Node) VipdLog() string {
	b, _ := os.ReadFile(n.path("vipd.log"))
	return string(b)
}

// StartVipd starts the controller and waits until it answers.
func (n *Node) StartVipd() error {
	if n.vipd != nil {
		return fmt.Errorf("lab: vipd on %v runs already", n.Side)
	}
	log, err := os.OpenFile(n.path("vipd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(log, "---- start at %s\n", time.Now().Format("15:04:05.000"))
	argv := n.lab.net.Command(n.Side, n.lab.o.Programs.Vipd, "-c", n.Config(), "--node", n.Side.String(), "--log-level", n.lab.o.LogLevel)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr, cmd.Stdout = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("lab: start vipd on %v: %w", n.Side, err)
	}
	v := &vipd{cmd: cmd, ended: make(chan struct{})}
	n.vipd = v
	go func() {
		v.err = cmd.Wait()
		close(v.ended)
	}()
	return poll(startLimit, func() (bool, error) {
		select {
		case <-v.ended:
			n.vipd = nil
			return true, fmt.Errorf("lab: vipd on %v ended at once: %v\n%s", n.Side, v.err, n.VipdLog())
		default:
		}
		err := newAPI(n.VipdControl()).call(http.MethodGet, "/v1/version", 5*time.Second, nil, nil)
		return err == nil, err
	})
}

// StopVipd ends the controller as systemd does and wants exit status 0.
func (n *Node) StopVipd() error { return n.stopVipd(stopLimit) }

func (n *Node) stopVipd(limit time.Duration) error {
	v := n.vipd
	n.vipd = nil
	v.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-v.ended:
		if v.err != nil {
			return fmt.Errorf("lab: vipd on %v after SIGTERM: %w", n.Side, v.err)
		}
		return nil
	case <-time.After(limit):
		return errors.Join(fmt.Errorf("lab: vipd on %v still runs %v after SIGTERM", n.Side, limit), v.kill())
	}
}

// KillVipd ends the controller with SIGKILL.
func (n *Node) KillVipd() error {
	v := n.vipd
	n.vipd = nil
	return v.kill()
}

// Group is the lab's group on a node, as vipd tells it.
type Group struct {
	State, Reason, Fault, Online string
	Elected                      bool
	Parts                        []struct{ Name, State, Reason string }
}

func (g Group) String() string {
	return fmt.Sprintf("%s (elected %v, %s) %v", g.State, g.Elected, g.Reason, g.Parts)
}

// Group asks the controller.
func (n *Node) Group() (Group, error) {
	var g Group
	err := newAPI(n.VipdControl()).call(http.MethodGet, "/v1/groups/"+GroupName, 5*time.Second, nil, &g)
	return g, err
}

func (l *Lab) other(n *Node) *Node { return l.Nodes[n.Side.Other()] }

// HasAddress says whether the service address stands on the node.
func (n *Node) HasAddress() bool { return n.where(n.lab.o.Service) != "" }

// where is the interface of the node that an address stands on, "" for none.
func (n *Node) where(address string) string {
	argv := n.lab.net.Command(n.Side, "ip", "-o", "addr", "show")
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); strings.Contains(line, " "+address+"/") && len(f) > 1 {
			return f[1]
		}
	}
	return ""
}

// HasApp says whether the group's service runs on the node.
func (n *Node) HasApp() bool {
	_, err := os.Stat(n.App())
	return err == nil
}

// WaitGroup waits until the group is in a state on the node.
func (n *Node) WaitGroup(state string, limit time.Duration) error {
	var last Group
	err := poll(limit, func() (bool, error) {
		g, err := n.Group()
		last = g
		return err == nil && g.State == state, err
	})
	if err != nil {
		return fmt.Errorf("lab: %v: waiting for the group to be %s: %w; it is %v", n.Side, state, err, last)
	}
	return nil
}

// VIP is the election's part of the lab's group, as vipd tells it.
type VIP struct{ State, Interface string }

// VIP asks the controller.
func (n *Node) VIP() (VIP, error) {
	var all struct{ VIPs []VIP }
	err := newAPI(n.VipdControl()).call(http.MethodGet, "/v1/vip", 5*time.Second, nil, &all)
	if err == nil && len(all.VIPs) != 1 {
		err = fmt.Errorf("lab: %v tells of %d elections", n.Side, len(all.VIPs))
	}
	if err != nil {
		return VIP{}, err
	}
	return all.VIPs[0], nil
}

// WaitVIP waits until the election is in a state on the node.
func (n *Node) WaitVIP(state string, limit time.Duration) error {
	var last VIP
	err := poll(limit, func() (bool, error) {
		v, err := n.VIP()
		last = v
		return err == nil && v.State == state, err
	})
	if err != nil {
		return fmt.Errorf("lab: %v: waiting for the election to be %s: %w; it is %v", n.Side, state, err, last)
	}
	return nil
}

// KillBoth ends both daemons with SIGKILL at one instant: the machine goes on.
func (n *Node) KillBoth() error {
	n.vipd.cmd.Process.Kill()
	n.cmd.Process.Kill()
	return errors.Join(n.KillVipd(), n.gone())
}

// FreezeVipd stops the controller in its tracks; ThawVipd lets it go on.
func (n *Node) FreezeVipd() error { return n.vipd.cmd.Process.Signal(syscall.SIGSTOP) }

// ThawVipd lets it go on.
func (n *Node) ThawVipd() error { return n.vipd.cmd.Process.Signal(syscall.SIGCONT) }
