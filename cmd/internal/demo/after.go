package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/exit"
)

// takeOver promotes bravo and looks for every file.
func (d *demo) takeOver(ctx context.Context) error {
	d.Chapter("bravo takes over")
	began := time.Now()
	err := d.bravo().await(ctx, commandLimit, "bravo to notice", func(r api.Resource) bool { return r.Connection != "connected" })
	if err != nil {
		return err
	}
	if err := d.promote(ctx, d.bravo()); err != nil {
		return err
	}
	if err := d.bravo().open(ctx); err != nil {
		return err
	}
	d.Say("The device is there again after %.1f seconds.", time.Since(began).Seconds())
	if err := d.examine(ctx, d.bravo()); err != nil {
		return err
	}
	files, bytes := d.scale(80, 8<<20)
	n, err := d.writeSome(ctx, d.bravo(), "later", files, bytes)
	if err != nil {
		return err
	}
	d.Say("Work goes on: bravo alone writes %d more.", len(n))
	return nil
}

// examine checks the ledger against a node.
func (d *demo) examine(ctx context.Context, n *node) error {
	store := n.store
	read := func(name string) (data []byte, err error) {
		err = d.unless(ctx, func() error {
			b, err := store.read(name)
			data = b
			return err
		})
		if err != nil {
			return nil, err
		}
		return data, nil
	}
	err := d.ledger.examine(read, func(done, of int) {
		d.Progress(float64(done)/float64(of), "checking the files on %s by hash", n.name)
	})
	if err != nil {
		return err
	}
	d.Say("Every acknowledged file is on %s with the right hash: %s.", n.name, describeFiles(len(d.ledger.files), d.ledger.bytes))
	return nil
}

// writeSome stores invented files below a folder and returns their names.
func (d *demo) writeSome(ctx context.Context, n *node, folder string, files int, bytes int64) ([]string, error) {
	var names []string
	for i := 0; i < files && bytes > 0; i++ {
		f := inventFile(d.random, fmt.Sprintf("%s/%04d", folder, i))
		if err := d.put(ctx, n, f); err != nil {
			return nil, err
		}
		bytes -= int64(len(f.data))
		names = append(names, f.name)
		d.Progress(float64(i)/float64(files), "writing on %s", n.name)
	}
	return names, nil
}

