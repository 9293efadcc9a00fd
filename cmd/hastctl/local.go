package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	frunner "hastd/cluster/fence/runner"
	"hastd/cmd/internal/component"
	"hastd/cmd/internal/exit"
	"hastd/conf"
)

func (a *app) createCommand() *cobra.Command {
	var opts component.CreateOptions
	var size string
	c := &cobra.Command{
		Use:   "create NAME|all",
		Short: "make a new replica: write metadata to the local component",
		Long: `create writes the metadata of a new replica to the component of a resource on
this node. The data area is not touched, so a filesystem that leaves room for the
metadata at the end survives.

It is refused while a daemon or anything else holds the component, when it holds
an older resource or shrank since it held one, and when a filesystem or partition
reaches into the metadata area; it then says by how much to shrink. --force overrides
all but the first.

Recognised are ext2, ext3, ext4, XFS, btrfs, swap, LVM physical volumes and partition
tables (MBR, GPT), which say where they end; LUKS, md raid members, bcache, bcachefs,
exFAT, FAT, f2fs, JFS, NTFS, reiserfs and ZFS, which are taken to use all of the
component; and the internal metadata of DRBD. Of anything else nothing is known: look
yourself (wipefs, blkid) before you run create over it.

--size makes a missing file (never a device) so large that the resource's device
has that size. --assume-clean promises that both replicas are equal already (for
example because both are new and empty), so that nothing is copied at first; give
it on both nodes or not at all.`,
		Example: "  hastctl create data\n  hastctl create data --size 1GiB",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: once(a.completeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Out, opts.Warn = a.Out, a.Out
			if a.json {
				opts.Out, opts.Warn = io.Discard, a.Err
			}
			if size != "" {
				n, err := conf.ParseSize(size)
				if err != nil || n <= 0 {
					return exit.New(exit.Usage, "write for example --size 1GiB or --size 500MiB", "size %q is not usable", size)
				}
				opts.Size = n
			}
			return a.eachComponent(args[0], func(r *conf.Resource, p component.Place) error {
				o := opts
				o.Place, o.ExtentSize, o.Keepdirty = p, r.ExtentSize, r.KeepDirty
				if err := component.Create(o); err != nil {
					return err
				}
				a.tellOfView(opts.Warn, p.Resource)
				if !a.json {
					return nil
				}
				d, err := component.ReadDump(p)
				if err != nil {
					return err
				}
				return a.writeJSON(d)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&size, "size", "", "make a missing file so large that the device has this `SIZE`")
	f.BoolVar(&opts.AssumeClean, "assume-clean", false, "promise that both replicas are equal already")
	f.BoolVar(&opts.Force, "force", false, "overwrite an older resource, or the end of a filesystem")
	return c
}

// tellOfView says what goes with a replica that is made anew: with votes this node may
// still count as in sync by what vipd remembers.
func (a *app) tellOfView(to io.Writer, resource string) {
	c, err := a.config()
	if err != nil || c.Cluster.Quorum != conf.QuorumMajority {
		return
	}
	n, err := a.self(c)
	if err != nil {
		return
	}
	_, vipd := c.Effective(n)
	view := filepath.Join(vipd.State, "view")
	if _, err := os.Stat(view); err == nil {
		fmt.Fprintf(to, "%s: warning: vipd remembers the replica that was here: stop vipd, remove %s, then start hastd and vipd\n", resource, view)
	}
}

func (a *app) dumpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "dump NAME|all",
		Short: "show the metadata of the local component",
		Long: `dump reads the metadata of a resource from its component on this node: all fields
of the superblock, the state of both copies, the activity log and how much is
dirty. It changes nothing, needs no daemon, and is refused while a daemon holds
the component ("hastctl list" then shows what matters).`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: once(a.completeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			first := true
			return a.eachComponent(args[0], func(_ *conf.Resource, p component.Place) error {
				d, err := component.ReadDump(p)
				if err != nil {
					return err
				}
				if a.json {
					return a.writeJSON(d)
				}
				if !first {
					fmt.Fprintln(a.Out)
				}
				first = false
				return d.Print(a.Out)
			})
		},
	}
}

func (a *app) resizeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "resize NAME|all",
		Short: "find a replica again whose component was enlarged",
		Long: `resize moves the metadata of a resource from the old end of its component (or of
its metadata device) to the new one. It is needed when that grew: metadata stands at
the end, and hastd does not find it there any more. It says so, and create and dump
do. Nothing is lost, and nothing is copied afterwards.

The device of the resource keeps its size. It is made larger by creating both
replicas anew: docs/failover.md has the steps.

It is refused while a daemon or anything else holds the component, while something on
it reaches beyond the old end, if the growth has no room for the metadata, and if other
metadata stands at the new end, from when the component was as large before. Cut off by
a crash, it is finished when it is ordered again; hastd does not open the component
before.`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: once(a.completeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachComponent(args[0], func(_ *conf.Resource, p component.Place) error {
				out := io.Writer(a.Out)
				if a.json {
					out = io.Discard
				}
				if err := component.Resize(p, out); err != nil || !a.json {
					return err
				}
				d, err := component.ReadDump(p)
				if err != nil {
					return err
				}
				return a.writeJSON(d)
			})
		},
	}
}

