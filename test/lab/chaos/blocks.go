package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"hastd/test/lab"
	"hastd/test/lab/ledger"
	"hastd/test/lab/nbdclient"
)

// blocks is the lab's ledger and its load over NBD.
type blocks struct {
	led    *ledger.Ledger
	load   *ledger.Load
	node   atomic.Pointer[lab.Node] // who serves; nil: nobody
	size   int64
	meter_ *meter
	seed   uint64

	sectors int64 // checked, over all checks
}

const (
	// blockWorkers and blockPace leave some of the machine to the database.
	blockWorkers = 4
	blockPace    = 10 * time.Millisecond
	// blockReads are of a hundred requests: a disk that cannot be read is noticed
	// only by who reads.
	blockReads = 15
	// blockProgress is how many writes show that it goes on.
	blockProgress = 50
)

func newBlocks(seed uint64) *blocks { return &blocks{seed: seed, meter_: &meter{}} }

func (b *blocks) resource() string { return lab.Resource }
func (b *blocks) meter() *meter    { return b.meter_ }

// connect is the client's way to whoever serves.
func (b *blocks) connect(ctx context.Context) (*nbdclient.Client, error) {
	for {
		var err error
		if n := b.node.Load(); n != nil {
			var c *nbdclient.Client
			if c, err = n.NBD(ctx); err == nil {
				return c, nil
			}
		}
		if e := sleep(ctx, pollEvery); e != nil {
			return nil, errors.Join(e, err)
		}
	}
}

func (b *blocks) start(ctx context.Context, n *lab.Node) error {
	b.node.Store(n)
	if b.load == nil {
		c, err := b.connect(ctx)
		if err != nil {
			return err
		}
		b.size = c.Size
		c.Close()
		b.led = ledger.New(ledger.Options{Size: b.size, Seed: b.seed})
		b.load = ledger.Start(context.Background(), ledger.LoadOptions{
			Ledger: b.led, Connect: b.connect, Seed: b.seed, Workers: blockWorkers, Pace: blockPace, Reads: blockReads, Answered: b.meter_.mark,
		})
	}
	b.load.Resume()
	return nil
}

// stop ends what is under way.
func (b *blocks) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, quietLimit)
	defer cancel()
	b.node.Store(nil)
	if err := b.load.Halt(ctx); err != nil {
		return fmt.Errorf("chaos: requests to the blocks do not end: %w", err)
	}
	return nil
}

func (b *blocks) leave(ctx context.Context) error {
	qctx, cancel := context.WithTimeout(ctx, quietLimit)
	defer cancel()
	if err := b.load.Pause(qctx); err != nil {
		return fmt.Errorf("chaos: requests to the blocks do not end: %w", err)
	}
	return b.stop(ctx)
}

func (b *blocks) settled()   { b.led.Settle() }
func (b *blocks) powerLost() { b.led.PowerLost() }

// failed is how many writes were answered with an error so far.
func (b *blocks) failed() int64 { return b.led.Counts().Failed }

func (b *blocks) alive() bool { return true }

func (b *blocks) progress(ctx context.Context) error {
	wctx, cancel := context.WithTimeout(ctx, moveLimit)
	defer cancel()
	if err := b.load.WaitAcked(wctx, blockProgress); err != nil {
		return fmt.Errorf("chaos: writes to the blocks are not acknowledged: %w (last answer: %v)", err, b.load.LastError())
	}
	return nil
}

// check lets the load rest, flushes, compares and asks the ledger.
func (b *blocks) check(ctx context.Context, compare func() error) error {
	qctx, cancel := context.WithTimeout(ctx, quietLimit)
	defer cancel()
	if err := b.load.Pause(qctx); err != nil {
		return fmt.Errorf("chaos: requests to the blocks do not end: %w", err)
	}
	if err := b.load.Flush(qctx); err != nil {
		return fmt.Errorf("chaos: the last flush: %w", err)
	}
	if err := compare(); err != nil {
		return err
	}
	c, err := b.connect(qctx)
	if err != nil {
		return err
	}
	defer c.Close()
	rep, err := b.led.Check(c, true)
	if err != nil {
		return err
	}
	b.sectors += rep.Sectors
	if err := rep.Err(); err != nil {
		return err
	}
	b.load.Resume()
	return nil
}

func (b *blocks) end() error {
	if b.load != nil {
		b.load.Stop()
	}
	return nil
}