// comeBack starts the killed node; it must fetch what differs and no more.
func (d *demo) comeBack(ctx context.Context) error {
	d.Chapter("alpha comes back and fetches only what differs")
	before, err := d.bravo().syncSent(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := d.alpha().start(ctx); err != nil {
		return err
	}
	d.Say("hastd runs as alpha again, process %d.", d.alpha().cmd.Process.Pid)
	if err := d.deadDeviceGone(ctx); err != nil {
		return err
	}
	if err := d.awaitBoth(ctx, syncLimit, "what differs to be copied", complete); err != nil {
		return err
	}
	return d.tellSync(ctx, d.bravo(), before, time.Since(began))
}

// deadDeviceGone wants the daemon to have cleaned up after the one that was
// killed.
func (d *demo) deadDeviceGone(ctx context.Context) error {
	if d.Provider != FUSE {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, killLimit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		mounts, err := mountsBelow(d.alpha().dir)
		if err != nil {
			return err
		}
		loops := loopsBelow(d.alpha().dir)
		if len(mounts)+len(loops) == 0 {
			d.Say("It took away what the killed one left: its FUSE mount and its loop device.")
			return nil
		}
		d.Progress(-1, "waiting for the dead device to go")
		select {
		case <-ctx.Done():
			return exit.New(exit.IO, "look at its log", "hastd on alpha left the dead device of its predecessor standing: %v %v", mounts, loops)
		case <-tick.C:
		}
	}
}

// tellSync says how little a synchronisation moved, and wants it to be little.
func (d *demo) tellSync(ctx context.Context, source *node, before int64, took time.Duration) error {
	after, err := source.syncSent(ctx)
	if err != nil {
		return err
	}
	sent := after - before
	share := 100 * float64(sent) / float64(d.Size)
	d.Say("%s were copied, %d bytes of %d: %.1f %% of the device, %.1f seconds.", amount(sent), sent, d.Size, share, took.Seconds())
	switch {
	case sent <= 0:
		return exit.New(exit.IO, "look at both logs", "nothing was copied although the nodes wrote apart")
	case sent > d.Size/2:
		return exit.New(exit.IO, "look at both logs", "more than half of the device was copied, although little of it differed")
	}
	return nil
}

// compareFirst lets both rest and compares them.
func (d *demo) compareFirst(ctx context.Context) error {
	d.Chapter("Both replicas, block by block")
	if err := d.rest(ctx, d.bravo()); err != nil {
		return err
	}
	if d.Sabotage == Flip {
		if err := d.flip(); err != nil {
			return exit.New(exit.IO, "", "the sabotage itself failed: %w", err)
		}
	}
	return d.compare(ctx)
}

// rest demotes a primary, so that nothing is in flight.
func (d *demo) rest(ctx context.Context, n *node) error {
	if err := n.shut(); err != nil {
		return err
	}
	if _, err := n.demote(ctx); err != nil {
		return err
	}
	return d.awaitBoth(ctx, syncLimit, "both nodes to be at rest", func(r api.Resource) bool { return r.Role == "secondary" && complete(r) })
}

// Files that each side writes apart.
const (
	alphaOnly = "only-on-alpha"
	bravoOnly = "only-on-bravo"
)

// part lets both nodes write apart: a split-brain.
func (d *demo) part(ctx context.Context) error {
	d.Chapter("A split-brain is forced: both are primary, apart")
	if _, err := d.alpha().hastctl(ctx, "disconnect", resource); err != nil {
		return err
	}
	err := d.bravo().await(ctx, commandLimit, "bravo to see it", func(r api.Resource) bool { return r.Connection != "connected" })
	if err != nil {
		return err
	}
	files, bytes := d.scale(40, 4<<20)
	for _, n := range d.nodes {
		if err := d.promote(ctx, n); err != nil {
			return err
		}
		if err := n.open(ctx); err != nil {
			return err
		}
		folder := map[string]string{"alpha": alphaOnly, "bravo": bravoOnly}[n.name]
		names, err := d.writeSome(ctx, n, folder, files, bytes)
		if err != nil {
			return err
		}
		d.Say("%s writes %d files of its own.", n.name, len(names))
		if n == d.alpha() {
			d.ledger.forget(names) // these are going to be given up
		}
	}
	// bravo stays primary and in use; alpha gives way, so that the two can talk.
	if err := d.alpha().shut(); err != nil {
		return err
	}
	if _, err := d.alpha().demote(ctx); err != nil {
		return err
	}
	before, err := d.sumOf(ctx, d.alpha())
	if err != nil {
		return err
	}
	if _, err := d.alpha().hastctl(ctx, "connect", resource); err != nil {
		return err
	}
	if err := d.awaitBoth(ctx, commandLimit, "the split-brain to be told", func(r api.Resource) bool { return r.Status == "split-brain" }); err != nil {
		return err
	}
	d.Say("Both nodes tell it:")
	for _, n := range d.nodes {
		if err := d.status(ctx, n); err != nil {
			return err
		}
	}
	switch after, err := d.sumOf(ctx, d.alpha()); {
	case err != nil:
		return err
	case after != before:
		return exit.New(exit.IO, hintNever, "OVERWRITTEN: alpha's replica changed although nobody had decided")
	}
	d.Say("Not one byte of alpha's replica was overwritten by that.")
	return nil
}

// recover gives up alpha's changes.
func (d *demo) recover(ctx context.Context) error {
	d.Chapter("A person decides: what alpha wrote apart is given up")
	before, err := d.bravo().syncSent(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if _, err := d.alpha().hastctl(ctx, "recover", "--discard-local", resource); err != nil {
		return err
	}
	if err := d.awaitBoth(ctx, syncLimit, "what differs to be copied", complete); err != nil {
		return err
	}
	if err := d.tellSync(ctx, d.bravo(), before, time.Since(began)); err != nil {
		return err
	}
	d.Say("bravo was in use all the time.")
	if err := d.rest(ctx, d.bravo()); err != nil {
		return err
	}
	return d.compare(ctx)
}

// end reads everything once more, on the node that was killed and lost.
func (d *demo) end(ctx context.Context) error {
	d.Chapter("The last check, on alpha")
	if err := d.promote(ctx, d.alpha()); err != nil {
		return err
	}
	if err := d.alpha().open(ctx); err != nil {
		return err
	}
	if err := d.examine(ctx, d.alpha()); err != nil {
		return err
	}
	gone := alphaOnly + "/0000"
	if _, err := d.alpha().store.read(gone); !errors.Is(err, fs.ErrNotExist) {
		return exit.New(exit.IO, "look at both logs", "what alpha wrote apart is still there, although it was given up (%v)", err)
	}
	d.Say("What was given up is gone.")
	if err := d.alpha().shut(); err != nil {
		return err
	}
	for _, n := range d.nodes {
		if err := n.stop(); err != nil {
			return err
		}
	}
	d.Say("Both daemons stopped cleanly.")
	return nil
}