// eachComponent finds the components of NAME|all on this node.
func (a *app) eachComponent(name string, f func(r *conf.Resource, p component.Place) error) error {
	c, err := a.config()
	if err != nil {
		return err
	}
	n, err := a.self(c)
	if err != nil {
		return err
	}
	hastd, _ := c.Effective(n)
	names := []string{name}
	if name == all {
		names = names[:0]
		for _, r := range c.ResourceOn(n.Name) {
			names = append(names, r.Name)
		}
		if len(names) == 0 {
			return exit.New(exit.Usage, "is --node right?", "no resource of %s has a component on node %s", c.File, n.Name)
		}
	}
	return a.eachOf(names, func(name string) error {
		r, err := c.Resource(name)
		var unknown *conf.UnknownError
		if errors.As(err, &unknown) {
			return unknownName(unknown, c.File)
		}
		if err != nil {
			return err
		}
		on, ok := r.OnNode(n.Name)
		if !ok {
			return exit.New(exit.Usage, "run it on one of them, or name the node with --node",
				"resource %s has components on nodes %s and %s, not on %s", name, r.On[0].Node, r.On[1].Node, n.Name)
		}
		return f(r, component.Place{Resource: name, Node: n.Name, Local: on.Local, Metadata: on.Metadata, State: hastd.State})
	})
}

// checkResult is what check --json prints.
type checkResult struct {
	File     string    `json:"file"`
	OK       bool      `json:"ok"`
	Mistakes []mistake `json:"mistakes"`
	Dropped  int       `json:"dropped"` // mistakes beyond those listed
	Warnings []string  `json:"warnings"`
}

type mistake struct {
	Line    int    `json:"line"`
	Key     string `json:"key"`
	Problem string `json:"problem"`
	Advice  string `json:"advice"`
}

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "show every mistake in the configuration",
		Long: `check reads the configuration and prints every mistake with its line and what to
write instead, and warnings about what works and should be known. It looks at no
device and needs no daemon, so a file can be checked anywhere.`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			res := checkResult{File: a.file, Mistakes: []mistake{}, Warnings: []string{}}
			c, err := conf.Load(a.file)
			var all *conf.Errors
			lines := []string{}
			switch {
			case errors.As(err, &all):
				res.Dropped = all.Dropped
				for _, m := range all.Mistakes {
					res.Mistakes = append(res.Mistakes, mistake{m.Line, m.Key, m.Problem, m.Advice})
					lines = append(lines, m.Error())
				}
			case err != nil:
				return exit.New(exit.Config, "", "%w", err)
			default:
				res.OK = true
				res.Warnings = append(res.Warnings, c.Warnings...)
				res.Warnings = append(res.Warnings, a.keyWarnings(c)...)
				res.Warnings = append(res.Warnings, a.fenceWarnings(c)...)
			}
			if a.json {
				a.writeJSON(res)
			} else {
				for _, l := range lines {
					fmt.Fprintln(a.Out, l)
				}
				for _, w := range res.Warnings {
					fmt.Fprintln(a.Out, "warning:", w)
				}
				if res.OK {
					fmt.Fprintf(a.Out, "%s: no mistakes\n", a.file)
				}
			}
			if res.OK {
				return nil
			}
			if n := len(res.Mistakes) + res.Dropped; n > 1 {
				return exit.New(exit.Config, "mend the lines shown, then check again", "%s has %d mistakes", a.file, n)
			}
			return exit.New(exit.Config, "mend the line shown, then check again", "%s has a mistake", a.file)
		},
	}
}

