package chaos

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// clients commit transactions through psql, which knows the server's answer to
// COMMIT before it prints that there was one.
type clients struct {
	n        int
	bin      string // PostgreSQL's programs
	as       *credential
	door     *door
	accounts *accounts
	meter    *meter

	ended sync.WaitGroup
	mu    sync.Mutex
	live  map[*session]struct{}
}

const (
	// clientCount is how many clients there are: some concurrency, and most of the
	// machine left to what is tested.
	clientCount = 3
	// clientPace is how long a client rests after a transaction. It bounds the
	// database's size too.
	clientPace = 10 * time.Millisecond
	// clientRetry is how long it rests when it was not let in.
	clientRetry = 50 * time.Millisecond
)

// session is one psql.
type session struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Scanner
	opening int
}

func (c *clients) start() {
	c.live = map[*session]struct{}{}
	for i := range c.n {
		c.ended.Go(func() { c.work(i) })
	}
}

// end ends them; their transactions count as unknown.
func (c *clients) end() {
	c.door.end()
	c.kill()
	c.ended.Wait()
}

// kill ends every psql.
func (c *clients) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.live {
		s.cmd.Process.Kill()
	}
}

func (c *clients) dial(socket string, opening int) (*session, error) {
	cmd := exec.Command(filepath.Join(c.bin, "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", socket, "-U", dbUser, "-d", dbUser)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.as, Pdeathsig: syscall.SIGKILL, Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &session{cmd, in, bufio.NewScanner(out), opening}
	c.mu.Lock()
	c.live[s] = struct{}{}
	c.mu.Unlock()
	// psql reads nothing before it is connected.
	if !s.ask(`\echo here`+"\n", "here") {
		c.hangUp(s)
		return nil, fmt.Errorf("chaos: psql was not let in at %s", socket)
	}
	return s, nil
}

// ask sends text and says whether the answer is as wanted.
func (s *session) ask(text, want string) bool {
	if _, err := io.WriteString(s.in, text); err != nil {
		return false
	}
	return s.out.Scan() && s.out.Text() == want
}

func (c *clients) hangUp(s *session) {
	s.cmd.Process.Kill()
	s.in.Close()
	s.cmd.Wait() // killed: its error says nothing
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.live, s)
}

// work is one client, until the door ends.
func (c *clients) work(client int) {
	var s *session
	defer func() {
		if s != nil {
			c.hangUp(s)
		}
	}()
	for {
		socket, opening, ok := c.door.enter()
		if !ok {
			return
		}
		if s != nil && s.opening != opening {
			c.hangUp(s)
			s = nil
		}
		if s == nil {
			s, _ = c.dial(socket, opening) // again in a moment
		}
		if s != nil && !c.transact(s, client) {
			c.hangUp(s)
			s = nil
		}
		c.door.leave()
		if s == nil {
			time.Sleep(clientRetry)
		} else {
			time.Sleep(clientPace)
		}
	}
}

// transact does one transaction: a row, and a counter that must agree.
func (c *clients) transact(s *session, client int) bool {
	id := c.accounts.begin(client)
	done := fmt.Sprintf("done %d", id)
	if !s.ask(fmt.Sprintf("BEGIN;\nINSERT INTO chaos VALUES (%d, %d, '%s');\nUPDATE chaos_client SET n = n + 1 WHERE client = %d;\nCOMMIT;\n\\echo %s\n",
		id, client, body(id), client, done), done) {
		c.accounts.end(id, unknown)
		return false
	}
	c.accounts.end(id, acked)
	c.meter.mark()
	return true
}

// query runs SQL as one script and gives what it printed, fields parted by "|".
func (c *clients) query(ctx context.Context, socket, sql string) (string, error) {
	out, err := command(ctx, c.as, sql, filepath.Join(c.bin, "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", socket, "-U", dbUser, "-d", dbUser)
	return strings.TrimSpace(out), err
}
