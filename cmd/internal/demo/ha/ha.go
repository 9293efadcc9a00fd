// Package ha tells the story of a service that fails over, in about a minute, on
// the real programs: two nodes and a client stand in network namespaces on one
// bridge. The client writes through the service address while an interface is
// lost, the service is moved by hand, both daemons of the master are killed, and
// the cable of the master is pulled. Each time the pause that the client saw is
// told. At the end every acknowledged write is read back.
//
// hastctl demo ha calls it. It knows the daemons only from outside: by their
// command line and hastctl. It touches nothing but namespaces and one temporary
// folder of its own, and leaves neither process nor mount nor loop device behind,
// however it ends.
package ha

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"hastd/cmd/internal/demo/stage"
	"hastd/cmd/internal/exit"
)

// DefaultLimit bounds the story; the taking away at the end has bounds of its own.
const DefaultLimit = 90 * time.Second

// Options of a demonstration.
type Options struct {
	Hastctl  string // paths of the programs
	Hastd    string
	Vipd     string
	Picture  string        // file of the picture; "": none
	Quick    bool          // only the switch and the kill
	Limit    time.Duration // for all of it
	Out, Err io.Writer
	Terminal bool // Out is looked at: bars may move
}

// folderPrefix is how the folders of these demonstrations are recognised.
const folderPrefix = "hast-ha-"

// Run tells the story. Its errors are *exit.Error: exit.IO if something
// acknowledged was lost.
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
	d := &demo{Options: o, dir: dir, Teller: stage.NewTeller(o.Out, o.Terminal)}
	defer func() {
		d.Clear()
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = stopped(cause, o.Limit, err)
		}
		if err != nil {
			d.confess(err)
		}
		if left := d.close(); err == nil {
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
		return exit.New(exit.Again, "give it more time with --limit", "the demonstration was not done within %v: %w", limit, err)
	}
	return exit.New(exit.Again, "nothing of it is left on this machine", "the demonstration was interrupted")
}

// tools are the programs of the system that are used.
var tools = []string{"ip", "unshare", "nsenter", "mkfs.ext4", "mount", "umount"}

// Missing says what this machine lacks for the story, or nil.
func Missing() error {
	if os.Geteuid() != 0 {
		return exit.New(exit.Refused, "run it as root: it makes network namespaces and mounts", "only root can see this demonstration")
	}
	for _, name := range tools {
		if _, err := stage.Tool(name); err != nil {
			return exit.New(exit.CantCreate, "install iproute2, util-linux, mount and e2fsprogs", "%w", err)
		}
	}
	for _, path := range []string{"/dev/fuse", "/dev/loop-control"} {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return exit.New(exit.CantCreate, "the kernel's modules fuse and loop are needed", "%w", err)
		}
		f.Close()
	}
	return nil
}

func (o *Options) check() error {
	if o.Limit <= 0 {
		return exit.New(exit.Usage, "write for example --limit 90s", "a limit of %v is not usable", o.Limit)
	}
	for _, path := range []string{o.Hastctl, o.Hastd, o.Vipd} {
		fi, err := os.Stat(path)
		if err != nil || !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0 {
			return exit.New(exit.CantCreate, "build it with make build; --hastd and --vipd tell where the daemons are", "there is no program %s", path)
		}
	}
	return Missing()
}

// demo is one demonstration under way.
type demo struct {
	Options
	*stage.Teller
	dir    string
	net    *network
	nodes  [2]*node
	client *client
	marks  []mark         // what was done, for the picture
	left   sync.WaitGroup // readers of what was started
}

func (d *demo) alpha() *node { return d.nodes[0] }
func (d *demo) bravo() *node { return d.nodes[1] }

// other is the peer of a node.
func (d *demo) other(n *node) *node {
	if n == d.alpha() {
		return d.bravo()
	}
	return d.alpha()
}

func (d *demo) path(name string) string { return filepath.Join(d.dir, name) }

// logLines of each log are shown after a failure.
const logLines = 25

// confess prints what helps to understand a failure.
func (d *demo) confess(err error) {
	fmt.Fprintf(d.Err, "\nThe demonstration failed: %v\n", err)
	for _, n := range d.nodes {
		if n == nil {
			continue
		}
		for _, log := range []string{"hastd.log", "vipd.log", "store.log"} {
			fmt.Fprintf(d.Err, "\nThe last lines of %s/%s:\n%s\n", n.name, log, stage.Tail(n.path(log), logLines))
		}
	}
}
