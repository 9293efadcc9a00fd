package conf

import (
	"strings"
	"testing"
)

// notBuilt sets each key of a resource that is read and not carried out.
const notBuilt = `[cluster]
name = "c"
key-file = "/key"
[node.a]
id = 0
address = ["127.0.0.1"]
[node.b]
id = 1
address = ["127.0.0.2"]
[resource.r]
provider = "ublk"
after-split-brain = "discard-node:b"
on.a.local = "/a"
on.b.local = "/b"
[resource.r.sync]
verify-after-sync = "all"
verify-schedule = "0 3 * * sun"
`

func TestWhatIsNotInThisBuildIsTold(t *testing.T) {
	c, err := Parse("f", []byte(notBuilt))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "warnings", c.Warnings, []string{
		`f:11: resource.r.provider: "ublk" is not in this build: the resource cannot become primary; write "auto", "fuse" or "nbd-server"`,
		`f:12: resource.r.after-split-brain: "discard-node:b" is not in this build: it has no effect, and a split-brain waits for "hastctl recover"`,
		`f:16: resource.r.sync.verify-after-sync: "all" is not in this build: it has no effect`,
		`f:17: resource.r.sync.verify-schedule: "0 3 * * sun" is not in this build: it has no effect`,
	})
	_, err = Parse("f", []byte(strings.Replace(notBuilt, `provider = "ublk"`, "tls = true", 1)))
	if want := "f:11: resource.r.tls: is not in this build, so the resource could not work; write tls = false"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}
