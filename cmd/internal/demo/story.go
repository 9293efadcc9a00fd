package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/exit"
)

// syncLimit bounds the waiting for a synchronisation to end.
const syncLimit = 2 * time.Minute

// story plays all chapters.
func (d *demo) story(ctx context.Context) error {
	for _, chapter := range []func(context.Context) error{
		d.create, d.mirror, d.fill, d.strike, d.takeOver, d.comeBack, d.compareFirst, d.part, d.recover, d.end,
	} {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	if d.Sabotage != "" {
		return exit.New(exit.Internal, "the demonstration is not worth its name: mend it", "the sabotage %s was not found", d.Sabotage)
	}
	d.Clear()
	fmt.Fprintf(d.Out, "\nNothing that was acknowledged is lost, and both replicas are equal (%.0f seconds).\n", time.Since(d.Began()).Seconds())
	return nil
}

// scale is how much is written, in files and bytes.
func (d *demo) scale(files int, bytes int64) (int, int64) {
	if d.Quick {
		files, bytes = files/4, bytes/4
	}
	return files, min(bytes, d.Size/8)
}

func (d *demo) create(ctx context.Context) error {
	d.Chapter("Two nodes are made, alpha and bravo")
	if err := d.prepare(ctx); err != nil {
		return err
	}
	for _, n := range d.nodes {
		out, err := n.hastctl(ctx, "create", resource, "--size", fmt.Sprintf("%dMiB", d.Size>>20))
		if err != nil {
			return err
		}
		d.Quote(out)
	}
	for _, n := range d.nodes {
		if err := n.start(ctx); err != nil {
			return err
		}
		d.Say("hastd runs as %s, process %d.", n.name, n.cmd.Process.Pid)
	}
	return d.awaitBoth(ctx, commandLimit, "both nodes to connect", func(r api.Resource) bool {
		return r.Role == "secondary" && r.Connection == "connected"
	})
}

// awaitBoth waits on both nodes, one after the other.
func (d *demo) awaitBoth(ctx context.Context, limit time.Duration, what string, want func(api.Resource) bool) error {
	for _, n := range d.nodes {
		if err := n.await(ctx, limit, what+", seen by "+n.name, want); err != nil {
			return err
		}
	}
	return nil
}

func complete(r api.Resource) bool {
	return r.Status == "complete" && r.DirtyBytes == 0 && r.Sync.State == "idle"
}

// promote makes a node primary and opens its device.
func (d *demo) promote(ctx context.Context, n *node) error {
	if _, err := n.hastctl(ctx, "role", "primary", resource); err != nil {
		return err
	}
	var size int64
	err := n.await(ctx, commandLimit, "the device of "+n.name, func(r api.Resource) bool {
		if r.Provider != nil {
			size = r.Provider.Size
		}
		return r.Provider != nil
	})
	if err == nil && size != d.Size {
		err = exit.New(exit.IO, "look at its log", "the device of %s has %d bytes, not the %d asked for", n.name, size, d.Size)
	}
	return err
}

// open opens the store on the device of a primary.
func (n *node) open(ctx context.Context) (err error) {
	if n.d.Provider == NBD {
		var s *recordStore
		if s, err = openSocket(ctx, n.device()); err == nil {
			n.store = s
		}
	} else {
		var s *ext4Store
		if s, err = mountStore(n.device(), n.path("mnt")); err == nil {
			n.store = s
		}
	}
	if err != nil {
		return exit.New(exit.IO, "look at its log and at dmesg", "open the device of %s: %w", n.name, err)
	}
	return nil
}

func openSocket(ctx context.Context, socket string) (*recordStore, error) {
	c, err := dialNBD(ctx, socket, resource)
	if err != nil {
		return nil, err
	}
	return openRecords(c, c.size)
}

// shut closes it again.
func (n *node) shut() error {
	if n.store == nil {
		return nil
	}
	err := n.store.close()
	if err != nil {
		return exit.New(exit.IO, "look at its log and at dmesg", "close the device of %s: %w", n.name, err)
	}
	n.store = nil
	return nil
}

func (d *demo) mirror(ctx context.Context) error {
	d.Chapter("alpha becomes primary: its device is mirrored to bravo")
	if err := d.promote(ctx, d.alpha()); err != nil {
		return err
	}
	if err := d.awaitBoth(ctx, syncLimit, "the replicas to agree", complete); err != nil {
		return err
	}
	if d.Provider == FUSE {
		real, err := os.Readlink(d.alpha().device())
		if err != nil {
			return err
		}
		d.Say("$ mkfs.ext4 %s    (%s, behind alpha/device)", real, amount(d.Size))
		if err := d.format(ctx, d.alpha().device()); err != nil {
			return err
		}
		d.Say("$ mount %s alpha/mnt", real)
	}
	if err := d.alpha().open(ctx); err != nil {
		return err
	}
	return d.status(ctx, d.alpha())
}

// status shows what hastctl says on a node.
func (d *demo) status(ctx context.Context, n *node) error {
	out, err := n.hastctl(ctx, "status")
	if err != nil {
		return err
	}
	d.Quote(out)
	return nil
}

// acknowledged is the word for what is safe, by the provider.
func (d *demo) acknowledged() string {
	if d.Provider == FUSE {
		return "each with fsync of file and folder"
	}
	return "each with a flush"
}

func (d *demo) fill(ctx context.Context) error {
	d.Chapter("A tree of files goes onto the device")
	tree := realTree(d.random, first(d.scale(600, 0)), second(d.scale(0, 32<<20)))
	began := time.Now()
	for i, f := range tree {
		d.Progress(float64(i)/float64(len(tree)), "%s", f.name)
		if err := d.put(ctx, d.alpha(), f); err != nil {
			return err
		}
	}
	d.Say("%s in %d folders, %s, %.1f seconds.", describeFiles(len(d.ledger.files), d.ledger.bytes), folders(tree), d.acknowledged(), time.Since(began).Seconds())
	return nil
}

func first(n int, _ int64) int    { return n }
func second(_ int, n int64) int64 { return n }

// put stores one file, safe when it returns, and notes it.
func (d *demo) put(ctx context.Context, n *node, f file) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	store := n.store
	err := d.unless(ctx, func() error {
		if err := store.write(f.name, f.data); err != nil {
			return err
		}
		return store.sync(f.name)
	})
	if err != nil {
		return exit.New(exit.IO, "look at its log and at dmesg", "write %s on %s: %w", f.name, n.name, err)
	}
	d.ledger.add(f.name, f.data)
	return nil
}

