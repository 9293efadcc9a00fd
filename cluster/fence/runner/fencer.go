package runner

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hastd/cluster/fence"
)

// Watchdog is a countdown that resets the machine unless it is begun anew.
type Watchdog interface {
	// Counts is what it counts from one feed to the reset, which may be less than it was
	// asked for; 0: it does not say.
	Counts() time.Duration
	Feed() error
	// Disarm ends the countdown and closes the device. An error says that the machine
	// may be reset all the same.
	Disarm() error
}

// Host is what this machine goes down by.
type Host interface {
	// Warn writes a line to the kernel's log and so to the console. It must not wait.
	Warn(line string) error
	// Reset makes the machine go down. It returns only if that failed.
	Reset(how fence.Mode) error
}

// Part is something that has to answer for the watchdog to be fed.
type Part struct {
	Name  string
	Limit time.Duration
	// Alive says whether it answered before ctx ended.
	Alive func(ctx context.Context) bool
}

// Options of a Fencer.
type Options struct {
	Mode     fence.Mode // not off
	Program  string
	Node     string
	Timeout  time.Duration // of the watchdog; one that counts less is fed by that
	Parts    []Part
	Watchdog Watchdog
	Host     Host
	Log      *slog.Logger
}

// Status is what people see.
type Status struct {
	State    fence.State
	Feeds    uint64 // how often the watchdog was fed
	Withheld uint64 // how often a part made it go unfed
}

// Fencer runs the machine.
type Fencer struct {
	o       Options
	begin   time.Time
	machine *fence.Machine
	wake    int // an eventfd
	cancel  context.CancelFunc
	asking  sync.WaitGroup
	ended   chan struct{} // closed when the thread is gone

	mu     sync.Mutex
	events []fence.Event
	closed bool
	status Status
	sulks  bool // the watchdog refused the last feed
}

const (
	// askShare is how often a part is asked within its limit.
	askShare = 4
	// maxEvents bounds what waits for the thread; answers beyond it are lost, and asked
	// for again. Orders are never lost.
	maxEvents = 256
	// maxSleep bounds a wait of the thread: nothing depends on it.
	maxSleep = time.Minute
)

