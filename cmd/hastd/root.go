package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"hastd/cmd/internal/build"
	"hastd/cmd/internal/exit"
	"hastd/conf"
)

// flags of the command line.
type flags struct {
	file      string
	node      string
	logFormat string
	logLevel  string
}

// run is the whole life of the daemon.
func run(ctx context.Context, args []string, std stdio) error {
	began := false
	cmd := command(std, func(ctx context.Context, f flags) error {
		began = true
		return serve(ctx, f, std)
	})
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	var known *exit.Error
	if err != nil && !began && !errors.As(err, &known) {
		return exit.New(exit.Usage, "usage: "+cmd.UseLine(), "%s", err.Error())
	}
	return err
}

func command(std stdio, do func(context.Context, flags) error) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "hastd",
		Short: "mirror block devices between two nodes",
		Long: `hastd mirrors the resources of this node to their peers and gives applications a
device for each resource that is primary here. It runs in the foreground, logs to
standard error, tells systemd when it is ready, reads its configuration again on
SIGHUP and stops cleanly on SIGTERM. hastctl controls it.

It starts whatever the state of peers and disks: a resource that cannot work says
so in its status.`,
		Example:           "  hastd -c /etc/hast/hast.toml",
		Args:              cobra.NoArgs,
		Version:           build.Read().String(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE:              func(c *cobra.Command, _ []string) error { return do(c.Context(), f) },
	}
	cmd.SetOut(std.Out)
	cmd.SetErr(std.Err)
	p := cmd.Flags()
	p.StringVarP(&f.file, "config", "c", conf.DefaultFile, "configuration `FILE`")
	p.StringVar(&f.node, "node", "", "`NAME` of this node (default: named like this host)")
	p.StringVar(&f.logFormat, "log-format", "text", "`FORMAT` of the log: text or json")
	p.StringVar(&f.logLevel, "log-level", "info", "`LEVEL` from which on is logged: debug, info, warn or error")
	return cmd
}

// serve starts the daemon and keeps it until a signal or ctx ends it.
func serve(ctx context.Context, f flags, std stdio) error {
	aside := newAsideLog(std.Err)
	defer aside.Close()
	log, err := newLog(aside, f)
	if err != nil {
		return err
	}
	c, node, err := loadConfig(f)
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	prepareProcess(log, len(c.ResourceOn(node.Name)))
	d, err := start(options{conf: c, node: node, flags: f, log: log})
	if err != nil {
		return err
	}
	tell(log, ready(d))
	watch := watchdog(d, log)
	defer watch()
	for {
		select {
		case <-hup:
			tell(log, reloading())
			d.reloadOnSignal(ctx)
			tell(log, ready(d))
		case <-ctx.Done():
			// Further signals change nothing: the stop is bounded, and cut short it
			// would leave devices behind.
			tell(log, stopping())
			return d.stop()
		}
	}
}

func newLog(w io.Writer, f flags) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, exit.New(exit.Usage, "write debug, info, warn or error", "--log-level %q is unknown", f.logLevel)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	case "text":
		if os.Getenv("JOURNAL_STREAM") != "" { // the journal has its own clock
			opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
				if len(groups) == 0 && a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			}
		}
		return slog.New(slog.NewTextHandler(w, opts)), nil
	}
	return nil, exit.New(exit.Usage, "write text or json", "--log-format %q is unknown", f.logFormat)
}

func loadConfig(f flags) (*conf.Config, *conf.Node, error) {
	c, err := conf.Load(f.file)
	if err != nil {
		return nil, nil, configError(f.file, err)
	}
	n, err := c.Self(f.node)
	var unknown *conf.UnknownError
	switch {
	case errors.As(err, &unknown):
		return nil, nil, &exit.Error{Code: exit.Config, Text: err.Error(), Hint: f.file + " has: " + strings.Join(unknown.Known, ", "), Err: err}
	case err != nil:
		text, hint, _ := strings.Cut(err.Error(), "; ")
		return nil, nil, &exit.Error{Code: exit.Config, Text: text, Hint: hint, Err: err}
	case n.Witness:
		return nil, nil, exit.New(exit.Config, "run only vipd on a witness", "node %s is a witness and stores nothing", n.Name)
	}
	return c, n, nil
}

// configError shows the first mistake and where to see the others.
func configError(file string, err error) error {
	var all *conf.Errors
	if !errors.As(err, &all) || len(all.Mistakes) == 0 {
		return exit.New(exit.Config, "", "%w", err)
	}
	m := *all.Mistakes[0]
	hint := m.Advice
	m.Advice = ""
	if hint == "" {
		hint = "correct it"
	}
	if len(all.Mistakes)+all.Dropped > 1 {
		hint += "; hastctl check -c " + file + " shows all mistakes"
	}
	return &exit.Error{Code: exit.Config, Text: m.Error(), Hint: hint, Err: err}
}
