package vm

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options of a machine.
type Options struct {
	Dir   string            // that kernel.sh filled
	Files map[string][]byte // by absolute path; /init is the guest
	// Network is an Ethernet cable: two paths of sockets for frames, this end's first.
	// With it the machine has an interface eth0.
	Network [2]string
	// Switch is what eth0 is plugged into instead, at a port with a name.
	Switch *Switch
	Port   string
	// Disks are files: vda, vdb and so on.
	Disks []string
}

// Machine is one that runs.
type Machine struct {
	dir  string
	cmd  *exec.Cmd
	line net.Conn
	in   *bufio.Reader
	qmp  *qmp
	gone chan struct{} // closed when qemu ended
	Boot time.Duration // from the start of qemu to the guest's first word

	mu      sync.Mutex
	console []string
	changed chan struct{} // closed at the next line of the console
}

const (
	memory = "512" // MiB
	// processor is one without AVX: programs use that where they find it, and it is
	// slow when emulated. A boot takes a fifth less.
	processor = "Nehalem"
	// niceness keeps an emulated processor from slowing others down.
	niceness = 5
	// bootLimit is for a host that is busy with other things; idle it takes seconds.
	bootLimit = 5 * time.Minute
	// answerLimit likewise bounds an order to the guest, on top of what it waits for.
	answerLimit = time.Minute
	// maxConsole bounds what is kept, in lines.
	maxConsole = 10_000
)

// Start boots a machine and returns when its first process answers.
func Start(o Options) (*Machine, error) {
	dir, err := os.MkdirTemp("", "vm")
	if err != nil {
		return nil, err
	}
	m := &Machine{dir: dir, gone: make(chan struct{}), changed: make(chan struct{})}
	files := map[string][]byte{"/dev/x": nil} // the kernel mounts nothing where there is no folder
	for name, b := range o.Files {
		files[name] = b
	}
	modules := []string{"watchdog", "softdog"} // the second needs the first
	if o.Network[0] != "" || o.Switch != nil {
		modules = append(modules, "e1000")
	}
	if len(o.Disks) > 0 { // and a filesystem on them
		modules = append(modules, "virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk",
			"crc32c_generic", "crc16", "mbcache", "jbd2", "ext4")
	}
	for i, name := range modules {
		b, err := os.ReadFile(filepath.Join(o.Dir, "modules", name+".ko"))
		if err != nil {
			m.Close()
			return nil, err
		}
		files[fmt.Sprintf("/modules/%02d-%s.ko", i, name)] = b
	}
	if err := os.WriteFile(m.path("initrd"), cpio(files), 0o600); err != nil {
		m.Close()
		return nil, err
	}
	if err := m.boot(&o); err != nil {
		text := m.Console()
		m.Close()
		return nil, fmt.Errorf("%w; its console:\n%s", err, text)
	}
	return m, nil
}

func (m *Machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m *Machine) boot(o *Options) error {
	args := []string{
		"-accel", "tcg", "-cpu", processor, "-m", memory, "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none",
		"-action", "reboot=shutdown", // so that a reset ends it, and says why
		"-kernel", filepath.Join(o.Dir, "vmlinuz"), "-initrd", m.path("initrd"),
		"-append", "console=ttyS0 loglevel=5 panic=1 mitigations=off nokaslr",
		"-serial", "stdio",
		"-chardev", "socket,id=line,server=on,wait=off,path=" + m.path("line"), "-serial", "chardev:line",
		"-qmp", "unix:" + m.path("qmp") + ",server=on,wait=off",
	}
	if o.Network[0] != "" {
		args = append(args, "-device", "e1000,netdev=lan", "-netdev",
			fmt.Sprintf("dgram,id=lan,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s", o.Network[0], o.Network[1]))
	}
	for _, d := range o.Disks {
		// What a machine wrote is there for the next one: it is this host that lives on.
		args = append(args, "-drive", "if=virtio,format=raw,cache=unsafe,file="+d)
	}
	args = append([]string{"qemu-system-x86_64"}, args...)
	if o.Switch != nil {
		card, err := o.Switch.plug(o.Port)
		if err != nil {
			return err
		}
		args = o.Switch.Command(append(args, "-device", "e1000,netdev=lan,mac="+card.String(), "-netdev", "tap,id=lan,script=no,downscript=no,ifname="+o.Port)...)
	}
	m.cmd = exec.Command(args[0], args[1:]...)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	m.cmd.Stderr = m.cmd.Stdout
	began := time.Now()
	if err := m.cmd.Start(); err != nil {
		m.cmd = nil
		return err
	}
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, m.cmd.Process.Pid, niceness) // else it is only impolite
	go m.read(out)
	until := began.Add(bootLimit)
	if m.qmp, err = dialQMP(m.path("qmp"), until); err != nil {
		return err
	}
	if m.line, err = dial(m.path("line"), until); err != nil {
		return err
	}
	m.in = bufio.NewReader(m.line)
	if err := m.WaitConsole("guest: ready", bootLimit); err != nil {
		return err
	}
	m.Boot = time.Since(began)
	return nil
}

