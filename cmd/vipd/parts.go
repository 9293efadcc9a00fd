package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"hastd/carp/vip"
	"hastd/cluster"
	crunner "hastd/cluster/runner"
	"hastd/conf"
)

// Limits of parts that have none in the configuration.
const (
	mountLimit   = 60 * time.Second // a journal may have to be read
	unmountLimit = 30 * time.Second
	// outsideEvery is the time between two looks whether somebody put up outside the
	// controller what is down here; mountEvery whether a mount is still there. Neither
	// starts a program.
	outsideEvery = 2 * time.Second
	mountEvery   = 5 * time.Second
	lookLimit    = 5 * time.Second // of either
	// addressRestarts is how often an address that somebody takes away is put back
	// within addressReset.
	addressRestarts = 3
	addressReset    = 10 * time.Minute
	demoteLimit     = 30 * time.Second
	addressLimit    = 5 * time.Second
	// promoteLimit comes on top of what the other node may take to go down.
	promoteLimit = 30 * time.Second
)

// parts lists what a group has, in the order of going up, with who makes each go.
func parts(g *conf.Group, st crunner.Storage, a *address) ([]cluster.Part, []crunner.Driver) {
	var list []cluster.Part
	var drivers []crunner.Driver
	add := func(kind cluster.Kind, name string, up, down time.Duration, d crunner.Driver) *cluster.Part {
		p := cluster.Part{Name: g.Name + "/" + kind.String() + "/" + name, Kind: kind, UpLimit: cluster.Duration(up), DownLimit: cluster.Duration(down)}
		if kind != cluster.Service {
			p.OffInterval, p.MonitorLimit = cluster.Duration(outsideEvery), cluster.Duration(lookLimit)
		}
		list, drivers = append(list, p), append(drivers, d)
		return &list[len(list)-1]
	}
	for _, name := range g.Resources {
		add(cluster.Resource, name, promoteLimit, demoteLimit, &crunner.Resource{Name: name, Storage: st})
	}
	for _, m := range g.Mounts {
		p := add(cluster.Mount, strings.TrimPrefix(m.Dir, "/"), mountLimit, unmountLimit, &crunner.Mount{Device: m.Device, Dir: m.Dir, Type: m.Type, Options: m.Options})
		p.Interval = cluster.Duration(mountEvery)
	}
	for _, v := range inOrder(g.Services) {
		p := add(cluster.Service, v.Name, v.StartTimeout, v.StopTimeout, &crunner.Service{
			StartArgs: v.Start, StopArgs: v.Stop, MonitorArgs: v.Monitor, MonitorLimit: v.MonitorTimeout,
		})
		p.Optional, p.FailFast, p.Watched = !v.Critical, v.Failfast, len(v.Start) == 0
		p.RestartLimit, p.RestartReset = v.RestartLimit, cluster.Duration(v.RestartReset)
		if len(v.Monitor) > 0 {
			p.Interval, p.MonitorLimit = cluster.Duration(v.Interval), cluster.Duration(v.MonitorTimeout)
		}
	}
	// One keeper has all the addresses: the first part puts all up, the last one takes
	// all down, and each has a name and is looked at for itself.
	for i := range g.Addresses {
		one := *a
		one.prefix = g.Addresses[i].CIDR
		p := add(cluster.Address, addressName(&g.Addresses[i]), a.keeper.Lifetime()+addressLimit, addressLimit, &one)
		p.RestartLimit, p.RestartReset = addressRestarts, cluster.Duration(addressReset)
	}
	// A promotion waits until the other node is down.
	var down cluster.Duration
	for i := range list {
		down += list[i].DownLimit
	}
	for i := range list {
		if list[i].Kind == cluster.Resource {
			list[i].UpLimit += down
		}
	}
	return list, drivers
}

// addressName is what an address is called.
func addressName(a *conf.Address) string { return cmp.Or(a.Name, a.CIDR.Addr().String()) }

// addressPart is the index of an address among the parts: they are the last ones.
func addressPart(g *conf.Group, parts int, p netip.Prefix) int {
	for i := range g.Addresses {
		if g.Addresses[i].CIDR == p {
			return parts - len(g.Addresses) + i
		}
	}
	return parts - 1
}

// inOrder puts services behind those that they require. There is no circle: the
// configuration was checked.
func inOrder(services []conf.Service) []conf.Service {
	var out []conf.Service
	done := map[string]bool{}
	for len(out) < len(services) {
		before := len(out)
		for _, v := range services {
			ready := !done[v.Name]
			for _, need := range v.Requires {
				ready = ready && done[need]
			}
			if ready {
				done[v.Name] = true
				out = append(out, v)
			}
		}
		if len(out) == before {
			return services
		}
	}
	return out
}

// address puts the addresses of a group on the interface that the election uses, and
// looks after one of them.
type address struct {
	keeper     *vip.Keeper
	prefix     netip.Prefix
	interfaces []string
	active     func() string // "" if the election has none, or there is none
	anyway     bool          // also without a link: nobody else can have the group
}

// conflictPause is the time between two questions who has an address.
const conflictPause = 200 * time.Millisecond

// on is the interface to use.
func (a *address) on() (string, error) {
	if name := a.active(); name != "" {
		return name, nil
	}
	for _, name := range a.interfaces {
		if ifc, err := net.InterfaceByName(name); err == nil && ifc.Flags&net.FlagRunning != 0 {
			return name, nil
		}
	}
	if a.anyway && len(a.interfaces) > 0 {
		return a.interfaces[0], nil
	}
	return "", fmt.Errorf("none of the interfaces %v has a link", a.interfaces)
}

// Probe says whether the address is there.
func (a *address) Probe(context.Context) (bool, error) {
	found, err := a.keeper.Present()
	_, ok := found[a.prefix]
	return ok, err
}

// Up sets the addresses. Somebody who has one is given time: a node that died
// keeps it for its lifetime; who has it then is a stranger.
func (a *address) Up(ctx context.Context, _ int) error {
	end := time.Now().Add(a.keeper.Lifetime() + time.Second)
	for {
		name, err := a.on()
		if err != nil {
			return err
		}
		var c *vip.Conflict
		if err = a.keeper.Up(ctx, name); !errors.As(err, &c) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(conflictPause):
		}
	}
}

// Down takes them away.
func (a *address) Down(context.Context) error { return a.keeper.Down() }

// Look finds one that somebody set by hand: while it is up, the keeper notices if it is
// taken away.
func (a *address) Look(ctx context.Context) (cluster.Look, error) {
	up, err := a.Probe(ctx)
	switch {
	case err != nil:
		return cluster.LookUnknown, err
	case up:
		return cluster.LookOnline, nil
	}
	return cluster.LookOffline, nil
}
