package main

import (
	"context"
	"errors"
	"fmt"
	"net"
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
	demoteLimit  = 30 * time.Second
	addressLimit = 5 * time.Second
	// promoteLimit comes on top of what the other node may take to go down.
	promoteLimit = 30 * time.Second
)

// parts lists what a group has, in the order of going up, with who makes each go.
func parts(g *conf.Group, st crunner.Storage, a *address) ([]cluster.Part, []crunner.Driver) {
	var list []cluster.Part
	var drivers []crunner.Driver
	add := func(kind cluster.Kind, name string, up, down time.Duration, d crunner.Driver) *cluster.Part {
		list = append(list, cluster.Part{Name: g.Name + "/" + kind.String() + "/" + name, Kind: kind, UpLimit: cluster.Duration(up), DownLimit: cluster.Duration(down)})
		drivers = append(drivers, d)
		return &list[len(list)-1]
	}
	for _, name := range g.Resources {
		add(cluster.Resource, name, promoteLimit, demoteLimit, &crunner.Resource{Name: name, Storage: st})
	}
	for _, m := range g.Mounts {
		add(cluster.Mount, strings.TrimPrefix(m.Dir, "/"), mountLimit, unmountLimit, &crunner.Mount{Device: m.Device, Dir: m.Dir, Type: m.Type, Options: m.Options})
	}
	for _, v := range inOrder(g.Services) {
		p := add(cluster.Service, v.Name, v.StartTimeout, v.StopTimeout, &crunner.Service{
			StartArgs: v.Start, StopArgs: v.Stop, MonitorArgs: v.Monitor, MonitorLimit: v.MonitorTimeout,
		})
		p.Optional = !v.Critical
		if len(v.Monitor) > 0 {
			p.Interval, p.MonitorLimit = cluster.Duration(v.Interval), cluster.Duration(v.MonitorTimeout)
		}
	}
	if len(g.Addresses) > 0 {
		add(cluster.Address, addressName(g), a.keeper.Lifetime()+addressLimit, addressLimit, a)
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

// addressName is what a group's addresses are called: they go up and down as one.
func addressName(g *conf.Group) string {
	if a := g.Addresses[0]; a.Name != "" {
		return a.Name
	}
	return g.Addresses[0].CIDR.Addr().String()
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

// address puts the addresses of a group on the interface that the election uses.
type address struct {
	keeper     *vip.Keeper
	count      int
	interfaces []string
	active     func() string // "" if the election has none, or there is none
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
	return "", fmt.Errorf("none of the interfaces %v has a link", a.interfaces)
}

// Probe says whether all addresses are there.
func (a *address) Probe(context.Context) (bool, error) {
	found, err := a.keeper.Present()
	if err != nil {
		return false, err
	}
	if n := len(found); n != 0 && n != a.count {
		return false, fmt.Errorf("%d of %d addresses are there", n, a.count)
	}
	return len(found) > 0, nil
}

// Up sets the addresses. Somebody who has one is given time: a node that died
// keeps it for its lifetime; who has it then is a stranger.
func (a *address) Up(ctx context.Context) error {
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

// Look is not used: the keeper notices what is taken away.
func (a *address) Look(ctx context.Context) (cluster.Look, error) {
	return cluster.LookUnknown, nil
}
