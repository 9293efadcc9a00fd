package main

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/daemon"
	"hastd/cmd/internal/exit"
	"hastd/conf"
)

// Reload reads the configuration again and says what would need a restart: nothing
// of a group changes while it runs.
func (s *server) Reload(context.Context) (api.ReloadResult, error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	var res api.ReloadResult
	c, err := conf.Load(s.o.Flags.File)
	if err != nil {
		return res, daemon.ConfigError(s.o.Flags.File, err)
	}
	node, err := c.Node(s.o.Node.Name)
	if err != nil {
		return res, exit.New(exit.Config, "name the node as before, or restart vipd with --node", "node %s, which this vipd is, is gone from %s", s.o.Node.Name, s.o.Flags.File)
	}
	differ := func(key string, a, b any) {
		if !reflect.DeepEqual(a, b) {
			res.Restart = append(res.Restart, key)
		}
	}
	hastd, vipd := c.Effective(node)
	was, _ := s.o.Conf.Effective(s.o.Node)
	differ("[vipd]", s.vipd, vipd)
	differ("hastd.control", was.Control, hastd.Control)
	// Heartbeats work without votes too.
	differ("cluster.name", s.o.Conf.Cluster.Name, c.Cluster.Name)
	differ("cluster.key-file", s.o.Conf.Cluster.KeyFile, c.Cluster.KeyFile)
	differ("cluster.heartbeat", s.o.Conf.Cluster.Heartbeat, c.Cluster.Heartbeat)
	differ("cluster.quorum", s.o.Conf.Cluster.Quorum, c.Cluster.Quorum)
	differ("cluster.toc", s.o.Conf.Cluster.TOC, c.Cluster.TOC)
	differ("cluster.watchdog", s.o.Conf.Cluster.Watchdog, c.Cluster.Watchdog)
	differ("cluster.watchdog-timeout", s.o.Conf.Cluster.WatchdogTimeout, c.Cluster.WatchdogTimeout)
	if s.majority() {
		differ("cluster.lease", s.o.Conf.Cluster.Lease, c.Cluster.Lease)
		differ("cluster.rejoin", s.o.Conf.Cluster.Rejoin, c.Cluster.Rejoin)
		res.Restart = append(res.Restart, changedResources(s.o.Conf, c)...)
	}
	before := map[string]*conf.Group{}
	for _, g := range s.o.Conf.Groups {
		before[g.Name] = g
	}
	for _, g := range c.Groups {
		if old := before[g.Name]; old == nil {
			res.Restart = append(res.Restart, fmt.Sprintf("group.%s added", g.Name))
		} else {
			differ("group."+g.Name, old, g)
		}
		delete(before, g.Name)
	}
	for _, g := range s.o.Conf.Groups {
		if before[g.Name] != nil {
			res.Restart = append(res.Restart, fmt.Sprintf("group.%s removed", g.Name))
		}
	}
	s.o.Log.Info("configuration read again", "restart", strings.Join(res.Restart, "; "))
	return res, nil
}

// changedResources are those about which the votes of this process do not decide yet, or
// decide still, or on other nodes.
func changedResources(was, is *conf.Config) (list []string) {
	ends := map[string][2]string{}
	for _, r := range was.Resources {
		ends[r.Name] = [2]string{r.On[0].Node, r.On[1].Node}
	}
	for _, r := range is.Resources {
		switch on, known := ends[r.Name]; {
		case !known:
			list = append(list, fmt.Sprintf("resource.%s added", r.Name))
		case on != [2]string{r.On[0].Node, r.On[1].Node}:
			list = append(list, fmt.Sprintf("resource.%s.on", r.Name))
		}
		delete(ends, r.Name)
	}
	for _, r := range was.Resources {
		if _, left := ends[r.Name]; left {
			list = append(list, fmt.Sprintf("resource.%s removed", r.Name))
		}
	}
	return list
}

// ReloadOnSignal has only the log to tell.
func (s *server) ReloadOnSignal(ctx context.Context) {
	if _, err := s.Reload(ctx); err != nil {
		s.o.Log.Error("configuration cannot be used", "reason", err, "hint", exit.HintOf(err))
	}
}
