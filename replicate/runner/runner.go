package runner

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"hastd/blockdev"
	"hastd/metadata"
	"hastd/replicate"
	"hastd/transport"
)

// machine is what the owner drives: a *replicate.Machine.
type machine interface {
	Step(now replicate.Instant, batch []replicate.Event, out []replicate.Effect) []replicate.Effect
	Deadline() (replicate.Instant, bool)
	Status(now replicate.Instant) replicate.Status
}

// Resource is one resource on this node. It is a blockdev.Device for its provider.
type Resource struct {
	opts    Options
	machine machine
	box     *mailbox
	mem     *memories
	appMem  *blockdev.Arena
	peerMem *blockdev.Arena
	syncMem *blockdev.Arena
	link    *link
	watch   *observer
	born    time.Time
	booted  Boottime      // when the machine's clock began
	ended   chan struct{} // the owner has stopped
	stop    chan struct{} // the disk watch ends
	helpers sync.WaitGroup
	closing sync.Once

	// Read from anywhere.
	export     atomic.Pointer[export]
	holes      atomic.Pointer[holeCache]
	deviceSize atomic.Int64 // what messages of the peer must lie within
	role       atomic.Uint32
	current    atomic.Pointer[disk] // for the disk watch
	pinned     sync.Mutex
	pinnedDisk *disk // who uses it besides the owner counts in its pins
	commandID  atomic.Uint64

	// The owner's alone.
	events     []replicate.Event
	effects    []replicate.Effect
	front      front
	metrics    metrics
	disk       *disk
	ops        []*diskOp
	idleOps    []*diskOp
	ios        []*blockdev.IO
	failedOps  []*blockdev.IO
	out        []transport.Out
	session    *peerSession
	hashSeed   uint64
	maxRequest int64
	provider   blockdev.Provider
	answers    map[uint64]chan error
	grant      replicate.Grant // with quorum: what was granted last
	leaving    bool            // the device goes away
	turnAt     replicate.Instant
	armed      replicate.Instant // when the timer will go off; 0: it will not
	timer      *time.Timer
}

var _ blockdev.Device = (*Resource)(nil)

// New makes a resource in role init. It opens nothing yet; Close must be called.
func New(opts Options) (*Resource, error) {
	if err := opts.settle(); err != nil {
		return nil, err
	}
	r := &Resource{
		opts:       opts,
		born:       time.Now(),
		booted:     BootNow(),
		ended:      make(chan struct{}),
		stop:       make(chan struct{}),
		answers:    make(map[uint64]chan error),
		maxRequest: metadata.MinExtentSize,
	}
	r.box = newMailbox()
	for _, a := range []struct {
		to   **blockdev.Arena
		size int64
		max  int
	}{{&r.appMem, opts.AppMemory, 0}, {&r.peerMem, opts.PeerMemory, 0}, {&r.syncMem, opts.SyncMemory, replicate.WindowSize}} {
		arena, err := blockdev.NewArena(blockdev.ArenaOptions{Size: a.size, MaxAlloc: a.max, Log: opts.Log})
		if err != nil {
			r.closeArenas()
			return nil, fmt.Errorf("resource %s: %w", opts.Resource, err)
		}
		*a.to = arena
	}
	r.mem = newMemories(r.appMem)
	link, err := newLink(r)
	if err != nil {
		r.closeArenas()
		return nil, err
	}
	r.link = link
	r.watch = newObserver(&r.opts)
	if r.machine = opts.machine; r.machine == nil {
		r.machine = replicate.New(replicate.Config{
			Live: opts.Live, Resource: opts.Resource, Node: opts.Node, Peer: opts.Peer,
			NodeID: opts.NodeID, PeerID: opts.PeerID, Mode: opts.Mode, NeedLease: opts.NeedLease,
			Timeout: replicate.Instant(opts.Timeout), DiskTimeout: replicate.Instant(opts.DiskTimeout),
			Wall:   func(at replicate.Instant) int64 { return r.born.Add(time.Duration(at)).Unix() },
			Random: randomID,
		})
	}
	r.timer = time.AfterFunc(time.Hour, func() { r.box.event(replicate.Event{Kind: replicate.EvTick}) })
	r.timer.Stop()
	go r.run()
	r.helpers.Go(r.watchDisk)
	return r, nil
}

// Endpoint is what the node's listener hands this resource's sessions to; nil on
// the node that dials.
func (r *Resource) Endpoint() *transport.Endpoint { return r.link.endpoint }

func randomID() uint64 {
	for {
		var b [8]byte
		rand.Read(b[:]) // never fails: it ends the process instead
		if v := binary.LittleEndian.Uint64(b[:]); v != 0 {
			return v
		}
	}
}

// now is the machine's clock: it never jumps and is never zero.
func (r *Resource) now() replicate.Instant {
	if r.opts.NeedLease {
		return r.instant(BootNow())
	}
	return replicate.Instant(time.Since(r.born)) + 1
}

// Command gives the machine an order and waits for its answer: nil, or a
// *replicate.Refusal. When the context ends first the order still stands, and the
// answer says so. The end of a lease that is granted is a reading of CLOCK_BOOTTIME.
func (r *Resource) Command(ctx context.Context, c replicate.Command) error {
	return r.Order(c)(ctx)
}

