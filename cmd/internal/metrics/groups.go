package metrics

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/build"
)

// GroupSample is one group of vipd at the moment of a scrape.
type GroupSample struct {
	Node        string
	Group       api.Group
	VIP         api.VIP
	Transitions map[string]uint64 // of the election, by the new state
	Restarts    map[string]uint64 // by service
	Violations  uint64
}

// GroupSource gives the samples of all groups.
type GroupSource interface {
	GroupSamples() []GroupSample
	Watchdog() WatchdogSample
}

// WatchdogSample is how vipd's watchdog is fed.
type WatchdogSample struct {
	State    string // off fed withheld fencing disarmed
	Feeds    uint64
	Withheld uint64 // times that a part of vipd did not answer
}

// GroupCollector is a prometheus.Collector over a GroupSource.
type GroupCollector struct{ source GroupSource }

// NewGroupCollector makes one.
func NewGroupCollector(s GroupSource) *GroupCollector { return &GroupCollector{s} }

var (
	vipStates   = []string{"init", "backup", "master"}
	watchdogs   = []string{"off", "fed", "withheld", "fencing", "disarmed"}
	groupStates = []string{"offline", "starting", "online", "stopping", "partial", "faulted"}
)

var (
	vipdInfo       = prometheus.NewDesc("hast_build_info", "The running build of vipd; always 1.", []string{"version", "revision", "goversion"}, nil)
	vipState       = prometheus.NewDesc("hast_vip_state", "Whether this node is in this state of the group's election.", []string{"group", "state"}, nil)
	vipTransitions = prometheus.NewDesc("hast_vip_transitions_total", "Changes of this node's state in the group's election, by the new state.", []string{"group", "to"}, nil)
	vipAdverts     = prometheus.NewDesc("hast_vip_adverts_total", "Packets of the group's election: sent, and received and believed.", []string{"group", "direction"}, nil)
	vipRefused     = prometheus.NewDesc("hast_vip_adverts_refused_total", "Packets of the group's election that were not believed, by cause.", []string{"group", "cause"}, nil)
	watchdogState  = prometheus.NewDesc("hast_watchdog_state", "Whether this node's watchdog is in this state: off without toc.", []string{"state"}, nil)
	watchdogFeeds  = prometheus.NewDesc("hast_watchdog_feeds_total", "Times that the watchdog was fed.", nil, nil)
	watchdogUnfed  = prometheus.NewDesc("hast_watchdog_withheld_total", "Times that a part of vipd did not answer, so that the watchdog was not fed.", nil, nil)
	groupCount     = prometheus.NewDesc("hast_group_online_nodes", "On how many nodes the group is online or partial, as far as this node knows.", []string{"group"}, nil)
	violations     = prometheus.NewDesc("hast_concurrency_violations_total", "Times that a failover group was found up on more than one node.", []string{"group"}, nil)
	restarts       = prometheus.NewDesc("hast_service_restarts_total", "Local restarts of a service that failed.", []string{"group", "service"}, nil)
	groupState     = prometheus.NewDesc("hast_group_state", "Whether the group is in this state on this node.", []string{"group", "node", "state"}, nil)
)

// Describe implements prometheus.Collector.
func (c *GroupCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{vipdInfo, vipState, vipTransitions, vipAdverts, vipRefused, groupState, groupCount, violations, restarts, watchdogState, watchdogFeeds, watchdogUnfed} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *GroupCollector) Collect(ch chan<- prometheus.Metric) {
	b := build.Read()
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	send(vipdInfo, prometheus.GaugeValue, 1, b.Version, b.Revision, b.Go)
	w := c.source.Watchdog()
	for _, state := range watchdogs {
		send(watchdogState, prometheus.GaugeValue, truth(state == w.State), state)
	}
	send(watchdogFeeds, prometheus.CounterValue, float64(w.Feeds))
	send(watchdogUnfed, prometheus.CounterValue, float64(w.Withheld))
	for _, s := range c.source.GroupSamples() {
		name := s.Group.Name
		for _, state := range groupStates {
			send(groupState, prometheus.GaugeValue, truth(state == s.Group.State), name, s.Node, state)
		}
		send(groupCount, prometheus.GaugeValue, float64(s.Group.Count), name)
		send(violations, prometheus.CounterValue, float64(s.Violations), name)
		for _, service := range slices.Sorted(maps.Keys(s.Restarts)) {
			send(restarts, prometheus.CounterValue, float64(s.Restarts[service]), name, service)
		}
		if s.VIP.State == "" {
			continue // somebody else decides
		}
		for _, state := range vipStates {
			send(vipState, prometheus.GaugeValue, truth(state == s.VIP.State), name, state)
			send(vipTransitions, prometheus.CounterValue, float64(s.Transitions[state]), name, state)
		}
		send(vipAdverts, prometheus.CounterValue, float64(s.VIP.Adverts.Sent), name, "sent")
		send(vipAdverts, prometheus.CounterValue, float64(s.VIP.Adverts.Received), name, "received")
		for _, cause := range slices.Sorted(maps.Keys(s.VIP.Adverts.Refused)) {
			send(vipRefused, prometheus.CounterValue, float64(s.VIP.Adverts.Refused[cause]), name, cause)
		}
	}
}