// Start begins to feed.
func Start(o Options) (*Fencer, error) {
	if d := o.Watchdog.Counts(); d > 0 {
		o.Timeout = min(o.Timeout, d)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	cfg := fence.Config{Mode: o.Mode, Program: o.Program, Node: o.Node, Timeout: fence.Duration(o.Timeout)}
	for _, p := range o.Parts {
		cfg.Parts = append(cfg.Parts, fence.Part{Name: p.Name, Limit: fence.Duration(p.Limit)})
	}
	f := &Fencer{o: o, begin: time.Now(), machine: fence.New(cfg), wake: wake, ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	go f.run()
	for i, p := range o.Parts {
		f.asking.Go(func() { f.ask(ctx, i, &p) })
	}
	return f, nil
}

// Order makes this machine go down. It does not wait for that.
func (f *Fencer) Order(group, reason string) {
	f.tell(fence.Event{Kind: fence.EvOrder, Group: group, Reason: reason})
}

// LeaseEnded is Order for a group whose lease is over.
func (f *Fencer) LeaseEnded(group string) {
	f.tell(fence.Event{Kind: fence.EvLeaseEnded, Group: group})
}

// Stop is the daemon's clean end: the countdown ends. It waits for that. A machine that
// was ordered to go down stays so.
func (f *Fencer) Stop() { f.end(fence.EvStopped) }

// Abandon is the end of a daemon that leaves something up: the countdown goes on, and
// nobody feeds it unless another daemon does.
func (f *Fencer) Abandon() { f.end(fence.EvAbandoned) }

func (f *Fencer) end(how fence.EventKind) {
	f.tell(fence.Event{Kind: how})
	<-f.ended
	f.cancel()
	f.asking.Wait()
}

// Status is what it is now.
func (f *Fencer) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

func (f *Fencer) tell(ev fence.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || ev.Kind == fence.EvAnswered && len(f.events) >= maxEvents {
		return
	}
	f.events = append(f.events, ev)
	f.ring()
}

// ring ends the thread's wait. A counter that is full is wake enough.
func (f *Fencer) ring() {
	one := [8]byte{1}
	_, _ = unix.Write(f.wake, one[:])
}

// ask asks one part again and again.
func (f *Fencer) ask(ctx context.Context, i int, p *Part) {
	for ctx.Err() == nil {
		limited, stop := context.WithTimeout(ctx, p.Limit)
		alive := p.Alive(limited)
		stop()
		if alive {
			f.tell(fence.Event{Kind: fence.EvAnswered, Part: i})
		}
		select {
		case <-ctx.Done():
		case <-time.After(p.Limit / askShare):
		}
	}
}

// run is the feeding thread. It stays locked: the thread ends with it, and so does the
// priority that nothing else must have.
func (f *Fencer) run() {
	defer close(f.ended)
	runtime.LockOSThread()
	if err := realtime(); err != nil {
		f.o.Log.Warn("the watchdog is fed without a real-time priority: a very busy machine may be reset", "reason", err)
	}
	batch := []fence.Event{{Kind: fence.EvTick}}
	var effects []fence.Effect
	for {
		done := false
		for _, ev := range batch {
			effects = f.machine.Step(f.now(), ev, effects[:0])
			for i := range effects {
				f.carryOut(&effects[i])
			}
			done = done || ev.Kind == fence.EvStopped || ev.Kind == fence.EvAbandoned
		}
		f.mu.Lock()
		f.status.State = f.machine.State()
		if done {
			f.closed = true
			unix.Close(f.wake)
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		f.sleep()
		batch = f.take(batch[:0])
	}
}

func (f *Fencer) now() fence.Instant { return fence.Instant(time.Since(f.begin)) + 1 }

// take gives what happened, at least that time passed.
func (f *Fencer) take(into []fence.Event) []fence.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	into = append(into, f.events...)
	f.events = f.events[:0]
	if len(into) == 0 {
		into = append(into, fence.Event{Kind: fence.EvTick})
	}
	return into
}

// sleep waits until something happened or the machine's deadline, in the kernel.
func (f *Fencer) sleep() {
	wait := maxSleep
	if at, ok := f.machine.Deadline(); ok {
		wait = min(max(time.Duration(at-f.now()), 0), maxSleep)
	}
	fds := []unix.PollFd{{Fd: int32(f.wake), Events: unix.POLLIN}}
	// Rounded up, lest it wakes just before its time again and again. A signal ends
	// the wait early, which does no harm.
	if n, _ := unix.Poll(fds, int(wait.Milliseconds())+1); n > 0 {
		var counter [8]byte
		_, _ = unix.Read(f.wake, counter[:])
	}
}

func (f *Fencer) carryOut(e *fence.Effect) {
	switch e.Kind {
	case fence.EffFeed:
		f.feed()
	case fence.EffTell:
		f.o.Log.Warn(e.Text)
	case fence.EffWarn:
		f.mu.Lock()
		f.status.Withheld++
		f.mu.Unlock()
		f.o.Log.Error(e.Text)
		_ = f.o.Host.Warn(e.Text) // the log has it, too
	case fence.EffFence:
		f.o.Log.Error(e.Text)
		if err := Now(f.o.Host, f.o.Mode, e.Text); err != nil {
			f.o.Log.Error("this machine could not be made to go down: the watchdog, which is not fed any more, will do it", "within", f.o.Timeout.String(), "reason", err)
		}
	case fence.EffDisarm:
		if err := f.o.Watchdog.Disarm(); err != nil {
			f.o.Log.Error("the watchdog could not be disarmed: this machine may be reset", "within", f.o.Timeout.String(), "reason", err)
		}
	}
}

func (f *Fencer) feed() {
	err := f.o.Watchdog.Feed()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.status.Feeds++
	}
	if was := f.sulks; was != (err != nil) {
		f.sulks = !was
		if err != nil {
			f.o.Log.Error("the watchdog could not be fed: this machine may be reset", "within", f.o.Timeout.String(), "reason", err)
		} else {
			f.o.Log.Warn("the watchdog is fed again")
		}
	}
}

// Now makes this machine go down at once: the line (of fence.Words) goes to the
// kernel's log first. It returns only if that failed.
func Now(h Host, how fence.Mode, line string) error {
	_ = h.Warn(line) // going down matters more than having said so
	return h.Reset(how)
}
