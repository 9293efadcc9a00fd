package lab

import (
	"os"
	"strings"
	"testing"
	"time"
)

// tellingService notes each start and each stop.
const tellingService = `
[[group.data.service]]
name     = "app"
start    = ["/bin/sh", "-c", "echo start >>$dir/calls; touch $app"]
stop     = ["/bin/sh", "-c", "echo stop >>$dir/calls; rm -f $app"]
monitor  = ["/bin/sh", "-c", "test -e $dir/slow && sleep 1; test -e $app && exit 110; exit 100"]
interval = "1s"
`

// calls are the starts and stops of the service since the last call.
func (n *Node) calls() string {
	b, _ := os.ReadFile(n.path("calls"))
	os.Remove(n.path("calls"))
	return strings.Join(strings.Fields(string(b)), " ")
}

// TestVipdStarts is a controller that is started where the group was left up, in a
// cluster with votes. Within the lease it keeps everything; after another node took over
// it takes everything down and follows; and one that ends hands over.
func TestVipdStarts(t *testing.T) {
	beside(t)
	l := newLab(t, Options{Majority: true, Witness: true, Group: true, LAN: true, Plain: true, Size: 16 << 20, LogLevel: "info", Seed: *seedFlag})
	must(t, l.GroupServices(tellingService))
	v, err := StartVotes(background(t), l, Alpha, *seedFlag)
	defer v.Stop()
	must(t, err)
	a, b := l.Nodes[Alpha], l.Nodes[Bravo]
	a.calls()
	b.calls()

	for name, slow := range map[string]bool{"within the lease": false, "within the lease, and the service is looked at for a second": true} {
		t.Run(name, func(t *testing.T) {
			v.Begin()
			if slow {
				must(t, a.flag("slow", true))
				defer a.flag("slow", false)
			}
			from := len(a.Log())
			began := time.Now()
			must(t, a.KillVipd())
			must(t, a.StartVipd())
			must(t, v.Says(HostAlpha, "group data: master"))
			t.Logf("master again after %v", ms(time.Since(began)))
			must(t, a.WaitGroup("online", downLimit))
			must(t, v.Stays(a, 2*majorityLease)) // longer than the address lived
			if got := a.calls(); got != "" {
				t.Errorf("the service was told: %s", got)
			}
			if strings.Contains(a.Log()[from:], "new=secondary") {
				t.Error("the resource was made secondary")
			}
			if n := v.Count(HostAlpha, `members="alpha charlie"`); n > 0 && strict() {
				t.Error("bravo was left out of a view")
			}
			// What it had to live for when its controller died, a new one may be late by.
			limit := overlapSlack
			if !strict() {
				limit += busyPause
			}
			pause := v.client.pause()
			t.Logf("the client's longest time without an answer is %v", ms(pause))
			if pause > limit {
				t.Errorf("that is more than %v", limit)
			}
			must(t, v.End(background(t)))
		})
	}
	t.Run("after another node took over", func(t *testing.T) {
		v.Begin()
		must(t, a.KillVipd())
		must(t, v.Serves(background(t), b))
		if s, err := a.Status(); err != nil || s.Role == "primary" && !s.IO.Suspended || !a.HasApp() {
			t.Errorf("alpha, whose controller is dead: %v %v, service %v", s, err, a.HasApp())
		}
		must(t, a.StartVipd())
		must(t, v.settle(a, b))
		if here, there := a.calls(), b.calls(); here != "stop" || there != "start" {
			t.Errorf("the service was told here: %s; there: %s", here, there)
		}
		must(t, v.End(background(t)))
	})
	t.Run("SIGTERM", func(t *testing.T) {
		v.Begin()
		must(t, b.StopVipd())
		must(t, v.Serves(background(t), a))
		limit := plannedPause
		if !strict() {
			limit += busyPause
		}
		pause := v.client.pause()
		t.Logf("the client's longest time without an answer is %v", ms(pause))
		if pause > limit {
			t.Errorf("that is more than %v", limit)
		}
		must(t, b.StartVipd())
		must(t, v.settle(b, a))
		must(t, v.End(background(t)))
	})
}
