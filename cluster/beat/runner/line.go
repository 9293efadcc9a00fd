package runner

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"go.bug.st/serial"
	"golang.org/x/sys/unix"

	"hastd/cluster/beat"
)

// DefaultBaud is what both ends of the serial line are set to, with 8 data bits, no
// parity, one stop bit and no flow control.
const DefaultBaud = 115200

const (
	// lineShare is the part of the line's speed that heartbeats may use: one in so many.
	lineShare = 2
	// typicalFrame is about how long a heartbeat is there; for the interval only.
	typicalFrame = 256
	// maxLineQueue bounds frames that wait for the line.
	maxLineQueue = 2 * beat.MaxPieces
	// lineWait is how long a read waits before it looks whether it shall end.
	lineWait = 100 * time.Millisecond
	// lineRetry is the time between two tries to open the device.
	lineRetry = time.Second
	// lineFlush is how long a goodbye may take.
	lineFlush = 250 * time.Millisecond
	// lineStuck is how long a frame may wait for a line that takes nothing.
	lineStuck = 2 * time.Second
)

// serialInterval is how often a heartbeat goes to each node over the line: at the
// interval of the links if the line is fast enough for that.
func serialInterval(o Options, nodes int) beat.Duration {
	each := time.Second * typicalFrame * lineShare / time.Duration(max(o.Baud/10, 1))
	return beat.Duration(max(o.Interval, each*time.Duration(nodes)))
}

// line is the serial line. Frames wait in a short queue, heartbeats before messages:
// they go out as fast as the line takes them, and what has no room is lost.
type line struct {
	r *Runner

	mu    sync.Mutex
	beats [][]byte
	more  [][]byte
	wake  chan struct{}
}

func (r *Runner) newLine() *line { return &line{r: r, wake: make(chan struct{}, 1)} }

// send queues a packet. A heartbeat that did not leave yet is worth less than a newer
// one.
func (l *line) send(packet []byte, isBeat bool) {
	frame := beat.AppendFrame(nil, packet)
	l.mu.Lock()
	switch {
	case isBeat:
		if l.beats = append(l.beats, frame); len(l.beats) > beat.MaxNodes {
			l.beats = l.beats[1:]
		}
	case len(l.more) < maxLineQueue:
		l.more = append(l.more, frame)
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// next takes a frame, and says what is left.
func (l *line) next() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range []*[][]byte{&l.beats, &l.more} {
		if len(*q) > 0 {
			f := (*q)[0]
			*q = (*q)[1:]
			return f
		}
	}
	return nil
}

func (l *line) empty() {
	l.mu.Lock()
	l.beats, l.more = nil, nil
	l.mu.Unlock()
}

// flush waits until the frames have left, but not for long.
func (l *line) flush() {
	for end := time.Now().Add(lineFlush); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		l.mu.Lock()
		left := len(l.beats) + len(l.more)
		l.mu.Unlock()
		if left == 0 {
			return
		}
	}
}

// run opens the device, again whenever it vanishes, until ctx ends.
func (l *line) run(ctx context.Context) {
	said := ""
	for ctx.Err() == nil {
		err := l.use(ctx, func() {
			if said != "" {
				l.r.o.Log.Info("heartbeats: the serial line works again", "device", l.r.o.Self.Serial)
			}
			said = ""
		})
		if ctx.Err() != nil {
			return
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			l.r.o.Log.Warn("heartbeats: the serial line cannot be used", "device", l.r.o.Self.Serial, "error", said)
		}
		select {
		case <-ctx.Done():
		case <-time.After(lineRetry):
		}
	}
}

// use reads and writes one opening of the device.
func (l *line) use(ctx context.Context, opened func()) error {
	// The library's writes wait for the line, for ever if nobody takes anything at the
	// other end of it. A descriptor of its own, opened before the library has the
	// device to itself, does not wait.
	out, err := unix.Open(l.r.o.Self.Serial, unix.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer unix.Close(out)
	port, err := serial.Open(l.r.o.Self.Serial, &serial.Mode{BaudRate: l.r.o.Baud, DataBits: 8, Parity: serial.NoParity, StopBits: serial.OneStopBit})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	closeOnExec()
	if err := port.SetReadTimeout(lineWait); err != nil {
		return errors.Join(err, port.Close())
	}
	opened()
	l.empty()
	using, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var wrote error
	wg.Go(func() {
		defer stop()
		wrote = l.write(using, out)
	})
	// Only who reads closes the device: its number may be another file's a moment later.
	err = l.read(using, port)
	stop()
	wg.Wait()
	return errors.Join(err, wrote, port.Close())
}

// closeOnExec keeps what the library opened, without saying so itself, from the programs
// that this process starts: a service would have the line for as long as it lives. All else
// that is open here is not for them either. What is started in between has it still.
func closeOnExec() {
	const lastStandard = 2
	list, _ := os.ReadDir("/proc/self/fd")
	for _, f := range list {
		if fd, err := strconv.Atoi(f.Name()); err == nil && fd > lastStandard {
			unix.CloseOnExec(fd)
		}
	}
}

func (l *line) read(ctx context.Context, port serial.Port) error {
	var frames beat.Unframer
	gate := beat.NewGate(beat.NewCodec(l.r.o.Cluster, l.r.o.Key))
	self := beat.NodeID(l.r.o.Self.ID)
	buf := make([]byte, 4096)
	for ctx.Err() == nil {
		n, err := port.Read(buf)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		bad := frames.Read(buf[:n], func(b []byte) {
			p, fault := gate.Admit(boot(), beat.Anybody, self, b)
			if fault != beat.FaultNone {
				l.r.refuse(fault, beat.Serial, beat.Anybody, netip.AddrPort{})
				return
			}
			l.r.queue(p, beat.Serial)
		})
		l.r.noise.Add(uint64(bad))
	}
	return nil
}

// write sends frames at the line's speed at most: what waits in the kernel cannot be
// overtaken any more.
func (l *line) write(ctx context.Context, out int) error {
	perByte := 10 * time.Second / time.Duration(l.r.o.Baud)
	for {
		frame := l.next()
		if frame == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-l.wake:
			}
			continue
		}
		took := time.Duration(len(frame)) * perByte
		began := time.Now()
		for len(frame) > 0 {
			n, err := unix.Write(out, frame)
			switch {
			case n > 0:
				frame = frame[n:]
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				if time.Since(began) > lineStuck {
					frame = nil // nobody takes anything at the other end
				} else if !pause(ctx, 10*time.Millisecond) {
					return nil
				}
			default:
				return fmt.Errorf("write: %w", err)
			}
		}
		if !pause(ctx, took-time.Since(began)) {
			return nil
		}
	}
}

// pause waits; false: ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
