package ledger

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"hastd/test/lab/nbdclient"
)

// Connect gives a connection to whoever serves the device now. It tries until it
// has one or ctx ends.
type Connect func(ctx context.Context) (*nbdclient.Client, error)

// LoadOptions describe what the workers do. Shares are per hundred requests.
type LoadOptions struct {
	Ledger  *Ledger
	Connect Connect
	Seed    uint64
	Workers int   // default 8
	MinIO   int64 // bytes, default 4096
	MaxIO   int64 // bytes, default 65536
	Flushes int   // default 4
	FUA     int   // default 2
	Zeroes  int   // default 2: half TRIM, half WRITE ZEROES
	Reads   int   // default 0; what is read is not judged, it is load
	// Pace is how long a worker rests after each request; default 0.
	Pace time.Duration
	// Answered, if set, is called after each request that was answered without an
	// error, by many goroutines.
	Answered func()
	// Retry is how long a worker rests after the server answered with an error;
	// default 5 ms.
	Retry time.Duration
}

// Load is a set of workers that write and record. They share one connection;
// when it ends they ask for another.
type Load struct {
	o      LoadOptions
	cancel context.CancelFunc
	ended  sync.WaitGroup

	acked atomic.Int64

	mu      sync.Mutex
	changed *sync.Cond
	client  *nbdclient.Client
	dialing bool
	busy    int // workers with a request under way
	paused  bool
	stopped bool
	lastErr error
}

// Start lets the workers go. They end with Stop, or when ctx does.
func Start(ctx context.Context, o LoadOptions) *Load {
	set := func(v *int, to int) {
		if *v == 0 {
			*v = to
		}
	}
	set(&o.Workers, 8)
	set(&o.Flushes, 4)
	set(&o.FUA, 2)
	set(&o.Zeroes, 2)
	if o.MinIO == 0 {
		o.MinIO = 4096
	}
	if o.MaxIO == 0 {
		o.MaxIO = 65536
	}
	if o.Retry == 0 {
		o.Retry = 5 * time.Millisecond
	}
	l := &Load{o: o}
	l.changed = sync.NewCond(&l.mu)
	ctx, l.cancel = context.WithCancel(ctx)
	for w := range o.Workers {
		l.ended.Go(func() { l.work(ctx, rand.New(rand.NewPCG(o.Seed, uint64(w)))) })
	}
	context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.stopped = true
		l.changed.Broadcast()
	})
	return l
}

// Stop ends the workers and the connection. Requests that were under way count
// as unanswered.
func (l *Load) Stop() {
	l.cancel()
	l.mu.Lock()
	c := l.client
	l.client = nil
	l.mu.Unlock()
	if c != nil {
		c.Abort()
	}
	l.ended.Wait()
}

// Acked is how many writes have been acknowledged.
func (l *Load) Acked() int64 { return l.acked.Load() }

// LastError is the last answer that was an error, or why connecting failed.
func (l *Load) LastError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastErr
}

// wait blocks until done says true (called with mu held) or ctx ends.
func (l *Load) wait(ctx context.Context, done func() bool) error {
	stop := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.changed.Broadcast()
	})
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for !done() {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		l.changed.Wait()
	}
	return nil
}

// WaitAcked waits until n more writes have been acknowledged than at the call.
func (l *Load) WaitAcked(ctx context.Context, n int64) error {
	want := l.acked.Load() + n
	return l.wait(ctx, func() bool { return l.acked.Load() >= want })
}

// WaitTotal waits until n writes have been acknowledged since Start.
func (l *Load) WaitTotal(ctx context.Context, n int64) error {
	return l.wait(ctx, func() bool { return l.acked.Load() >= n })
}

// Pause lets every worker finish its request and then rest. What is recorded
// when it returns is complete: no request is under way.
func (l *Load) Pause(ctx context.Context) error {
	l.mu.Lock()
	l.paused = true
	l.changed.Broadcast()
	l.mu.Unlock()
	return l.wait(ctx, func() bool { return l.busy == 0 })
}

// Disconnect ends the connection, as a client that dies does; with Pause before
// it, workers that wait for a server which hangs come to rest.
func (l *Load) Disconnect() {
	l.mu.Lock()
	c := l.client
	l.client = nil
	l.mu.Unlock()
	if c != nil {
		c.Abort()
	}
}

// Halt pauses and cuts the connection, so that it returns soon whatever the
// server does.
func (l *Load) Halt(ctx context.Context) error {
	l.mu.Lock()
	l.paused = true
	l.changed.Broadcast()
	l.mu.Unlock()
	l.Disconnect()
	return l.wait(ctx, func() bool { return l.busy == 0 })
}