// Order is Command in two steps: once it returns, what others order comes after this.
func (r *Resource) Order(c replicate.Command) (wait func(context.Context) error) {
	c.ID = r.commandID.Add(1)
	if c.Grant != nil {
		c.Grant = r.ownClock(*c.Grant)
	}
	answer := make(chan error, 1)
	ok := r.box.post(item{ev: replicate.Event{Kind: replicate.EvCommand, Command: &c}, answer: answer})
	return func(ctx context.Context) error {
		if !ok {
			return errClosing(r.opts.Resource)
		}
		return r.answered(ctx, answer)
	}
}

func (r *Resource) answered(ctx context.Context, answer <-chan error) error {
	select {
	case err := <-answer:
		return err
	case <-r.ended:
		return errClosing(r.opts.Resource)
	case <-ctx.Done():
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return ctx.Err()
		}
		return &replicate.Refusal{
			Code: replicate.RefusedBusy,
			Text: "resource " + r.opts.Resource + ": not done in time, it goes on in the background",
			Hint: "look at `hastctl status` and try again",
		}
	}
}

func errClosing(resource string) error {
	return &replicate.Refusal{Code: replicate.RefusedBusy, Text: "resource " + resource + " is being closed", Hint: "the daemon stops: start it again"}
}

// onOwner runs f on the owner and waits for it.
func (r *Resource) onOwner(ctx context.Context, f func()) error {
	done := make(chan struct{})
	if !r.box.post(item{call: func() { f(); close(done) }}) {
		return errClosing(r.opts.Resource)
	}
	select {
	case <-done:
		return nil
	case <-r.ended:
		return errClosing(r.opts.Resource)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pin keeps the component open until pins.Done; nil if there is none. Nobody waits for
// the lock as long as the component may hang.
func (r *Resource) pin() *disk {
	r.pinned.Lock()
	defer r.pinned.Unlock()
	if r.pinnedDisk != nil {
		r.pinnedDisk.pins.Add(1)
	}
	return r.pinnedDisk
}

// watchDisk tells the machine of a component that answers nothing any more. What
// hangs is left alone: its memory comes back if it ever ends.
func (r *Resource) watchDisk() {
	t := time.NewTicker(max(r.opts.DiskTimeout/8, time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-t.C:
		}
		d := r.current.Load()
		if d == nil || d.failed.Load() || d.silent() < r.opts.DiskTimeout {
			continue
		}
		d.failed.Store(true)
		r.box.event(replicate.Event{
			Kind: replicate.EvDiskFailed,
			Text: fmt.Sprintf("%s has not answered for %v (disk-timeout)", d.data.Path(), r.opts.DiskTimeout),
		})
	}
}

// Close stops cleanly as far as the context allows: the machine goes to role init,
// then the session, the provider and the component are closed. What a disk still
// hangs in after that is left behind, and the error says so.
func (r *Resource) Close(ctx context.Context) error {
	var err error
	r.closing.Do(func() { err = r.shutDown(ctx) })
	return err
}

func (r *Resource) shutDown(ctx context.Context) error {
	err := r.orderShutdown(ctx)
	// If the order was not carried out: who loses the peer first goes on alone for those
	// whose requests are under way.
	var provider blockdev.Provider
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer cancel()
	if e := r.onOwner(grace, func() { provider = r.provider; r.provider = nil }); e == nil && provider != nil {
		r.tellCut(provider)
		if cerr := provider.Close(true); err == nil && cerr != nil {
			err = cerr
		}
	}
	r.link.close()
	close(r.stop)
	r.appMem.Close() // whoever waits for memory in order to submit goes home
	r.box.close()
	<-r.ended
	if r.provider != nil { // it was still starting when it was looked for above
		r.cut(r.provider)
	}
	hung := !within(2*closeGrace, waited(&r.helpers))
	if d := r.disk; d != nil { // the machine did not come to closing it
		hung = !within(closeGrace, r.release(d)) || hung
	}
	r.watch.close()
	r.closeArenas()
	if hung {
		err = errors.Join(err, fmt.Errorf("resource %s: %s still hangs in an operation and was left behind", r.opts.Resource, r.opts.Component))
	}
	return err
}

// orderShutdown orders it again while another order is being carried out: a primary that
// lost its session first would go on alone.
func (r *Resource) orderShutdown(ctx context.Context) error {
	for {
		err := r.Command(ctx, replicate.Command{Kind: replicate.CmdShutdown})
		var no *replicate.Refusal
		if !errors.As(err, &no) || no.Code != replicate.RefusedBusy {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-r.ended:
			return err
		case <-time.After(orderAgain):
		}
	}
}

func (r *Resource) closeArenas() {
	for _, a := range []*blockdev.Arena{r.appMem, r.peerMem, r.syncMem} {
		if a != nil {
			a.Close()
		}
	}
}

func waited(wg *sync.WaitGroup) <-chan struct{} {
	c := make(chan struct{})
	go func() { wg.Wait(); close(c) }()
	return c
}

func within(d time.Duration, c <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c:
		return true
	case <-t.C:
		return false
	}
}
