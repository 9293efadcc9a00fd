package main

import (
	"maps"

	"hastd/cmd/internal/metrics"
)

// GroupSamples is the source of the metrics.
func (s *server) GroupSamples() []metrics.GroupSample {
	var list []metrics.GroupSample
	for _, u := range s.groups {
		x := metrics.GroupSample{Node: s.Node(), Group: u.status(), VIP: u.vip()}
		u.mu.Lock()
		x.Transitions, x.Restarts, x.Violations = maps.Clone(u.transitions), maps.Clone(u.restarts), u.violations
		u.mu.Unlock()
		list = append(list, x)
	}
	return list
}