// Resume lets the workers go on.
func (l *Load) Resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused = false
	l.changed.Broadcast()
}

// Flush flushes over the load's connection, and records it.
func (l *Load) Flush(ctx context.Context) error {
	c, err := l.o.Connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	f := l.o.Ledger.BeginFlush()
	call := &nbdclient.Call{Cmd: nbdclient.Flush, Done: make(chan *nbdclient.Call, 1)}
	c.Go(call)
	select {
	case <-call.Done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if call.Err == nil {
		l.o.Ledger.FlushAcked(f)
	}
	return call.Err
}

// take gives the connection for one request, or nil at the end.
func (l *Load) take(ctx context.Context) *nbdclient.Client {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.stopped || ctx.Err() != nil:
			return nil
		case l.paused || l.dialing:
			l.changed.Wait()
		case l.client != nil:
			l.busy++
			return l.client
		default:
			l.dialing = true
			l.mu.Unlock()
			c, err := l.o.Connect(ctx)
			l.mu.Lock()
			l.dialing = false
			if err != nil {
				l.lastErr = err
			} else if l.stopped {
				c.Abort()
			} else {
				l.client = c
			}
			l.changed.Broadcast()
			if err != nil && ctx.Err() == nil {
				l.mu.Unlock()
				rest(ctx, l.o.Retry)
				l.mu.Lock()
			}
		}
	}
}

func (l *Load) give(c *nbdclient.Client, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy--
	if err != nil {
		l.lastErr = err
	}
	if errors.Is(err, nbdclient.ErrDisconnected) && l.client == c {
		l.client = nil
		defer c.Abort()
	}
	l.changed.Broadcast()
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (l *Load) work(ctx context.Context, rng *rand.Rand) {
	buf := make([]byte, l.o.MaxIO)
	call := &nbdclient.Call{Done: make(chan *nbdclient.Call, 1)}
	for {
		c := l.take(ctx)
		if c == nil {
			return
		}
		err := l.request(c, call, buf, rng)
		l.give(c, err)
		if err == nil && l.o.Answered != nil {
			l.o.Answered()
		}
		if _, refused := errors.AsType[*nbdclient.ServerError](err); refused {
			rest(ctx, l.o.Retry)
		}
		if l.o.Pace > 0 {
			rest(ctx, l.o.Pace)
		}
	}
}

// request does one request and records it.
func (l *Load) request(c *nbdclient.Client, call *nbdclient.Call, buf []byte, rng *rand.Rand) error {
	led := l.o.Ledger
	do := func() error {
		c.Go(call)
		<-call.Done
		return call.Err
	}
	// A size that is a multiple of the smallest, at an offset that is too.
	unit := l.o.MinIO
	n := unit * (1 + rng.Int64N(l.o.MaxIO/unit))
	off := unit * rng.Int64N((led.Size()-n)/unit+1)
	*call = nbdclient.Call{Off: uint64(off), Done: call.Done}
	k := rng.IntN(100)
	if k < l.o.Flushes {
		call.Cmd, call.Off = nbdclient.Flush, 0
		f := led.BeginFlush()
		err := do()
		if err == nil {
			led.FlushAcked(f)
		}
		return err
	}
	if k -= l.o.Flushes; k < l.o.Reads {
		call.Cmd, call.Data = nbdclient.Read, buf[:n]
		return do()
	}
	k -= l.o.Reads
	kind := Data
	if k < l.o.Zeroes && c.Flags&(nbdclient.SendTrim|nbdclient.SendZeroes) == nbdclient.SendTrim|nbdclient.SendZeroes {
		kind = Zeroes
		call.Cmd, call.Len = nbdclient.Trim, uint32(n)
		if rng.IntN(2) == 0 {
			call.Cmd = nbdclient.WriteZeroes
		}
	}
	// TRIM is advice in the NBD protocol, and replication promises zeroes.
	fua := kind == Data && k-l.o.Zeroes < l.o.FUA && k >= l.o.Zeroes && c.Flags&nbdclient.SendFUA != 0
	id := led.Begin(kind, off, n, fua)
	if kind == Data {
		call.Cmd, call.Data = nbdclient.Write, buf[:n]
		led.Fill(call.Data, off, id)
	}
	if fua {
		call.Flags = nbdclient.FlagFUA
	}
	err := do()
	switch {
	case err == nil:
		led.Acked(id)
		l.acked.Add(1)
	case errors.Is(err, nbdclient.ErrDisconnected):
		led.Unanswered(id)
	default:
		led.Failed(id)
	}
	return err
}
