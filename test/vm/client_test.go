package vm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"hastd/test/lab/nbdclient"
)

// client is one of a node that never gives up: it writes and reads there as soon as, and
// as long as, somebody answers, and notes by this host's clock when. Each of its writes
// goes to a place of its own, so that what was acknowledged can be asked for at any time
// later, whoever wrote elsewhere. One register, which the clients of both nodes write in
// turn, tells whether a read was of the past.
type client struct {
	sw       *Switch
	addr     string
	seed     uint64 // 1, 2: whose places
	register *atomic.Uint64

	end  context.CancelFunc
	wait sync.WaitGroup

	mu    sync.Mutex
	conn  *nbdclient.Client
	next  int
	asked []*request
}

type request struct {
	kind           kind
	place          int
	value          uint64 // of the register
	sent, answered time.Time
	err            error
}

type kind byte

const (
	write   kind = iota // to a place of its own
	advance             // write the register
	look                // read the register
)

func (k kind) String() string { return [...]string{"write", "write of the register", "read"}[k] }

const (
	block     = 4096
	places    = 7000 // of each client; what is more than that is not written
	writers   = 3
	pause     = 100 * time.Millisecond // of a worker, after each request
	dialEvery = 200 * time.Millisecond
	dialLimit = 5 * time.Second
	// readAtOnce is how many places one request of keeps reads.
	readAtOnce = 64
	readLimit  = 2 * time.Minute
)

func newClient(sw *Switch, addr string, seed uint64, register *atomic.Uint64) *client {
	c := &client{sw: sw, addr: addr, seed: seed, register: register}
	ctx, end := context.WithCancel(context.Background())
	c.end = end
	c.wait.Go(func() { c.dial(ctx) })
	kinds := []kind{advance, look}
	for range writers {
		kinds = append(kinds, write)
	}
	for _, k := range kinds {
		c.wait.Go(func() { c.work(ctx, k) })
	}
	return c
}

func (c *client) close() {
	c.end()
	c.cut()
	c.wait.Wait()
	c.cut()
}

// cut ends the connection: what has no answer gets none.
func (c *client) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.conn.Abort()
		c.conn = nil
	}
}

