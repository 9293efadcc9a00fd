package main

import (
	"testing"
	"time"
)

func TestSilentHastdIsKilled(t *testing.T) {
	type step struct {
		after          time.Duration // the last step
		answered, gone bool
		pid            int
		kill           bool
	}
	const sec = time.Second
	for name, steps := range map[string][]step{
		"one that answered and fell silent": {
			{answered: true, pid: 7}, {after: sec, pid: 7}, {after: 2 * sec, pid: 7}, {after: 2 * sec, pid: 7}, {after: 2 * sec, pid: 7, kill: true}, {after: sec, pid: 7},
		},
		"one that starts slowly": {
			{gone: true}, {after: sec, pid: 7}, {after: 3 * sec, pid: 7}, {after: 3 * sec, pid: 7}, {after: 3 * sec, pid: 7}, {after: sec, answered: true, pid: 7},
		},
		"one that was started anew between two questions": {
			{answered: true, pid: 7}, {after: sec, pid: 8}, {after: 3 * sec, pid: 8}, {after: 3 * sec, pid: 8},
		},
		"one that answers now and then": {
			{answered: true, pid: 7}, {after: 3 * sec, pid: 7}, {after: 3 * sec, answered: true, pid: 7}, {after: 3 * sec, pid: 7}, {after: 3 * sec, pid: 7},
		},
		"vipd itself stood still": {
			{answered: true, pid: 7}, {after: sec, pid: 7}, {after: 60 * sec, pid: 7}, {after: 2 * sec, pid: 7}, {after: 3 * sec, pid: 7, kill: true},
		},
	} {
		w := silence{limit: 5 * sec}
		now := time.Unix(1000, 0)
		for i, s := range steps {
			now = now.Add(s.after)
			if kill := w.asked(now, now, s.answered, s.gone, s.pid); kill != s.kill {
				t.Errorf("%s: step %d: killed %v", name, i, kill)
			}
		}
	}
}
