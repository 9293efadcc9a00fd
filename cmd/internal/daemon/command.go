package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"hastd/cmd/internal/build"
	"hastd/cmd/internal/exit"
	"hastd/conf"
)

// Stdio is where a daemon writes: help to Out, its log to Err.
type Stdio struct {
	Out, Err io.Writer
}

// Flags of the command line.
type Flags struct {
	File      string
	Node      string
	LogFormat string
	LogLevel  string
}

// About is what the help says.
type About struct{ Name, Short, Long string }

// Command is the command line of a daemon; do is called with its flags.
func Command(a About, std Stdio, do func(context.Context, Flags) error) *cobra.Command {
	var f Flags
	cmd := &cobra.Command{
		Use:               a.Name,
		Short:             a.Short,
		Long:              a.Long,
		Example:           "  " + a.Name + " -c /etc/hast/hast.toml",
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
	p.StringVarP(&f.File, "config", "c", conf.DefaultFile, "configuration `FILE`")
	p.StringVar(&f.Node, "node", "", "`NAME` of this node (default: named like this host)")
	p.StringVar(&f.LogFormat, "log-format", "text", "`FORMAT` of the log: text or json")
	p.StringVar(&f.LogLevel, "log-level", "info", "`LEVEL` from which on is logged: debug, info, warn or error")
	return cmd
}

// Setup is what a daemon starts from.
type Setup struct {
	Conf  *conf.Config
	Node  *conf.Node // this one
	Flags Flags      // to read the configuration again
	Log   *slog.Logger
}

// Run is the whole life of a daemon: start is called once everything is read.
func Run(ctx context.Context, a About, args []string, std Stdio, start func(Setup) (Process, error)) error {
	began := false
	cmd := Command(a, std, func(ctx context.Context, f Flags) error {
		began = true
		aside := NewAsideLog(a.Name, std.Err)
		defer aside.Close()
		s := Setup{Flags: f}
		var err error
		if s.Log, err = NewLog(aside, f); err != nil {
			return err
		}
		if s.Conf, s.Node, err = LoadConfig(f); err != nil {
			return err
		}
		return keep(ctx, s.Log, func() (Process, error) { return start(s) })
	})
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	var known *exit.Error
	if err != nil && !began && !errors.As(err, &known) {
		return exit.New(exit.Usage, "usage: "+cmd.UseLine(), "%s", err.Error())
	}
	return err
}

// Main is Run for a program.
func Main(a About, start func(Setup) (Process, error)) {
	err := Run(context.Background(), a, os.Args[1:], Stdio{os.Stdout, os.Stderr}, start)
	os.Exit(int(Report(os.Stderr, a.Name, err)))
}

// Report prints why a daemon could not start or stop, and returns the status to
// exit with.
func Report(w io.Writer, name string, err error) exit.Code {
	if err == nil {
		return exit.OK
	}
	fmt.Fprintf(w, "%s: error: %s\n", name, strings.ReplaceAll(err.Error(), "\n", " "))
	if hint := exit.HintOf(err); hint != "" {
		fmt.Fprintf(w, "%s: hint: %s\n", name, strings.ReplaceAll(hint, "\n", " "))
	}
	return exit.CodeOf(err)
}

// NewLog makes the log that the flags ask for.
func NewLog(w io.Writer, f Flags) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.LogLevel)); err != nil {
		return nil, exit.New(exit.Usage, "write debug, info, warn or error", "--log-level %q is unknown", f.LogLevel)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch f.LogFormat {
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
	return nil, exit.New(exit.Usage, "write text or json", "--log-format %q is unknown", f.LogFormat)
}

// LoadConfig reads the configuration and finds this node in it.
func LoadConfig(f Flags) (*conf.Config, *conf.Node, error) {
	c, err := conf.Load(f.File)
	if err != nil {
		return nil, nil, ConfigError(f.File, err)
	}
	n, err := c.Self(f.Node)
	var unknown *conf.UnknownError
	switch {
	case errors.As(err, &unknown):
		return nil, nil, &exit.Error{Code: exit.Config, Text: err.Error(), Hint: f.File + " has: " + strings.Join(unknown.Known, ", "), Err: err}
	case err != nil:
		text, hint, _ := strings.Cut(err.Error(), "; ")
		return nil, nil, &exit.Error{Code: exit.Config, Text: text, Hint: hint, Err: err}
	}
	return c, n, nil
}

// ConfigError shows the first mistake and where to see the others.
func ConfigError(file string, err error) error {
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

// SecretError gives what is wrong with a file of a secret the words for people.
func SecretError(what string, err error) error {
	var ke *conf.KeyError
	if !errors.As(err, &ke) {
		return exit.New(exit.Config, "", "%w", err)
	}
	return &exit.Error{Code: exit.Config, Text: fmt.Sprintf("%s %s: %s", what, ke.Path, ke.Problem), Hint: ke.Advice, Err: err}
}
