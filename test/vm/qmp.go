package vm

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// qmp speaks with qemu itself (QEMU Machine Protocol).
type qmp struct {
	c       net.Conn
	answers chan json.RawMessage
	mu      sync.Mutex
	ended   string // why the machine went down, in qemu's words
}

// qmpLimit bounds an answer of qemu: it is one of a loaded host.
const qmpLimit = 30 * time.Second

func dialQMP(path string, until time.Time) (*qmp, error) {
	c, err := dial(path, until)
	if err != nil {
		return nil, err
	}
	q := &qmp{c: c, answers: make(chan json.RawMessage, 1)}
	go q.read()
	if err := q.do("qmp_capabilities"); err != nil {
		c.Close()
		return nil, err
	}
	return q, nil
}

func (q *qmp) read() {
	defer close(q.answers)
	in := bufio.NewScanner(q.c)
	for in.Scan() {
		var m struct {
			Event  string
			Return json.RawMessage
			Error  *struct{ Desc string }
			Data   struct{ Reason string }
		}
		if json.Unmarshal(in.Bytes(), &m) != nil {
			continue
		}
		switch {
		case m.Event == "SHUTDOWN":
			q.mu.Lock()
			q.ended = m.Data.Reason
			q.mu.Unlock()
		case m.Error != nil:
			q.answers <- json.RawMessage(m.Error.Desc)
		case m.Return != nil:
			q.answers <- nil
		}
	}
}

func (q *qmp) do(command string) error {
	q.mu.Lock()
	_, err := fmt.Fprintf(q.c, "{\"execute\":%q}\n", command)
	q.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case a, ok := <-q.answers:
		switch {
		case !ok:
			return errors.New("qemu ended")
		case a != nil:
			return fmt.Errorf("qemu: %s: %s", command, a)
		}
		return nil
	case <-time.After(qmpLimit):
		return fmt.Errorf("qemu: %s: no answer within %s", command, qmpLimit)
	}
}

func (q *qmp) why() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ended
}

// dial waits for a socket that qemu has yet to make.
func dial(path string, until time.Time) (net.Conn, error) {
	for {
		c, err := net.Dial("unix", path)
		if err == nil || time.Now().After(until) {
			return c, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}
