package main

import (
	"os"
	"strings"
	"testing"
)

func TestCheckLooksForTheWatchdog(t *testing.T) {
	const groups = `
[group.web]
nodes = ["alpha", "bravo"]
election = "external"
%FF
[[group.web.service]]
name = "app"
monitor = ["/bin/true"]
%SF
`
	for _, c := range []struct{ toc, watchdog, group, service, want string }{
		{"off", "/dev/null", "", "", ""},
		{"off", "/dev/null", "failfast = true", "", "warning: failfast of group web only fails the group over"},
		{"off", "/dev/null", "", "failfast = true", "warning: failfast of service app of group web only fails the group over"},
		{"reset", "/dev/null", "failfast = true", "failfast = true", ""},
		{"reset", "/dev/watchdog-of-another-machine", "", "", `warning: toc = "reset": watchdog /dev/watchdog-of-another-machine: there is none: vipd does not start on node alpha; `},
		{"crash", "/etc/passwd", "", "", `warning: toc = "crash": watchdog /etc/passwd: it is no device`},
	} {
		cl := newCluster(t, "data", "/nowhere/disk")
		b, err := os.ReadFile(cl.file)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(b), "[cluster]\n", "[cluster]\ntoc = \""+c.toc+"\"\nwatchdog = \""+c.watchdog+"\"\n", 1) +
			strings.NewReplacer("%FF", c.group, "%SF", c.service).Replace(groups)
		if err := os.WriteFile(cl.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, errs := call(cl.args("check")...)
		if code != 0 {
			t.Errorf("%+v: status %d: %s%s", c, code, out, errs)
		}
		said := strings.Contains(out, "toc = ") || strings.Contains(out, "failfast")
		if c.want == "" && said || !strings.Contains(out, c.want) {
			t.Errorf("%+v:\n%s", c, out)
		}
	}
}
