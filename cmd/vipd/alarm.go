package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hastd/carp"
	"hastd/carp/vip"
	"hastd/cluster"
	crunner "hastd/cluster/runner"
)

// onAddressLost hears of an address that was taken away, and is put back by its keeper.
// The machine counts how often.
func (u *group) onAddressLost(p netip.Prefix) {
	u.s.event("address", u.conf.Name, p.String(), "", "it was taken away, and is put back")
	u.machine.Tell(cluster.Event{Kind: cluster.EvMended, Part: addressPart(u.conf, u.parts, p), Err: fmt.Sprintf("%s was taken away by somebody else", p.Addr())})
}

// onAddressTaken hears that addresses whose time ran out cannot be put back: somebody
// else has one.
func (u *group) onAddressTaken(c *vip.Conflict) {
	u.s.event("address", u.conf.Name, "", "", c.Error())
	u.machine.Tell(cluster.Event{Kind: cluster.EvLost, Part: u.parts - 1, Err: c.Error()})
}

// tellMaster is the time between two adverts of one node that the machine hears of.
const tellMaster = 250 * time.Millisecond

// onAdvert tells the machine who advertises as master. It is called by the election,
// before that draws its conclusions.
func (u *group) onAdvert(a carp.Advert) {
	name := u.nodeAt(a.From)
	key := fmt.Sprint(name, a.Leaving)
	if now := time.Now(); key != u.heard || now.Sub(u.heardAt) >= tellMaster {
		u.heard, u.heardAt = key, now
		u.machine.Tell(cluster.Event{Kind: cluster.EvMaster, Node: name, Up: !a.Leaving})
	}
}

// nodeAt names the node of the group that sends from an address. Where clients are, it
// may have one that the configuration does not name: with one other node it is that
// one's. A stranger is called by its address.
func (u *group) nodeAt(a netip.Addr) string {
	others := 0
	only := ""
	for _, name := range u.conf.Nodes {
		if name == u.s.Node() {
			continue
		}
		others++
		only = name
		if n, err := u.s.o.Conf.Node(name); err == nil && slices.Contains(n.Addresses, a) {
			return name
		}
	}
	if others == 1 {
		return only
	}
	return a.String()
}

// onAlarm counts what a person should hear of, and tells it as an event.
func (u *group) onAlarm(a crunner.Alarm) {
	name := u.conf.Name
	if a.Part != "" {
		name = a.Part
	}
	u.mu.Lock()
	switch a.Kind {
	case "restart":
		if service, ok := strings.CutPrefix(a.Part, u.conf.Name+"/service/"); ok {
			u.restarts[service]++
		}
	case "concurrency":
		u.violations++
	}
	u.mu.Unlock()
	if a.Kind == "concurrency" && a.Part == "" && u.keeper != nil {
		u.keeper.Announce() // who believed the other one shall come back
	}
	u.s.event(a.Kind, name, "", "", a.Reason)
}