// keyWarnings tells of a key file that this node could not use. It is no mistake
// of the configuration: the file may be checked on another machine.
func (a *app) keyWarnings(c *conf.Config) []string {
	if c.Cluster.KeyFile == "" {
		return nil
	}
	if _, err := c.Self(a.node); err != nil {
		return nil
	}
	if _, err := conf.LoadKey(c.Cluster.KeyFile); err != nil {
		return []string{err.Error()}
	}
	return nil
}

// fenceWarnings tells of what cannot make a machine go down although the configuration
// wants it to. The watchdog is looked for, never opened: that would arm it.
func (a *app) fenceWarnings(c *conf.Config) (list []string) {
	self, err := c.Self(a.node)
	if c.Cluster.TOC != conf.TOCOff {
		if err != nil || self.Witness {
			return nil
		}
		var missing *frunner.WatchdogError
		if errors.As(frunner.CheckWatchdog(c.Cluster.Watchdog), &missing) {
			list = append(list, fmt.Sprintf("toc = %q: %v: vipd does not start on node %s; %s", c.Cluster.TOC, missing, self.Name, missing.Advice))
		}
		return list
	}
	const advice = `write toc = "reset" in [cluster], on machines with a watchdog`
	for _, g := range c.Groups {
		if g.Failfast {
			list = append(list, fmt.Sprintf("failfast of group %s only fails the group over, because toc is off: %s", g.Name, advice))
		}
		for _, s := range g.Services {
			if s.Failfast {
				list = append(list, fmt.Sprintf("failfast of service %s of group %s only fails the group over, because toc is off: %s", s.Name, g.Name, advice))
			}
		}
	}
	return list
}

// defaultKeyFile is written where neither argument nor configuration names one.
const defaultKeyFile = "/etc/hast/cluster.key"

func (a *app) keygenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen [FILE]",
		Short: "make the key that the nodes of a cluster share",
		Long: `keygen draws a new cluster key and writes it to FILE, by default the key-file of
the configuration. Copy it to every node over a safe way; each must have the same
one, readable by root alone. A file that exists is never overwritten.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := defaultKeyFile
			if len(args) == 1 {
				path = args[0]
			} else if c, err := conf.Load(a.file); err == nil && c.Cluster.KeyFile != "" {
				path = c.Cluster.KeyFile
			}
			key, err := conf.GenerateKey()
			if err != nil {
				return err
			}
			if err := conf.WriteKey(path, key); err != nil {
				var ke *conf.KeyError
				if !errors.As(err, &ke) {
					return err
				}
				code := exit.CantCreate
				if !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
					code = exit.IO
				}
				hint := ke.Advice
				if hint == "" {
					hint = "run hastctl as root, or name another file"
				}
				return &exit.Error{Code: code, Text: fmt.Sprintf("key file %s: %s", ke.Path, ke.Problem), Hint: hint, Err: err}
			}
			if a.json {
				return a.writeJSON(map[string]string{"file": path})
			}
			fmt.Fprintf(a.Out, "wrote %s: copy it to the same place on every node\n", path)
			return nil
		},
	}
}
