package lab

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// witnessName is the third node: it votes and stores nothing.
const witnessName = "charlie"

// witness is the third host's controller.
type witness struct {
	l     *Lab
	cmd   *exec.Cmd
	ended chan struct{}
}

func (l *Lab) witnessDir() string { return filepath.Join(l.o.Dir, witnessName) }

// StartWitness starts the third host's controller and waits until it answers.
func (l *Lab) StartWitness() error {
	lan, ok := l.net.(*LAN)
	if !ok || l.third != nil {
		return errors.New("lab: a witness needs a LAN, and there is one at most")
	}
	dir := l.witnessDir()
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, "vipd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	argv := inside(lan.client, l.o.Programs.Vipd, "-c", l.Nodes[Alpha].Config(), "--node", witnessName, "--log-level", l.o.LogLevel)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr, cmd.Stdout = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("lab: start the witness: %w", err)
	}
	w := &witness{l, cmd, make(chan struct{})}
	l.third = w
	go func() {
		cmd.Wait()
		close(w.ended)
	}()
	return poll(startLimit, func() (bool, error) {
		err := newAPI(filepath.Join(dir, "vipd.sock")).call(http.MethodGet, "/v1/version", time.Second, nil, nil)
		return err == nil, err
	})
}

// KillWitness ends it with SIGKILL.
func (l *Lab) KillWitness() error {
	w := l.third
	l.third = nil
	return w.kill()
}

func (w *witness) kill() error {
	w.cmd.Process.Kill()
	select {
	case <-w.ended:
		return nil
	case <-time.After(killLimit):
		return fmt.Errorf("lab: the witness still there %v after SIGKILL", killLimit)
	}
}

// WitnessLog is everything the witness has logged.
func (l *Lab) WitnessLog() string {
	b, _ := os.ReadFile(filepath.Join(l.witnessDir(), "vipd.log"))
	return string(b)
}
