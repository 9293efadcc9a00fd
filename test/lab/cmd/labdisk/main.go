// Command labdisk serves one lab disk (package disk) over FUSE: the file
// DIR/mnt/disk, commanded by lines of JSON on the Unix socket DIR/control. The
// lab starts one for each disk; by hand it is good for playing with a disk that
// loses power:
//
//	labdisk --dir /tmp/d --options '{"Size":67108864,"KeepRandom":true}' &
//	echo '{"do":"powerloss"}' | nc -U /tmp/d/control
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"hastd/test/lab/disk"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "labdisk: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	fs := flag.NewFlagSet("labdisk", flag.ContinueOnError)
	dir := fs.String("dir", "", "folder for the mount, the medium and the control socket")
	desc := fs.String("options", "{}", "the disk, as JSON of disk.Options")
	follow := fs.Bool("until-stdin-ends", false, "end when standard input does: when the parent dies")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var o disk.Options
	if err := json.Unmarshal([]byte(*desc), &o); err != nil {
		return fmt.Errorf("--options: %w", err)
	}
	if *dir == "" {
		return fmt.Errorf("--dir is needed")
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if *follow {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		// Not waited for: it ends with standard input or with the process.
		go func() {
			io.Copy(io.Discard, stdin)
			cancel()
		}()
	}
	return disk.Main(ctx, *dir, o, stdout)
}
