package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/daemon"
	"hastd/cmd/internal/exit"
	"hastd/conf"
	"hastd/metadata"
	"hastd/replicate"
)

// setting is one key of a resource that hastd uses.
type setting struct {
	key  string
	live bool // can change while the resource runs
	get  func(*conf.Resource) any
}

var settings = []setting{
	{"on-peer-loss", true, func(r *conf.Resource) any { return r.OnPeerLoss }},
	{"sync.max-rate", true, func(r *conf.Resource) any { return r.Sync.MaxRate }},
	{"sync.latency-target", true, func(r *conf.Resource) any { return r.Sync.LatencyTarget }},
	{"start-as", true, func(r *conf.Resource) any { return r.StartAs }}, // counts at the next start anyway
	{"replication", false, func(r *conf.Resource) any { return r.Replication }},
	{"provider", false, func(r *conf.Resource) any { return r.Provider }},
	{"checksum", false, func(r *conf.Resource) any { return r.Checksum }},
	{"compression", false, func(r *conf.Resource) any { return r.Compression }},
	{"timeout", false, func(r *conf.Resource) any { return r.Timeout }},
	{"disk-timeout", false, func(r *conf.Resource) any { return r.DiskTimeout }},
}

// Reload reads the configuration again and applies what can change live. A
// mistake in it changes nothing.
func (d *server) Reload(ctx context.Context) (api.ReloadResult, error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	var res api.ReloadResult
	c, err := conf.Load(d.flags.File)
	if err != nil {
		return res, daemon.ConfigError(d.flags.File, err)
	}
	node, err := c.Node(d.node.Name)
	if err != nil {
		return res, exit.New(exit.Config, "name the node as before, or restart hastd with --node", "node %s, which this hastd is, is gone from %s", d.node.Name, d.flags.File)
	}
	res.Restart = append(res.Restart, d.processChanges(d.began, c, node)...)
	if err := d.reloadUnits(ctx, c, &res); err != nil {
		return res, err
	}
	for _, w := range c.Warnings {
		d.log.Warn(w)
	}
	d.log.Info("configuration read again", "changed", strings.Join(res.Changed, "; "), "restart", strings.Join(res.Restart, "; "))
	return res, nil
}

// ReloadOnSignal has only the log to tell.
func (d *server) ReloadOnSignal(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, api.DefaultTimeout)
	defer cancel()
	if _, err := d.Reload(ctx); err != nil {
		d.log.Error("configuration was not read again, the old one stays in force", "reason", err, "hint", exit.HintOf(err))
	}
}

// processChanges are changes of what belongs to the process.
func (d *server) processChanges(old, now *conf.Config, node *conf.Node) []string {
	var changes []string
	add := func(key string, from, to any) {
		if from != to {
			changes = append(changes, fmt.Sprintf("%s: %v to %v", key, from, to))
		}
	}
	h, _ := now.Effective(node)
	add("cluster.name", old.Cluster.Name, now.Cluster.Name)
	add("cluster.key-file", old.Cluster.KeyFile, now.Cluster.KeyFile)
	add("cluster.insecure", old.Cluster.Insecure, now.Cluster.Insecure)
	add("cluster.quorum", old.Cluster.Quorum, now.Cluster.Quorum)
	add("hastd.port", d.hastd.Port, h.Port)
	add("hastd.control", d.hastd.Control, h.Control)
	add("hastd.state", d.hastd.State, h.State)
	add("hastd.http", d.hastd.HTTP, h.HTTP)
	add("hastd.exec", d.hastd.Exec, h.Exec)
	for _, n := range now.Nodes {
		if before, err := old.Node(n.Name); err == nil {
			add("node."+n.Name+".id", before.ID, n.ID)
			if !slices.Equal(before.Addresses, n.Addresses) {
				changes = append(changes, fmt.Sprintf("node.%s.address: %v to %v", n.Name, before.Addresses, n.Addresses))
			}
			// The port of a node that this one dials; the others dial this one.
			if was, _ := old.Effective(before); d.dials(old, now, n) {
				is, _ := now.Effective(n)
				add("node."+n.Name+".hastd.port", was.Port, is.Port)
			}
		}
	}
	if watchesLeases(old) || watchesLeases(now) {
		add("cluster.toc", old.Cluster.TOC, now.Cluster.TOC)
		add("cluster.lease", old.Cluster.Lease, now.Cluster.Lease)
		add("cluster.watchdog-timeout", old.Cluster.WatchdogTimeout, now.Cluster.WatchdogTimeout)
	}
	if file := now.Cluster.KeyFile; file != "" && file == old.Cluster.KeyFile {
		key, err := conf.LoadKey(file)
		switch {
		case err != nil:
			d.log.Warn("the key cannot be read again: the next start would fail", "reason", err)
		case !bytes.Equal(key, d.key):
			changes = append(changes, fmt.Sprintf("cluster.key-file: %s has another key", file))
		}
	}
	return changes
}