// load is a writer that goes on until its device dies.
type load struct {
	acked   []file       // for whoever waited for it
	bytes   atomic.Int64 // of acked
	last    string       // the file it was at
	err     error        // what ended it
	cheated chan struct{}
	done    chan struct{}
}

// write writes until an error ends it. With cheatAt it counts, once so much is
// acknowledged, a file that it never made safe.
func (l *load) write(s store, next func(i int) file, cheatAt int64, killed <-chan struct{}) {
	defer close(l.done)
	for i := 0; ; i++ {
		f := next(i)
		l.last = f.name
		if l.err = s.write(f.name, f.data); l.err != nil {
			return
		}
		if cheatAt > 0 && l.bytes.Load() >= cheatAt {
			l.acked = append(l.acked, f)
			close(l.cheated)
			<-killed
			cheatAt = 0
		}
		if l.err = s.sync(f.name); l.err != nil {
			return
		}
		l.acked = append(l.acked, f)
		l.bytes.Add(int64(len(f.data)))
	}
}

// strike kills the primary in the middle of writing.
func (d *demo) strike(ctx context.Context) error {
	d.Chapter("kill -9 of the primary, in the middle of writing")
	_, enough := d.scale(0, 16<<20)
	random := d.random
	l := &load{done: make(chan struct{}), cheated: make(chan struct{})}
	killed := make(chan struct{})
	cheatAt := int64(0)
	if d.Sabotage == EarlyAck {
		cheatAt = enough
	}
	go l.write(d.alpha().store, func(i int) file { return inventFile(random, fmt.Sprintf("work/%02d/%05d", i%10, i)) }, cheatAt, killed)
	err := d.watch(ctx, l, enough)
	pid := d.alpha().cmd.Process.Pid
	err = errors.Join(err, d.alpha().kill())
	close(killed)
	t := time.NewTimer(killLimit)
	defer t.Stop()
	select {
	case <-l.done:
	case <-t.C:
		return exit.New(exit.IO, "", "the writer hangs %v after its device died", killLimit)
	}
	d.alpha().store.abandon()
	d.alpha().store = nil
	if err != nil {
		return err
	}
	for _, f := range l.acked {
		d.ledger.add(f.name, f.data)
	}
	d.Say("$ kill -9 %d", pid)
	d.Say("Its writer got: %s. It was writing %s.", reason(l.err), l.last)
	if d.Sabotage == EarlyAck {
		d.Say("SABOTAGE: the file %s was counted as safe before its fsync.", l.acked[len(l.acked)-1].name)
	}
	d.Say("%d files were acknowledged in this run, %d in all.", len(l.acked), len(d.ledger.files))
	return nil
}

// killJitter is how long after enough was written the kill comes at the latest.
const killJitter = 50 * time.Millisecond

// watch waits until enough is acknowledged, and a moment more.
func (d *demo) watch(ctx context.Context, l *load, enough int64) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	stalled := time.NewTimer(syncLimit)
	defer stalled.Stop()
	for d.Sabotage == EarlyAck || l.bytes.Load() < enough {
		d.Progress(float64(l.bytes.Load())/float64(enough), "writing")
		select {
		case <-l.cheated:
			return nil
		case <-l.done:
			return exit.New(exit.IO, "look at both logs", "writing on alpha failed before it was killed: %w", l.err)
		case <-stalled.C:
			return exit.New(exit.Again, "look at both logs", "writing on alpha made no progress")
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	d.Clear()
	// Not at the beat of the files: anywhere within one.
	time.Sleep(time.Duration(time.Now().UnixNano() % int64(killJitter)))
	return nil
}
