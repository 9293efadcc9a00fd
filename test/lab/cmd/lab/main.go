// Command lab gives a person two nodes to play with: two hastd daemons, their
// disks (which lose power, fail and hang on command) and a link that can be cut.
// It prints what to try and ends, with everything it made, on Ctrl-C.
//
//	go run ./test/lab/cmd/lab
//
// As root the nodes stand in network namespaces and their disks are the lab's;
// otherwise they have loopback addresses and plain files.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"hastd/test/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "lab: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) (err error) {
	fs := flag.NewFlagSet("lab", flag.ContinueOnError)
	size := fs.Int64("size", 256, "size of each disk in MiB")
	seed := fs.Uint64("seed", uint64(time.Now().UnixNano()), "decides what survives a power loss")
	relay := fs.Bool("relay", os.Getuid() != 0, "loopback addresses and a relay instead of namespaces")
	plain := fs.Bool("plain", os.Getuid() != 0, "plain files as disks: no power loss")
	if err := fs.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "hastlab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintln(stdout, "building …")
	programs, err := lab.Build(dir, false)
	if err != nil {
		return err
	}
	l, err := lab.New(lab.Options{
		Dir: dir, Programs: programs, Size: *size << 20, Seed: *seed,
		Relay: *relay, Plain: *plain, LogLevel: "info", Timeout: 5 * time.Second,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := l.CreateAndStart(); err != nil {
		return err
	}
	if err := l.AwaitConnected(30 * time.Second); err != nil {
		return err
	}
	alpha := l.Nodes[lab.Alpha]
	if err := alpha.Role("primary", false); err != nil {
		return err
	}
	if err := alpha.WaitStatus("complete", time.Minute); err != nil {
		return err
	}
	explain(stdout, l, dir, *plain)
	sh := shell{l: l, out: stdout}
	sh.run(ctx, stdin)
	fmt.Fprintln(stdout, "\nending")
	return nil
}

func explain(w io.Writer, l *lab.Lab, dir string, plain bool) {
	fmt.Fprintf(w, "\nTwo nodes mirror %q; alpha is primary. Everything is below %s and goes with the lab.\n", lab.Resource, dir)
	for _, n := range l.Nodes {
		fmt.Fprintf(w, "\n%v  pid %d\n  config   %s\n  control  %s\n  device   %s (NBD, while primary)\n  disk     %s\n  log      %s\n",
			n.Side, n.PID(), n.Config(), n.Control(), n.Socket(), n.Local(), n.LogPath())
		if !plain {
			fmt.Fprintf(w, "  disk's own commands, a line of JSON each: %s\n", n.Disk.Control())
		}
	}
	link := filepath.Join(dir, "hastctl")
	fmt.Fprintf(w, `
Try, in another terminal:

  %[1]s --control %[2]s status
  %[1]s --control %[3]s events
  fio --name=x --ioengine=nbd --uri='nbd+unix:///data?socket=%[4]s' --rw=randwrite --bs=4k --iodepth=32 --size=64m --verify=crc32c
  nbdinfo 'nbd+unix:///data?socket=%[4]s'

And here (help shows this again):
%[5]s
`, link, l.Nodes[0].Control(), l.Nodes[1].Control(), l.Nodes[0].Socket(), help)
}
