package disk

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// commandTimeout bounds one command to a disk's process.
const commandTimeout = 30 * time.Second

// Process is a disk served by a process of its own: the daemon's I/O to it does
// not depend on the test's process, and the test's death takes it down.
type Process struct {
	dir string

	cmd   *exec.Cmd
	stdin io.Closer
	ended chan struct{}
	err   error // why the process ended

	mu   sync.Mutex
	conn net.Conn
	in   *bufio.Scanner
}

// Start runs program (cmd/labdisk) for a disk described by o, with everything it
// needs below dir, which it makes. log gets what the process prints.
func Start(program, dir string, o Options, log io.Writer) (*Process, error) {
	if err := os.MkdirAll(filepath.Join(dir, "mnt"), 0o700); err != nil {
		return nil, err
	}
	desc, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	p := &Process{dir: dir, ended: make(chan struct{})}
	p.cmd = exec.Command(program, "--dir", dir, "--options", string(desc), "--until-stdin-ends")
	p.cmd.Stderr = log
	// Signals for the terminal's process group are for the test, which then ends
	// this process in its own order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.stdin = stdin
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("lab disk: start %s: %w", program, err)
	}
	ready, readErr := bufio.NewReader(stdout).ReadString('\n')
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	if ready != "ready\n" {
		return nil, errors.Join(fmt.Errorf("lab disk: %s did not come up (its log says why)", dir), readErr, p.Stop())
	}
	p.conn, err = net.Dial("unix", controlPath(dir))
	if err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	p.in = bufio.NewScanner(p.conn)
	return p, nil
}

func controlPath(dir string) string { return filepath.Join(dir, "control") }

// Path is the file that is the disk.
func (p *Process) Path() string { return filepath.Join(p.dir, "mnt", FileName) }

// Medium is the file behind the disk: what has been flushed.
func (p *Process) Medium() string { return filepath.Join(p.dir, "medium") }

// Control is the path of the control socket.
func (p *Process) Control() string { return controlPath(p.dir) }

// Do sends one command and waits for its answer.
func (p *Process) Do(c Command) (Stats, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line, err := json.Marshal(c)
	if err != nil {
		return Stats{}, err
	}
	p.conn.SetDeadline(time.Now().Add(commandTimeout))
	if _, err := p.conn.Write(append(line, '\n')); err != nil {
		return Stats{}, fmt.Errorf("lab disk: %s: %w", c.Do, err)
	}
	if !p.in.Scan() {
		return Stats{}, fmt.Errorf("lab disk: %s: no answer: %w", c.Do, errors.Join(p.in.Err(), io.ErrUnexpectedEOF))
	}
	var a Answer
	if err := json.Unmarshal(p.in.Bytes(), &a); err != nil {
		return Stats{}, err
	}
	if a.Error != "" {
		return Stats{}, fmt.Errorf("lab disk: %s: %s", c.Do, a.Error)
	}
	return *a.Stats, nil
}

// PowerLoss, PowerUp and the others are the commands of Disk.
func (p *Process) PowerLoss() error { return p.simple("powerloss") }

// PowerUp: see Disk.PowerUp.
func (p *Process) PowerUp() error { return p.simple("powerup") }

// Heal: see Disk.Heal.
func (p *Process) Heal() error { return p.simple("heal") }

// Freeze: see Disk.Freeze.
func (p *Process) Freeze() error { return p.simple("freeze") }

// Thaw: see Disk.Thaw.
func (p *Process) Thaw() error { return p.simple("thaw") }

// ResetStats: see Disk.ResetStats.
func (p *Process) ResetStats() error { return p.simple("resetstats") }

// Fail: see Disk.Fail.
func (p *Process) Fail(f Fault) error {
	_, err := p.Do(Command{Do: "fail", Fault: &f})
	return err
}

// Delay: see Disk.Delay. It has a resolution of a millisecond.
func (p *Process) Delay(by time.Duration) error {
	_, err := p.Do(Command{Do: "delay", DelayMS: by.Milliseconds()})
	return err
}

// Snapshot: see Disk.Snapshot.
func (p *Process) Snapshot(name string) error {
	_, err := p.Do(Command{Do: "snapshot", Name: name})
	return err
}

// Restore: see Disk.Restore.
func (p *Process) Restore(name string) error {
	_, err := p.Do(Command{Do: "restore", Name: name})
	return err
}

// Stats: see Disk.Stats.
func (p *Process) Stats() (Stats, error) { return p.Do(Command{Do: "stats"}) }

func (p *Process) simple(do string) error {
	_, err := p.Do(Command{Do: do})
	return err
}

// Stop ends the process; it unmounts first.
func (p *Process) Stop() error {
	if p.conn != nil {
		p.conn.Close()
	}
	p.stdin.Close()
	select {
	case <-p.ended:
	case <-time.After(15 * time.Second):
		p.cmd.Process.Kill()
		<-p.ended
	}
	return p.err
}

// Main is the program cmd/labdisk without its flags: it serves the disk below
// dir until ctx ends, and says "ready" on stdout.
func Main(ctx context.Context, dir string, o Options, stdout io.Writer) (err error) {
	if o.Path == "" {
		o.Path = filepath.Join(dir, "medium")
	}
	d, err := New(o)
	if err != nil {
		return err
	}
	defer d.Close()
	mnt := filepath.Join(dir, "mnt")
	if err := os.MkdirAll(mnt, 0o700); err != nil {
		return err
	}
	m, err := Serve(d, mnt)
	if err != nil {
		return err
	}
	defer func() {
		d.PowerLoss() // nothing may hang when the mount goes
		err = errors.Join(err, m.Close())
	}()
	os.Remove(controlPath(dir))
	l, err := net.Listen("unix", controlPath(dir))
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(stdout, "ready"); err != nil {
		return err
	}
	ServeControl(ctx, d, l)
	return nil
}
