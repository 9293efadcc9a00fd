// Package demo tells the story of a pair in a few minutes, on the real programs:
// two hastd on this machine mirror a device, the primary is killed in the middle
// of writing, the other takes over, the two part and are brought together again.
// Whatever was acknowledged is looked for by hash, and both replicas are compared
// block by block.
//
// hastctl demo calls it. It knows the daemons only from outside: by their command
// line, their control interface and the device they give. It touches nothing but
// one temporary folder of its own, and leaves neither process nor mount nor loop
// device nor folder behind, however it ends.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"hastd/cmd/internal/demo/stage"
	"hastd/cmd/internal/exit"
)

// Kinds of providers the story can be told over.
const (
	Auto = "auto"
	FUSE = "fuse"       // a device with ext4 on it; needs root
	NBD  = "nbd-server" // a socket, for every user
)

// Ways to break something on purpose, so that one sees it found.
const (
	// Flip changes one bit of one replica behind the daemons' back.
	Flip = "flip"
	// EarlyAck counts a file as safe before its fsync has returned.
	EarlyAck = "early-ack"
)

// Bounds of the story.
const (
	MinSize      = 64 << 20
	MaxSize      = 16 << 30
	DefaultSize  = 256 << 20
	DefaultLimit = 5 * time.Minute
)

// Options of a demonstration.
type Options struct {
	Hastctl  string // path of the programs
	Hastd    string
	Size     int64 // of the device, in bytes
	Provider string
	Sabotage string        // "", Flip or EarlyAck
	Quick    bool          // less data
	Keep     bool          // the folder stays after a failure
	Limit    time.Duration // for all of it
	Out, Err io.Writer
	Terminal bool // Out is looked at: bars may move
}

// Run tells the story. Its errors are *exit.Error: exit.IO if something
// acknowledged was lost or the replicas differ.
func Run(ctx context.Context, o Options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.Limit, errLimit)
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	ctx, unread := context.WithCancelCause(ctx)
	defer unread(nil)
	// A reader that is gone must not end the process with everything standing.
	signal.Ignore(syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)
	o.Out = &stage.Writer{W: o.Out, Unread: unread}
	stage.Sweep(folderPrefix, release)
	dir, lock, err := stage.MakeFolder(folderPrefix)
	if err != nil {
		return err
	}
	defer lock.Close()
	d := &demo{Options: o, dir: dir, Teller: stage.NewTeller(o.Out, o.Terminal),
		random: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(os.Getpid())))}
	defer func() {
		d.Clear()
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = stopped(cause, o.Limit, err)
		}
		if o.Sabotage != "" && exit.HintOf(err) == hintNever {
			err = exit.New(exit.IO, fmt.Sprintf("it was found, as it must be: --sabotage %s broke it on purpose", o.Sabotage), "%w", err)
		}
		if err != nil {
			d.confess(err)
		}
		left := d.close(err)
		if err == nil {
			err = left
		}
	}()
	return d.story(ctx)
}

var errLimit = errors.New("the time for the demonstration is over")

// stopped says why the story ended early, with what it was doing.
func stopped(cause error, limit time.Duration, err error) error {
	if errors.Is(cause, stage.ErrUnread) {
		return exit.New(exit.IO, "is its reader gone?", "%w", cause)
	}
	if errors.Is(cause, errLimit) {
		return exit.New(exit.Again, "give it more time with --limit, or less to do with --quick", "the demonstration was not done within %v: %w", limit, err)
	}
	return exit.New(exit.Again, "nothing of it is left on this machine", "the demonstration was interrupted")
}

func (o *Options) check() error {
	switch {
	case o.Size < MinSize || o.Size > MaxSize:
		return exit.New(exit.Usage, "write for example --size 256MiB", "a size of %d bytes is not between 64 MiB and 16 GiB", o.Size)
	case o.Size%(1<<20) != 0:
		return exit.New(exit.Usage, "write for example --size 256MiB", "a size of %d bytes is no multiple of 1 MiB", o.Size)
	case o.Provider != Auto && o.Provider != FUSE && o.Provider != NBD:
		return exit.New(exit.Usage, "write auto, fuse or nbd-server", "the demonstration knows no provider %q", o.Provider)
	case o.Sabotage != "" && o.Sabotage != Flip && o.Sabotage != EarlyAck:
		return exit.New(exit.Usage, "write flip or early-ack", "there is no sabotage %q", o.Sabotage)
	case o.Limit <= 0:
		return exit.New(exit.Usage, "write for example --limit 5m", "a limit of %v is not usable", o.Limit)
	}
	for _, path := range []string{o.Hastctl, o.Hastd} {
		fi, err := os.Stat(path)
		if err != nil || !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0 {
			return exit.New(exit.CantCreate, "build it with go build ./cmd/hastd and give its place with --hastd PATH", "there is no program %s", path)
		}
	}
	return nil
}

// demo is one demonstration under way.
type demo struct {
	Options
	*stage.Teller
	dir    string
	port   int // of replication, on both nodes
	nodes  [2]*node
	ledger ledger
	random *rand.Rand
	mkfs   string         // path of mkfs.ext4
	left   sync.WaitGroup // what was not waited for when time was over
}

const resource = "demo"

func (d *demo) alpha() *node { return d.nodes[0] }
func (d *demo) bravo() *node { return d.nodes[1] }

func (d *demo) path(name string) string { return filepath.Join(d.dir, name) }

// confess prints what helps to understand a failure.
func (d *demo) confess(err error) {
	fmt.Fprintf(d.Err, "\nThe demonstration failed: %v\n", err)
	for _, n := range d.nodes {
		if n == nil {
			continue
		}
		fmt.Fprintf(d.Err, "\n%s: %s\nThe last lines of its log:\n%s\n", n.name, n.describe(), stage.Tail(n.log(), logLines))
	}
}

const logLines = 25
