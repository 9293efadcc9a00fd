package carp

import "cmp"

// Both protocols: the master advertises, a backup that hears nothing for long
// enough takes over, and of two masters the better stays: of equals the one with the
// higher address. A backup leaves an equal master alone. They differ in what makes one
// better and in who sets the pace.

// carpRules: who advertises more often is better. Each node goes by its own pace.
type carpRules struct{}

// carpMaxSkew is the slowest that demotion makes a node.
const carpMaxSkew = 240

// carpLeaving are base and skew of a master's last packet.
const carpLeaving = 255

// CARPEvery is the time between two packets of a master.
func CARPEvery(advbase, advskew uint8) Duration {
	return Duration(advbase)*Second + Duration(advskew)*Second/256
}

// skew is what this node says of itself.
func (carpRules) skew(m *Machine) uint8 {
	if m.demotion == 0 {
		return m.cfg.Advskew
	}
	return uint8(min(int(m.cfg.Advskew)+int(m.demotion), carpMaxSkew))
}

func (c carpRules) every(m *Machine) Duration { return CARPEvery(m.cfg.Advbase, c.skew(m)) }

func (c carpRules) down(m *Machine) Duration {
	return Duration(m.cfg.DeadRatio)*Duration(m.cfg.Advbase)*Second + Duration(c.skew(m))*Second/256
}

func (c carpRules) rank(m *Machine, a *Advert) int { return cmp.Compare(c.every(m), a.Every) }

func (c carpRules) advert(m *Machine, leaving bool) Advert {
	a := Advert{From: m.cfg.Self, Every: c.every(m), Leaving: leaving}
	if leaving {
		a.Every = CARPEvery(carpLeaving, carpLeaving)
	}
	return a
}

// left: a master that advertises so seldom counts as gone (carp(4)).
func (carpRules) left(*Machine) Duration { return 0 }
func (carpRules) atOnce() bool           { return true }
func (carpRules) owns(*Machine) bool     { return false }

// vrrpRules: RFC 9568, section 6. A higher priority is better; a backup goes by the
// pace that the master says.
type vrrpRules struct{}

const vrrpOwner = 255 // whose address it is: master from the start

func (vrrpRules) priority(m *Machine) uint8 {
	if m.cfg.Priority == vrrpOwner {
		return vrrpOwner
	}
	return uint8(max(1, int(m.cfg.Priority)-int(m.demotion)))
}

func (vrrpRules) every(m *Machine) Duration { return m.cfg.Interval }

// pace is the interval of the master that was heard, or of this one: the others go by
// what it says itself.
func (vrrpRules) pace(m *Machine) Duration {
	if m.everHeard && m.state != Master {
		return m.heard.Every
	}
	return m.cfg.Interval
}

// left is RFC 9568's Skew_Time.
func (v vrrpRules) left(m *Machine) Duration {
	return Duration(256-int(v.priority(m))) * v.pace(m) / 256
}

func (v vrrpRules) down(m *Machine) Duration {
	return Duration(m.cfg.DeadRatio)*v.pace(m) + v.left(m)
}

func (v vrrpRules) rank(m *Machine, a *Advert) int { return cmp.Compare(a.Priority, v.priority(m)) }

func (v vrrpRules) advert(m *Machine, leaving bool) Advert {
	a := Advert{From: m.cfg.Self, Every: m.cfg.Interval, Priority: v.priority(m), Leaving: leaving}
	if leaving {
		a.Priority = 0
	}
	return a
}

func (vrrpRules) atOnce() bool           { return false }
func (v vrrpRules) owns(m *Machine) bool { return v.priority(m) == vrrpOwner }