// read keeps the console until qemu ends.
func (m *Machine) read(out io.Reader) {
	in := bufio.NewReader(out)
	for {
		line, err := in.ReadString('\n')
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			m.mu.Lock()
			if len(m.console) < maxConsole {
				m.console = append(m.console, line)
			}
			close(m.changed)
			m.changed = make(chan struct{})
			m.mu.Unlock()
		}
		if err != nil {
			_ = m.cmd.Wait() // how it ended is asked of qmp
			close(m.gone)
			return
		}
	}
}

// Console is what stood there so far.
func (m *Machine) Console() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.console, "\n")
}

// WaitConsole waits for words on the console.
func (m *Machine) WaitConsole(words string, limit time.Duration) error {
	over := time.After(limit)
	for gone := false; ; {
		m.mu.Lock()
		changed, found := m.changed, strings.Contains(strings.Join(m.console, "\n"), words)
		m.mu.Unlock()
		switch {
		case found:
			return nil
		case gone:
			return fmt.Errorf("the machine went down without %q", words)
		}
		select {
		case <-changed:
		case <-m.gone:
			gone = true
		case <-over:
			return fmt.Errorf("no %q on the console within %s", words, limit)
		}
	}
}

// WaitReset waits until the machine was reset (and not switched off).
func (m *Machine) WaitReset(limit time.Duration) error {
	select {
	case <-m.gone:
	case <-time.After(limit):
		return fmt.Errorf("it was not reset within %s", limit)
	}
	if why := m.qmp.why(); why != "guest-reset" {
		return fmt.Errorf("it was not reset, but ended: %q", why)
	}
	return nil
}

// Pause stops the machine and its clocks; Resume lets it go on.
func (m *Machine) Pause() error { return m.qmp.do("stop") }

// Resume is the end of a pause.
func (m *Machine) Resume() error { return m.qmp.do("cont") }

// Order and Answer are those of test/vm/guest.
type Order struct {
	Op     string
	Args   []string
	Pid    int
	Number int
}

// Answer is what came of an order.
type Answer struct {
	Error string
	Pid   int
	Ended bool
	Code  int
	Text  string
}

// Do gives an order to the guest. Number is a time in milliseconds or a signal.
func (m *Machine) Do(o Order) (Answer, error) {
	var a Answer
	b, err := json.Marshal(o)
	if err != nil {
		return a, err
	}
	limit := answerLimit
	if o.Op == "sleep" || o.Op == "wait" {
		limit += 4 * time.Duration(o.Number) * time.Millisecond // its clock may be slow
	}
	if err := m.line.SetDeadline(time.Now().Add(limit)); err != nil {
		return a, err
	}
	if _, err := m.line.Write(append(b, '\n')); err != nil {
		return a, fmt.Errorf("guest: %s: %w", o.Op, err)
	}
	text, err := m.in.ReadBytes('\n')
	if err != nil {
		return a, fmt.Errorf("guest: %s: %w", o.Op, err)
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return a, fmt.Errorf("guest: %s: %q: %w", o.Op, text, err)
	}
	if a.Error != "" {
		return a, errors.New("guest: " + o.Op + ": " + a.Error)
	}
	return a, nil
}

// Close ends the machine and removes what it had.
func (m *Machine) Close() {
	if m.cmd != nil {
		_ = m.cmd.Process.Kill() // it may have ended
		<-m.gone
	}
	if m.line != nil {
		m.line.Close()
	}
	if m.qmp != nil {
		m.qmp.c.Close()
	}
	os.RemoveAll(m.dir)
}
