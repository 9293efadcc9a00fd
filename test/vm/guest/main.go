// Command guest is the first process of a test's machine: it mounts what programs
// expect, loads modules, and does what it is told over the second serial line, a line
// of JSON for each order and answer. It is also the service that vipd runs there:
// guest service start|stop|monitor FILE.
//
// It never ends by itself: that would be a panic of the kernel.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sort"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Order is what is wanted; Answer what came of it. The machine's side of test/vm.
type Order struct {
	Op     string // start signal wait read list remove sleep address send mount socket clocks reader readings
	Args   []string
	Pid    int
	Number int // a signal, or milliseconds
}

type Answer struct {
	Error string
	Pid   int
	Ended bool
	Code  int
	Text  string
}

// maxRead bounds a file that is read, in bytes.
const maxRead = 64 << 10

func main() {
	if len(os.Args) == 4 && os.Args[1] == "service" {
		os.Exit(service(os.Args[2], os.Args[3]))
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "usage: guest service start|stop|monitor FILE; or as the first process of a machine")
		os.Exit(64)
	}
	if err := prepare(); err != nil {
		fmt.Println("guest: error:", err)
	}
	line, err := open("/dev/ttyS1")
	if err != nil {
		fmt.Println("guest: error:", err)
	} else {
		fmt.Println("guest: ready")
		serve(line)
	}
	select {}
}

// service is one that is up while a file is there.
func service(what, file string) int {
	switch what {
	case "start":
		if os.WriteFile(file, nil, 0o600) != nil {
			return 1
		}
	case "stop":
		os.Remove(file)
	case "monitor":
		if _, err := os.Stat(file); err == nil {
			return 110
		}
		return 100
	}
	return 0
}

func prepare() error {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"}} {
		if err := os.MkdirAll(m[1], 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	names, err := os.ReadDir("/modules")
	if err != nil {
		return err
	}
	sort.Slice(names, func(i, j int) bool { return names[i].Name() < names[j].Name() })
	for _, n := range names {
		b, err := os.ReadFile("/modules/" + n.Name())
		if err != nil {
			return err
		}
		if err := unix.InitModule(b, ""); err != nil {
			return fmt.Errorf("module %s: %w", n.Name(), err)
		}
	}
	return up("lo", "")
}

// up gives an interface an address ("" if it has one) and switches it on.
func up(name, address string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if address != "" {
		if err := r.SetInet4Addr(net.ParseIP(address).To4()); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, r); err != nil {
			return fmt.Errorf("address of %s: %w", name, err)
		}
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		return fmt.Errorf("switch on %s: %w", name, err)
	}
	return nil
}

// open opens a serial line that hands every byte through.
func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag |= unix.CREAD | unix.CLOCAL
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return f, unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
}

func serve(line io.ReadWriter) {
	in := bufio.NewScanner(line)
	for in.Scan() {
		var o Order
		var a Answer
		if err := json.Unmarshal(in.Bytes(), &o); err != nil {
			a.Error = err.Error()
		} else if a, err = obey(&o); err != nil {
			a.Error = err.Error()
		}
		b, _ := json.Marshal(a)
		if _, err := line.Write(append(b, '\n')); err != nil {
			fmt.Println("guest: error:", err)
		}
	}
	fmt.Println("guest: the line ended:", in.Err())
}

// child is a program that was started.
type child struct {
	ended chan struct{}
	code  int
}

var (
	mu       sync.Mutex
	children = map[int]*child{}
)

func obey(o *Order) (Answer, error) {
	var a Answer
	if len(o.Args) == 0 && o.Op != "signal" && o.Op != "wait" && o.Op != "sleep" && o.Op != "clocks" {
		return a, fmt.Errorf("%s needs arguments", o.Op)
	}
	switch o.Op {
	case "start":
		c := exec.Command(o.Args[0], o.Args[1:]...)
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if err := c.Start(); err != nil {
			return a, err
		}
		x := &child{ended: make(chan struct{})}
		mu.Lock()
		children[c.Process.Pid] = x
		mu.Unlock()
		go func() {
			_ = c.Wait() // the code says it
			x.code = c.ProcessState.ExitCode()
			close(x.ended)
		}()
		a.Pid = c.Process.Pid
	case "signal":
		return a, unix.Kill(o.Pid, syscall.Signal(o.Number))
	case "wait": // for the end of one that was started
		mu.Lock()
		x := children[o.Pid]
		mu.Unlock()
		if x == nil {
			return a, fmt.Errorf("%d was not started here", o.Pid)
		}
		select {
		case <-x.ended:
			a.Ended, a.Code = true, x.code
		case <-time.After(time.Duration(o.Number) * time.Millisecond):
		}
	case "read":
		f, err := os.Open(o.Args[0])
		if err != nil {
			return a, err
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxRead))
		a.Text = string(b)
		return a, err
	case "list":
		names, err := os.ReadDir(o.Args[0])
		for _, n := range names {
			a.Text += n.Name() + "\n"
		}
		return a, err
	case "remove":
		return a, os.Remove(o.Args[0])
	case "sleep":
		time.Sleep(time.Duration(o.Number) * time.Millisecond)
	case "address": // INTERFACE ADDRESS
		return a, up(o.Args[0], o.Args[1])
	case "send": // ADDRESS:PORT TEXT
		c, err := net.Dial("udp", o.Args[0])
		if err != nil {
			return a, err
		}
		defer c.Close()
		_, err = io.WriteString(c, o.Args[1])
		return a, err
	case "mount": // DEVICE FOLDER TYPE
		if err := os.MkdirAll(o.Args[1], 0o755); err != nil {
			return a, err
		}
		return a, unix.Mount(o.Args[0], o.Args[1], o.Args[2], 0, "")
	case "socket": // ADDRESS:PORT PATH: whoever connects there is connected to the socket
		return a, lend(o.Args[0], o.Args[1])
	case "clocks":
		return clocks()
	case "reader": // ADDRESS:PORT EXPORT: reads from now on, as an application does
		go readAgain(o.Args[0], o.Args[1])
	case "readings": // SECONDS: what it read since then, by the battery's clock
		return readings(o.Args[0])
	default:
		return a, fmt.Errorf("nobody knows %q", o.Op)
	}
	return a, nil
}
