package runner

import (
	"log/slog"
	"strings"
	"testing"

	"hastd/blockdev"
	"hastd/replicate"
)

// usedProvider is one that somebody uses until it is closed by force.
type usedProvider struct{ users []string }

func (p *usedProvider) Kind() string             { return "used" }
func (p *usedProvider) Path() string             { return "/dev/hast/data" }
func (p *usedProvider) Users() ([]string, error) { return p.users, nil }

func (p *usedProvider) Close(force bool) error {
	if len(p.users) > 0 && !force {
		return &blockdev.InUseError{Path: p.Path(), Users: p.users}
	}
	p.users = nil
	return nil
}

// Who stops the daemon or demotes by force reads in the log who lost the device.
func TestWhoIsCutIsTold(t *testing.T) {
	for _, c := range []struct {
		users []string
		force bool
		want  int
	}{
		{[]string{"the mount on /srv/data", "postgres (pid 7)"}, true, 1},
		{nil, true, 0},
		{[]string{"postgres (pid 7)"}, false, 0}, // refused: nobody is cut
	} {
		log := new(syncBuffer)
		r := &Resource{box: newMailbox(), opts: Options{Resource: "data", Log: slog.New(slog.NewTextHandler(log, nil))}}
		r.stopProvider(&usedProvider{c.users}, replicate.OpID(1), c.force)
		if n := countOf(log.String(), `users="`+strings.Join(c.users, ", ")+`"`); n != c.want || countOf(log.String(), "level=WARN") != c.want {
			t.Errorf("%q, force %v: %d lines, want %d:\n%s", c.users, c.force, n, c.want, log)
		}
	}
}
