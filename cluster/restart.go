package cluster

import "fmt"

// A part that fails while it is up is first put up again where it is: stopped, so that
// nothing of it is left, and started. What requires it is left alone, and has a monitor
// of its own to say whether it minds. Only when that was of no use as often as it may
// be tried, this node leaves the field. A first start that fails is not tried again
// here: the other node may do better, and clients wait.

// restartPause is the time between two restarts when the first was of no use at once.
const restartPause = Second

// renewable says whether a part that failed is put up again here, and has not been too
// often.
func (g *Group) renewable(p *part) bool {
	if p.Watched || p.Kind != Service {
		return false
	}
	return g.count(p) < p.RestartLimit
}

// count is how often a part was put up again since it was last stable.
func (g *Group) count(p *part) int {
	if p.tries > 0 && p.is != goingUp && g.now >= p.steadyAt {
		p.tries = 0
	}
	return p.tries
}

// renew has a part stopped and started again.
func (g *Group) renew(i int, why string) {
	p := &g.parts[i]
	p.tries++
	p.renew, p.renewAt = true, g.now
	// What fails again counts on, however long a stop takes.
	p.steadyAt = g.now.add(p.RestartReset + p.DownLimit + p.UpLimit + 2*breakGrace)
	g.emit(Effect{Kind: EffRestart, Part: i, Try: p.tries, Reason: why})
}

// notRenewed: the stop or the start of a restart failed.
func (g *Group) notRenewed(i int, err string) {
	p := &g.parts[i]
	if p.tries < p.RestartLimit && g.isUp {
		p.is, p.reason = unknown, err
		g.renew(i, "could not be started again: "+err)
		p.renewAt = g.now.add(restartPause)
		return
	}
	if !g.isUp && err == "" {
		p.is, p.reason = down, ""
		return
	}
	why := "could not be started again: " + err
	if !g.isUp {
		why = "could not be stopped to be started again: " + err
	}
	if p.tries > 1 {
		why = fmt.Sprintf("%s (%d restarts)", why, p.tries)
	}
	p.renew = false
	if p.Optional {
		p.is, p.reason = failed, err
		g.emit(Effect{Kind: EffReport, Part: i, Reason: why})
		return
	}
	p.is, p.reason = unknown, err
	g.leave(i, why)
}

// onMended counts how often a part was taken away and put back by its driver. Too
// often, and it counts as lost.
func (g *Group) onMended(i int, why string) {
	p := &g.parts[i]
	if p.is != up || g.frozen {
		return
	}
	n := g.count(p) + 1
	if n > p.RestartLimit {
		g.lost(i, fmt.Sprintf("%s, after it was put back %d times", why, p.RestartLimit))
		return
	}
	p.tries, p.steadyAt = n, g.now.add(p.RestartReset)
	g.emit(Effect{Kind: EffRestart, Part: i, Try: n, Reason: why})
}
