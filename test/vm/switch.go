package vm

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Switch is what machines are plugged into: a bridge in a network namespace of its own,
// so that nothing of it is seen outside. Programs of this host can run there, too.
type Switch struct {
	hold *exec.Cmd // while it lives, the namespace does

	mu   sync.Mutex
	next byte // of the cards' addresses
}

// NewSwitch makes one and gives this host an address on it (with /24).
func NewSwitch(address string) (*Switch, error) {
	s := &Switch{hold: exec.Command("unshare", "--net", "--", "sleep", "infinity")}
	s.hold.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.hold.Start(); err != nil {
		return nil, fmt.Errorf("a network namespace: %w", err)
	}
	err := s.made(time.Now().Add(switchLimit))
	for _, line := range []string{
		"ip link set lo up",
		"ip link add br0 type bridge mcast_snooping 0 stp_state 0 forward_delay 0",
		"ip addr add " + address + "/24 dev br0",
		"ip link set br0 up",
	} {
		if err == nil {
			err = s.run(line)
		}
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// switchLimit is for what takes moments.
const switchLimit = 10 * time.Second

// made waits until the holder has a namespace of its own.
func (s *Switch) made(until time.Time) error {
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	for {
		ns, err := os.Readlink(s.namespace())
		if err == nil && ns != own {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("no network namespace within %s: %w", switchLimit, err)
		}
		time.Sleep(time.Millisecond)
	}
}

func (s *Switch) namespace() string { return fmt.Sprintf("/proc/%d/ns/net", s.hold.Process.Pid) }

// Command wraps a command line so that it runs beside the switch.
func (s *Switch) Command(argv ...string) []string {
	return append([]string{"nsenter", "--net=" + s.namespace(), "--"}, argv...)
}

func (s *Switch) run(line string) error {
	argv := s.Command(strings.Fields(line)...)
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, out)
	}
	return nil
}

// plug makes a port with a name and gives the address of the card that is to be in it.
func (s *Switch) plug(port string) (net.HardwareAddr, error) {
	_ = s.run("ip link del " + port) // of a machine that was there before
	for _, line := range []string{"ip tuntap add " + port + " mode tap", "ip link set " + port + " master br0 up"} {
		if err := s.run(line); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	return net.HardwareAddr{0x52, 0x54, 0, 0, 0, s.next}, nil
}

// Visit runs a function beside the switch: the sockets that it opens stay there.
func (s *Switch) Visit(open func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(own)
	ns, err := unix.Open(s.namespace(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return err
	}
	defer func() {
		if err := unix.Setns(own, unix.CLONE_NEWNET); err != nil {
			panic("a thread cannot leave a namespace: " + err.Error())
		}
	}()
	return open()
}

// Close ends it. Machines must be gone.
func (s *Switch) Close() {
	_ = s.hold.Process.Kill() // it may have ended
	_ = s.hold.Wait()         // killed: its error says nothing
}