// dials says whether a resource of this node has its peer on n, which it seeks there.
func (d *server) dials(old, now *conf.Config, n *conf.Node) bool {
	return d.node.ID < n.ID && slices.ContainsFunc(now.ResourceOn(d.node.Name), func(r *conf.Resource) bool {
		_, here := r.OnNode(n.Name)
		was, err := old.Peer(r.Name, d.node.Name)
		return here && err == nil && was.Name == n.Name // a new one has the new port
	})
}

// reloadUnits applies the resources of a new configuration: live settings to those
// that run, new ones are started, broken ones are tried again.
func (d *server) reloadUnits(ctx context.Context, c *conf.Config, res *api.ReloadResult) error {
	var units []*unit
	var fresh []*unit
	var failed error
	maker := d.maker()
	maker.conf = c
	for _, r := range c.ResourceOn(d.node.Name) {
		u := d.unit(r.Name)
		if u == nil || u.run == nil {
			n := maker.unit(r)
			units, fresh = append(units, n), append(fresh, n)
			switch {
			case n.run == nil:
				res.Restart = append(res.Restart, fmt.Sprintf("resource.%s does not work: %v", r.Name, n.err))
			case u == nil:
				res.Changed = append(res.Changed, fmt.Sprintf("resource.%s added", r.Name))
			default:
				res.Changed = append(res.Changed, fmt.Sprintf("resource.%s works again", r.Name))
			}
			continue
		}
		units = append(units, u)
		if err := u.apply(ctx, r, res); err != nil && failed == nil {
			failed = err
		}
	}
	for _, u := range d.all() {
		if !slices.ContainsFunc(units, func(n *unit) bool { return n.name == u.name }) {
			if !d.retire(ctx, u, res) {
				units = append(units, u)
			}
		}
	}
	for _, u := range fresh {
		wait := u.startAs()
		d.wg.Go(func() { wait(d.ctx, d.log) })
	}
	d.mu.Lock()
	d.conf, d.units = c, units
	d.mu.Unlock()
	return failed
}

// retire closes a resource that is gone from the configuration, unless it is in
// use.
func (d *server) retire(ctx context.Context, u *unit, res *api.ReloadResult) bool {
	name := "resource." + u.name
	if u.run == nil {
		res.Changed = append(res.Changed, name+" removed")
		return true
	}
	if s, err := u.run.Status(ctx); err != nil || s.Role != metadata.Init {
		res.Restart = append(res.Restart, name+" removed: it runs on until its role is init and the configuration is read again")
		return false
	}
	if err := u.close(ctx); err != nil {
		d.log.Error("resource did not stop cleanly", "resource", u.name, "reason", err)
	}
	res.Changed = append(res.Changed, name+" removed")
	return true
}

// apply gives a running resource its new settings as far as they can change.
// Settings that cannot stay as they were in u.conf, so that the next reload tells
// of them again.
func (u *unit) apply(ctx context.Context, r *conf.Resource, res *api.ReloadResult) error {
	var changed []string
	for _, s := range settings {
		from, to := s.get(u.conf.Load()), s.get(r)
		if from == to {
			continue
		}
		text := fmt.Sprintf("resource.%s.%s: %v to %v", r.Name, s.key, from, to)
		if s.live {
			changed = append(changed, text)
		} else {
			res.Restart = append(res.Restart, text)
		}
	}
	for _, on := range r.On {
		if on.Node != u.node && on.Node != u.peer {
			res.Restart = append(res.Restart, fmt.Sprintf("resource.%s.on: %s to %s", r.Name, u.peer, on.Node))
		}
	}
	was, _ := u.conf.Load().OnNode(u.node)
	is, _ := r.OnNode(u.node)
	for _, p := range []struct{ key, from, to string }{
		{"local", was.Local, is.Local}, {"metadata", was.Metadata, is.Metadata}, {"provider-path", was.ProviderPath, is.ProviderPath},
	} {
		if p.from != p.to {
			res.Restart = append(res.Restart, fmt.Sprintf("resource.%s.on.%s.%s: %s to %s", r.Name, u.node, p.key, p.from, p.to))
		}
	}
	if len(changed) == 0 {
		return nil
	}
	settings := live(r)
	if err := u.run.Command(ctx, replicate.Command{Kind: replicate.CmdReplaceConfig, Config: &settings}); err != nil {
		return fmt.Errorf("settings of resource %s: %w", r.Name, err)
	}
	u.setLive(r)
	res.Changed = append(res.Changed, changed...)
	return nil
}
