package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/build"
	"hastd/cmd/internal/exit"
	"hastd/conf"
)

// app is one invocation: the global flags and what commands share.
type app struct {
	stdio
	file    string
	node    string
	control string
	json    bool
	timeout time.Duration

	began bool // a command's own code ran: what fails from now on is not usage
}

// run carries out one command line.
func run(ctx context.Context, args []string, io stdio) error {
	out := &checkedWriter{w: io.Out}
	a := &app{stdio: stdio{out, io.Err}}
	root := a.tree()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	var known *exit.Error
	var done *reported
	if err != nil && !a.began && !errors.As(err, &known) && !errors.As(err, &done) {
		err = usageError(cmd, err)
	}
	if err == nil && out.err != nil {
		err = out.err
	}
	return err
}

// usageError turns what cobra says, suggestions included, into a line and a hint.
func usageError(cmd *cobra.Command, err error) error {
	text, rest, _ := strings.Cut(err.Error(), "\n")
	hint := "usage: " + cmd.UseLine()
	if words := strings.Fields(rest); len(words) > 0 {
		hint = strings.Join(words, " ")
	} else if !cmd.HasParent() {
		hint = "hastctl help lists the commands"
	}
	return exit.New(exit.Usage, hint, "%s", text)
}

// tree is the command tree; documentation and completion are made from it.
func (a *app) tree() *cobra.Command {
	root := &cobra.Command{
		Use:   "hastctl",
		Short: "control replicated block devices",
		Long: `hastctl creates and shows replicas, switches roles, and watches and repairs the
resources of hastd on this node; cluster, node, group, vip, clear and summary ask
vipd, for the membership and for groups.

Data goes to standard output, errors and hints to standard error. Exit status:
0 done, 64 wrong usage or unknown name, 69 daemon not reachable, 70 internal
error, 73 cannot create, 74 input or output error, 75 busy or timed out (try
again), 77 refused by a policy or rule, 78 mistakes in the configuration. With
"all" it is the worst of them.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       build.Read().String(),
		RunE: func(*cobra.Command, []string) error {
			return exit.New(exit.Usage, "hastctl help lists the commands", "no command given")
		},
		PersistentPreRun: func(*cobra.Command, []string) { a.began = true },
		CompletionOptions: cobra.CompletionOptions{
			HiddenDefaultCmd: false,
		},
	}
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	f := root.PersistentFlags()
	f.StringVarP(&a.file, "config", "c", conf.DefaultFile, "configuration `FILE`")
	f.StringVar(&a.node, "node", "", "`NAME` of the node whose daemon is meant (default: named like this host)")
	f.StringVar(&a.control, "control", "", "control `SOCKET` of the daemon (default: as configured)")
	f.BoolVar(&a.json, "json", false, "write JSON")
	f.DurationVar(&a.timeout, "timeout", api.DefaultTimeout, "how long a command may wait; an order to a group 1m15s unless given")
	root.RegisterFlagCompletionFunc("node", a.completeNodes)
	root.AddCommand(
		a.createCommand(), a.dumpCommand(), a.resizeCommand(),
		a.roleCommand(), a.statusCommand(), a.listCommand(), a.eventsCommand(),
		a.connectCommand(), a.disconnectCommand(), a.resumeCommand(), a.recoverCommand(),
		a.clusterCommand(), a.nodeCommand(), a.groupCommand(), a.vipCommand(), a.clearCommand(), a.summaryCommand(),
		a.checkCommand(), a.keygenCommand(), a.reloadCommand(), a.versionCommand(), a.demoCommand(),
	)
	return root
}

// config loads the configuration. Other commands than check show one mistake and
// say where the rest is.
func (a *app) config() (*conf.Config, error) {
	c, err := conf.Load(a.file)
	if err == nil {
		return c, nil
	}
	var all *conf.Errors
	if !errors.As(err, &all) || len(all.Mistakes) == 0 {
		return nil, exit.New(exit.Config, "", "%w", err)
	}
	m := *all.Mistakes[0]
	hint := m.Advice
	if hint == "" {
		hint = "correct it; hastctl check tells whether the file is right then"
	}
	if n := len(all.Mistakes) + all.Dropped; n > 1 {
		hint = fmt.Sprintf("%s; hastctl check shows all %d mistakes", hint, n)
	}
	m.Advice = ""
	return nil, &exit.Error{Code: exit.Config, Text: m.Error(), Hint: hint, Err: err}
}

// self is the node this command is for.
func (a *app) self(c *conf.Config) (*conf.Node, error) {
	n, err := c.Self(a.node)
	var unknown *conf.UnknownError
	switch {
	case err == nil:
		return n, nil
	case errors.As(err, &unknown):
		return nil, unknownName(unknown, c.File)
	}
	text, hint, _ := strings.Cut(err.Error(), "; ")
	return nil, &exit.Error{Code: exit.Config, Text: text, Hint: hint, Err: err}
}

func unknownName(u *conf.UnknownError, file string) error {
	hint := fmt.Sprintf("%s has none", file)
	if len(u.Known) > 0 {
		hint = fmt.Sprintf("%s has: %s", file, strings.Join(u.Known, ", "))
	}
	return &exit.Error{Code: exit.Usage, Text: fmt.Sprintf("there is no %s %q", u.What, u.Name), Hint: hint, Err: u}
}

// client is the way to hastd.
func (a *app) client() (*api.Client, error) {
	socket, err := a.socket(func(h conf.Hastd, _ conf.Vipd) string { return h.Control })
	if err != nil {
		return nil, err
	}
	return api.NewClient(socket, a.timeout), nil
}

// socket is the control socket of a daemon: as ordered, or as configured.
func (a *app) socket(of func(conf.Hastd, conf.Vipd) string) (string, error) {
	if a.timeout <= 0 || a.timeout > api.MaxTimeout {
		return "", exit.New(exit.Usage, fmt.Sprintf("write for example --timeout 30s, at most %v", api.MaxTimeout), "a timeout of %v is not usable", a.timeout)
	}
	if a.control != "" {
		return a.control, nil
	}
	c, err := a.config()
	if err != nil {
		return "", err
	}
	n, err := a.self(c)
	if err != nil {
		return "", err
	}
	return of(c.Effective(n)), nil
}

// completeNames offers the resources of the configuration and "all".
func (a *app) completeNames(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	c, err := conf.Load(a.file)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := []string{}
	for _, r := range c.Resources {
		names = append(names, r.Name)
	}
	return append(names, "all"), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeNodes(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	c, err := conf.Load(a.file)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := []string{}
	for _, n := range c.Nodes {
		names = append(names, n.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// once lets a completion offer values for the first argument only.
func once(f cobra.CompletionFunc) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f(c, args, s)
	}
}

// eachOf carries f out for every name and tells errors as they come; it ends with
// the worst status.
func (a *app) eachOf(names []string, f func(name string) error) error {
	if len(names) == 1 {
		return f(names[0])
	}
	worst := exit.OK
	for _, n := range names {
		if err := f(n); err != nil {
			worst = exit.Worst(worst, report(a.Err, err))
		}
	}
	if worst != exit.OK {
		return &reported{worst}
	}
	return nil
}

// checkedWriter remembers the first failure, so that a full disk behind standard
// output is not taken for success. It says what it is: who writes may pass it on.
type checkedWriter struct {
	w   io.Writer
	err error
}

func (c *checkedWriter) Write(b []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.w.Write(b)
	if err != nil {
		c.err = exit.New(exit.IO, "is the disk behind standard output full, or its reader gone?", "write the answer: %w", err)
	}
	return n, c.err
}

// terminal says whether people look at w; then it may have colours.
func terminal(w io.Writer) bool {
	if c, ok := w.(*checkedWriter); ok {
		w = c.w
	}
	f, ok := w.(*os.File)
	return ok && isTerminal(f) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
