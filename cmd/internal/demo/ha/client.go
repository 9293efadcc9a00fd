package ha

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"hastd/cmd/internal/demo/stage"
	"hastd/cmd/internal/exit"
)

// client is the demonstration's view of the client: its process, and every try it
// told of. It is also the ledger: what was answered counts.
type client struct {
	d     *demo
	seed  string
	cmd   *exec.Cmd
	ended chan struct{}

	mu    sync.Mutex
	tries []request
	acked uint32 // records 1 to acked were acknowledged
	wrong error  // in what it told
}

// maxTries bounds what is kept of the client: a try takes putEvery at least.
const maxTries = int(10 * time.Minute / putEvery)

func newSeed() string {
	b := make([]byte, 8)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// startClient begins to write.
func (d *demo) startClient() error {
	c := &client{d: d, seed: newSeed(), ended: make(chan struct{})}
	out, err := c.start("put", 0)
	if err != nil {
		return err
	}
	d.client = c
	d.left.Go(func() {
		c.follow(out)
		c.cmd.Wait()
		close(c.ended)
	})
	return nil
}

func (c *client) start(verb string, last uint32) (io.Reader, error) {
	log, err := os.OpenFile(c.d.path("client.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	argv := c.d.net.in(clients, c.d.Hastctl, "demo", "ha", "load", verb, net.JoinHostPort(serviceAddress, servicePort), c.seed, fmt.Sprint(last))
	c.cmd = exec.Command(argv[0], argv[1:]...)
	c.cmd.Stderr = log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, exit.New(exit.CantCreate, "", "start the client: %w", err)
	}
	return out, nil
}

// follow notes what the client tells.
func (c *client) follow(out io.Reader) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var r request
		err := json.Unmarshal(lines.Bytes(), &r)
		c.mu.Lock()
		switch {
		case err != nil:
			c.wrong = fmt.Errorf("what the client told: %w", err)
		case len(c.tries) == maxTries:
			c.wrong = errors.New("the client told too much")
		default:
			c.tries = append(c.tries, r)
			if r.OK {
				c.acked = max(c.acked, r.N)
			}
		}
		c.mu.Unlock()
	}
}

// seen is a copy of the tries so far, and how many records were acknowledged.
func (c *client) seen() ([]request, uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]request(nil), c.tries...), c.acked, c.wrong
}

// steady is how many answers, the last try one of them, say that it is over for the
// client: on a loaded machine one may fail now and then.
const steady = 5

// awaitSteady waits until the client was answered again and again since an instant.
func (c *client) awaitSteady(ctx context.Context, since, limit time.Duration) error {
	return stage.Poll(ctx, limit, pollEvery, "the client to be answered again", func() (bool, error) {
		c.d.Progress(-1, "waiting for answers to the client")
		select {
		case <-c.ended:
			return false, exit.New(exit.IO, "", "the client ended by itself: %s", stage.Tail(c.d.path("client.log"), 1))
		default:
		}
		tries, _, err := c.seen()
		if err != nil || len(tries) == 0 {
			return false, err
		}
		good := 0
		for i := len(tries) - 1; i >= 0 && tries[i].Begin > since; i-- {
			if tries[i].OK {
				good++
			}
		}
		last := tries[len(tries)-1]
		return good >= steady && last.OK && clock()-since > restFor, fmt.Errorf("its last try: %+v", last)
	})
}

// restFor is shown of the time after something: else the picture is all pauses.
const restFor = time.Second

// stop ends the writing.
func (c *client) stop() error {
	if c == nil || c.cmd == nil {
		return nil
	}
	c.cmd.Process.Signal(syscall.SIGTERM)
	if stage.Within(killLimit/2, func() error { <-c.ended; return nil }) == nil {
		return nil
	}
	c.cmd.Process.Kill()
	if err := stage.Within(killLimit/2, func() error { <-c.ended; return nil }); err != nil {
		return fmt.Errorf("the client (process %d): %w", c.cmd.Process.Pid, err)
	}
	return nil
}

// hintNever goes with what a user of the product must never see.
const hintNever = "this must never happen: run it again and look at the logs it shows"

// readBack reads every acknowledged record through the service address.
func (c *client) readBack(ctx context.Context) error {
	_, acked, err := c.seen()
	if err != nil {
		return err
	}
	if acked == 0 {
		return exit.New(exit.IO, "", "no write was acknowledged")
	}
	reader := &client{d: c.d, seed: c.seed, ended: make(chan struct{})}
	out, err := reader.start("get", acked)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { reader.cmd.Process.Kill() })
	defer stop()
	reader.follow(out)
	err = reader.cmd.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	read, _, wrong := reader.seen()
	if err = errors.Join(err, wrong); err != nil {
		return exit.New(exit.IO, "", "reading back: %w", err)
	}
	return judge(read, acked)
}

// judge wants records 1 to acked, each as it was written.
func judge(read []request, acked uint32) error {
	found := map[uint32]bool{}
	for _, r := range read {
		switch {
		case r.Lost != "":
			return exit.New(exit.IO, hintNever, "LOST: record %d of %d was acknowledged, and %s", r.N, acked, r.Lost)
		case !r.OK:
			return exit.New(exit.IO, "look at the logs", "record %d cannot be read back: %s", r.N, r.Error)
		}
		found[r.N] = true
	}
	for n := uint32(1); n <= acked; n++ {
		if !found[n] {
			return exit.New(exit.IO, "look at the logs", "record %d of %d was not read back", n, acked)
		}
	}
	return nil
}