// dial connects whenever there is no connection.
func (c *client) dial(ctx context.Context) {
	for ; ctx.Err() == nil; rest(ctx, dialEvery) {
		if c.current() != nil {
			continue
		}
		_ = c.sw.Visit(func() error {
			conn, err := nbdclient.Dial(ctx, nbdclient.Options{Network: "tcp", Addr: c.addr, Export: "data", Timeout: dialLimit})
			if err != nil {
				return err // nobody serves there: the usual state of one of the two
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.conn = conn
			return nil
		})
	}
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (c *client) current() *nbdclient.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn
}

func (c *client) work(ctx context.Context, k kind) {
	for ; ctx.Err() == nil; rest(ctx, pause) {
		conn := c.current()
		if conn == nil {
			continue
		}
		if r := c.ask(conn, k); r == nil {
			return
		} else if errors.Is(r.err, nbdclient.ErrDisconnected) {
			c.mu.Lock()
			if c.conn == conn {
				conn.Abort()
				c.conn = nil
			}
			c.mu.Unlock()
		}
	}
}

// ask does one request and notes it; nil: there is no place left.
func (c *client) ask(conn *nbdclient.Client, k kind) *request {
	r := &request{kind: k}
	call := &nbdclient.Call{Cmd: nbdclient.Write, Data: make([]byte, block), Done: make(chan *nbdclient.Call, 1)}
	c.mu.Lock()
	switch k {
	case write:
		if c.next == places {
			c.mu.Unlock()
			return nil
		}
		r.place = c.next
		c.next++
		call.Off = c.offset(r.place)
		copy(call.Data, c.stamp(r.place))
	case advance:
		r.value = c.register.Add(1)
		binary.LittleEndian.PutUint64(call.Data, r.value)
	case look:
		call.Cmd = nbdclient.Read
	}
	r.sent = time.Now()
	c.asked = append(c.asked, r)
	c.mu.Unlock()
	conn.Go(call)
	<-call.Done
	c.mu.Lock()
	defer c.mu.Unlock()
	r.answered, r.err = time.Now(), call.Err
	if k == look {
		r.value = binary.LittleEndian.Uint64(call.Data)
	}
	return r
}

// late sends requests over the connection that stands, and does not wait for answers.
func (c *client) late(n int) int {
	conn := c.current()
	if conn == nil {
		return 0
	}
	for range n {
		for _, k := range []kind{write, look} {
			c.wait.Go(func() { c.ask(conn, k) })
		}
	}
	return n
}

func (c *client) offset(place int) uint64 {
	return block * (1 + (c.seed-1)*places + uint64(place))
}

func (c *client) stamp(place int) []byte {
	b := make([]byte, block)
	for i := 0; i < block; i += 16 {
		binary.LittleEndian.PutUint64(b[i:], c.seed<<56|uint64(place)+1)
		binary.LittleEndian.PutUint64(b[i+8:], uint64(i))
	}
	return b
}

// good are the requests of a kind that were answered well after a time.
func (c *client) good(after time.Time, kinds ...kind) (all []request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.asked {
		for _, k := range kinds {
			if r.kind == k && !r.answered.IsZero() && r.err == nil && r.answered.After(after) {
				all = append(all, *r)
			}
		}
	}
	return all
}

// first waits for so many acknowledgements after a time, and gives the time of the first.
func (c *client) first(after time.Time, n int, limit time.Duration) (time.Time, error) {
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		all := c.good(after, write, advance)
		if len(all) >= n {
			first := all[0].answered
			for _, r := range all {
				if r.answered.Before(first) {
					first = r.answered
				}
			}
			return first, nil
		}
		if time.Now().After(end) {
			return time.Time{}, fmt.Errorf("%s acknowledged %d writes within %s, not %d", c.addr, len(all), limit, n)
		}
	}
}

// last is the time of the last acknowledgement before a time.
func (c *client) last(before time.Time) (last time.Time) {
	for _, r := range c.good(time.Time{}, write, advance) {
		if r.answered.After(last) && r.answered.Before(before) {
			last = r.answered
		}
	}
	return last
}

// newest is the register as it was acknowledged before a time.
func (c *client) newest(before time.Time) (newest uint64) {
	for _, r := range c.good(time.Time{}, advance) {
		if r.answered.Before(before) {
			newest = max(newest, r.value)
		}
	}
	return newest
}

// keeps wants everything that a client's node acknowledged to be there, as this one's
// node reads it.
func (c *client) keeps(of *client) (n int, err error) {
	var conn *nbdclient.Client
	err = c.sw.Visit(func() (err error) {
		conn, err = nbdclient.Dial(context.Background(), nbdclient.Options{Network: "tcp", Addr: c.addr, Export: "data", Timeout: dialLimit})
		return err
	})
	if err != nil {
		return 0, err
	}
	defer conn.Abort()
	stuck := time.AfterFunc(readLimit, conn.Abort)
	defer stuck.Stop()
	var b []byte
	from := places // of what b has
	for _, r := range of.good(time.Time{}, write) {
		if r.place < from || r.place >= from+readAtOnce {
			from = r.place
			b = make([]byte, block*min(readAtOnce, places-from))
			if _, err := conn.ReadAt(b, int64(of.offset(from))); err != nil {
				return n, err
			}
		}
		if at := block * (r.place - from); !bytes.Equal(b[at:at+block], of.stamp(r.place)) {
			return n, fmt.Errorf("write %d of %s, acknowledged at %s, is not at %s: %x", r.place, of.addr, r.answered.Format("15:04:05.000"), c.addr, b[at:at+16])
		}
		n++
	}
	return n, nil
}
