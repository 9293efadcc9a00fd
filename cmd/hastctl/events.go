package main

import (
	"context"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/exit"
)

func (a *app) eventsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "events [NAME]",
		Short: "follow what happens, a line an event",
		Long: `events prints each event of this node's resources and groups as it happens, until
it is interrupted: changes of role, connection, disk and status, synchronisation,
suspension, split-brain; elections, states of groups, faults. It follows hastd and
vipd; one of the two may be absent. With NAME it follows one resource or group, part of
a group (GROUP/KIND/NAME), or the node itself. With --json each line is one object.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: once(a.completeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			hastd, err := a.client()
			if err != nil {
				return err
			}
			sources := []*api.Client{hastd}
			vipd := api.GroupClient{Client: hastd}
			if a.control == "" {
				if vipd, err = a.groupClient(cmd); err != nil {
					return err
				}
				sources = append(sources, vipd.Client)
			}
			if len(args) == 1 && args[0] != all {
				if err := toFollow(cmd.Context(), hastd, vipd, args[0]); err != nil {
					return err
				}
			}
			return follow(cmd.Context(), sources, func(ev api.Event) error {
				if len(args) == 1 && args[0] != all && ev.Name != args[0] && ev.Kind != api.KindDropped {
					return nil
				}
				return a.writeEvent(ev)
			})
		},
	}
}

// toFollow sees that something on this node has the name: there would be nothing to wait
// for. If hastd is absent, what vipd does not know cannot be judged.
func toFollow(ctx context.Context, hastd *api.Client, vipd api.GroupClient, name string) error {
	_, unknown := hastd.Resource(ctx, name)
	if unknown == nil {
		return nil
	}
	if code := exit.CodeOf(unknown); code != exit.Usage && code != exit.Unreachable {
		return unknown
	}
	st, err := vipd.Groups(ctx)
	switch code := exit.CodeOf(err); {
	case code == exit.Unreachable || code == exit.Usage: // only hastd can tell
		return unknown
	case err != nil:
		return err
	}
	if name == st.Node {
		return nil
	}
	for _, g := range st.Groups {
		if g.Name == name || slices.ContainsFunc(g.Parts, func(p api.Part) bool { return p.Name == name }) {
			return nil
		}
	}
	if exit.CodeOf(unknown) == exit.Unreachable { // it may be a resource
		return unknown
	}
	return exit.New(exit.Usage, "hastctl list and hastctl group status show what there is",
		"no resource, group or part of a group on node %s is named %q", st.Node, name)
}

// follow hands on the events of several daemons, one at a time. Who is absent at
// the start is left out, unless all are; who goes away later ends it.
func follow(ctx context.Context, sources []*api.Client, each func(api.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	type end struct {
		source  int
		started bool
		err     error
	}
	ends := make(chan end, len(sources))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i, c := range sources {
		wg.Go(func() {
			e := end{source: i}
			e.err = c.Events(ctx, func() { e.started = true }, func(ev api.Event) error {
				mu.Lock()
				defer mu.Unlock()
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return each(ev)
			})
			ends <- e
		})
	}
	absent := make([]error, len(sources))
	for range sources {
		e := <-ends
		if e.started || e.err == nil || exit.CodeOf(e.err) != exit.Unreachable {
			return e.err
		}
		absent[e.source] = e.err
	}
	return absent[0]
}
