package contrib

import (
	"os"
	"strings"
	"testing"
	"time"
)

// What the agent exits with: the numbers of OCF 1.1.
const (
	success        = 0
	generic        = 1
	arguments      = 2
	unimplemented  = 3
	permission     = 4
	notInstalled   = 5
	notConfigured  = 6
	notRunning     = 7
	promoted       = 8
	failedPromoted = 9
)

// shellfuncs is where Debian's resource-agents has what agents share.
const shellfuncs = "/usr/lib/ocf/lib/heartbeat"

// agent is a call as Pacemaker makes it.
func agent(t testing.TB, f *fake, action string, more ...string) result {
	t.Helper()
	env := f.with(append([]string{
		"OCF_ROOT", "/usr/lib/ocf", "OCF_FUNCTIONS_DIR", f.path("none"), "OCF_RA_VERSION_MAJOR", "1", "OCF_RA_VERSION_MINOR", "1",
		"OCF_RESOURCE_INSTANCE", "hast-data", "OCF_RESOURCE_TYPE", "hast", "OCF_RESOURCE_PROVIDER", "hast",
		"OCF_RESKEY_crm_feature_set", "3.16.2",
		"OCF_RESKEY_resource", "data", "OCF_RESKEY_CRM_meta_timeout", "20000", "OCF_RESKEY_CRM_meta_clone", "0",
		"OCF_RESKEY_CRM_meta_clone_max", "2", "OCF_RESKEY_CRM_meta_promoted_max", "1", "OCF_RESKEY_CRM_meta_notify", "true",
		"OCF_RESKEY_CRM_meta_interval", "0",
	}, more...)...)
	return call(t, env, os.Getuid(), script(t, "ocf/hast"), action)
}

// scores makes the fake have Pacemaker's crm_attribute, which notes what it is told.
func (f *fake) scores() { f.program("crm_attribute", `echo "$*" >>"$here/scores"`) }

func (f *fake) lastScore() string {
	lines := strings.Split(strings.TrimSpace(f.read("scores")), "\n")
	return lines[len(lines)-1]
}

// TestAgentExitCodes has every action, and every exit code with it.
func TestAgentExitCodes(t *testing.T) {
	init := uptodate.with(func(s *state) { s.role, s.status, s.disk = "init", "init", "diskless" })
	primary := uptodate.with(func(s *state) { s.role = "primary" })
	bothFailed := primary.with(func(s *state) { s.status, s.disk = "failed", "failed" })
	broken := init.with(func(s *state) { s.status, s.disk = "failed", "failed" })
	closed := notRunning // what "hastd is not there" means: only root can tell
	if os.Getuid() != 0 {
		closed = permission
	}
	stopUnreachable := success
	if os.Getuid() != 0 {
		stopUnreachable = permission
	}
	unknown := `case "$*" in "status data") ` + fails(64) + ` ;; esac; echo '{"node":"alpha","resources":[]}'`
	for _, c := range []struct {
		name, action string
		does         []string // command and what it does, in pairs
		env          []string
		want         int
		says         string // part of the output
	}{
		{"unknown action", "migrate_to", nil, nil, unimplemented, "usage"},
		{"no action", "", nil, nil, unimplemented, "usage"},
		{"usage", "usage", nil, nil, success, "usage"},
		{"no resource", "start", nil, []string{"OCF_RESKEY_resource", ""}, notConfigured, "missing"},
		{"all is no resource", "start", nil, []string{"OCF_RESKEY_resource", "all"}, notConfigured, "cannot be the name"},
		{"odd name", "validate-all", nil, []string{"OCF_RESKEY_resource", "a;b"}, notConfigured, "cannot be the name"},
		{"no hastctl", "monitor", nil, []string{"OCF_RESKEY_hastctl", "/nowhere/hastctl"}, notInstalled, "/nowhere/hastctl is not installed"},

		{"monitor stopped", "monitor", []string{"status", init.shows()}, nil, notRunning, ""},
		{"monitor secondary", "monitor", []string{"status", uptodate.shows()}, nil, success, ""},
		{"monitor primary", "monitor", []string{"status", primary.shows()}, nil, promoted, ""},
		{"monitor primary without a disk", "monitor", []string{"status", bothFailed.shows()}, nil, failedPromoted, `"role": {primary}`},
		{"monitor what does not answer", "monitor", []string{"status", broken.shows()}, nil, generic, "ocf-exit-reason"},
		{"monitor a name unknown to hastd", "monitor", []string{"status", unknown}, nil, notRunning, ""},
		{"monitor with wrong arguments", "monitor", []string{"status", fails(64)}, nil, arguments, "it failed with 64; mend 64"},
		{"monitor without hastd", "monitor", []string{"status", fails(69)}, nil, closed, ""},
		{"monitor busy", "monitor", []string{"status", fails(75)}, nil, generic, "it failed with 75; mend 75"},
		{"monitor bad configuration", "monitor", []string{"status", fails(78)}, nil, arguments, "it failed with 78"},
		{"monitor nonsense", "monitor", []string{"status", "echo '{}'"}, nil, generic, "not understood"},

		{"start", "start", []string{"status", uptodate.shows()}, nil, success, ""},
		{"start refused", "start", []string{"role-secondary", fails(77)}, nil, generic, "it failed with 77; mend 77"},
		{"start unknown", "start", []string{"role-secondary", fails(64)}, nil, arguments, "it failed with 64"},
		{"start bad configuration", "start", []string{"role-secondary", fails(78)}, nil, arguments, "it failed with 78"},
		{"start bad disk", "start", []string{"role-secondary", fails(74)}, nil, generic, "it failed with 74"},
		{"start without hastd", "start", []string{"role-secondary", fails(69)}, []string{"OCF_RESKEY_CRM_meta_timeout", "3000"}, generic, "it failed with 69"},

		{"promote", "promote", []string{"status", uptodate.shows()}, nil, success, ""},
		{"promote stopped", "promote", []string{"status", init.shows()}, nil, notRunning, "not started"},
		{"promote refused", "promote", []string{"status", uptodate.shows(), "role-primary", fails(77)}, nil, generic, "it failed with 77; mend 77"},
		{"promote busy", "promote", []string{"status", uptodate.shows(), "role-primary", fails(75)}, []string{"OCF_RESKEY_CRM_meta_timeout", "3000"}, generic, "it failed with 75"},
		{"promote a failed primary", "promote", []string{"status", bothFailed.shows()}, nil, failedPromoted, "primary, but"},

		{"demote", "demote", []string{"status", primary.shows()}, nil, success, ""},
		{"demote secondary", "demote", []string{"status", uptodate.shows(), "role-secondary", fails(70)}, nil, success, ""},
		{"demote stopped", "demote", []string{"status", init.shows()}, nil, notRunning, "not started"},
		{"demote without hastd", "demote", []string{"status", fails(69)}, nil, closed, ""},
		{"demote what does not answer", "demote", []string{"status", broken.shows(), "role-secondary", fails(74)}, nil, generic, "it failed with 74"},
		{"demote in use", "demote", []string{"status", primary.shows(), "role-secondary", fails(75)}, []string{"OCF_RESKEY_CRM_meta_timeout", "3000"}, generic, "it failed with 75; mend 75"},

		{"stop", "stop", []string{"status", uptodate.shows()}, nil, success, ""},
		{"stop stopped", "stop", []string{"status", init.shows()}, nil, success, ""},
		{"stop without hastd", "stop", []string{"status", fails(69), "role-init", fails(69)}, nil, stopUnreachable, ""},
		{"stop a name unknown to hastd", "stop", []string{"status", unknown, "role-init", fails(64)}, nil, success, ""},
		{"stop with wrong arguments", "stop", []string{"status", fails(64), "role-init", fails(64)}, nil, arguments, "it failed with 64"},
		{"stop bad configuration", "stop", []string{"status", fails(78), "role-init", fails(78)}, nil, arguments, "it failed with 78"},
		{"stop in use", "stop", []string{"status", primary.shows(), "role-secondary", fails(75)}, []string{"OCF_RESKEY_CRM_meta_timeout", "3000"}, generic, "it failed with 75"},
		{"stop what cannot work", "stop", []string{"status", broken.shows(), "role-init", fails(74)}, nil, success, ""},
		{"stop what does not answer", "stop", []string{"status", broken.shows(), "role-init", fails(75)}, []string{"OCF_RESKEY_CRM_meta_timeout", "3000"}, generic, "it failed with 75"},
		{"stop with a bad disk", "stop", []string{"status", uptodate.shows(), "role-init", fails(74)}, nil, generic, "it failed with 74"},

		{"notify before", "notify", nil, []string{"OCF_RESKEY_CRM_meta_notify_type", "pre", "OCF_RESKEY_CRM_meta_notify_operation", "promote"}, success, ""},
		{"notify after", "notify", []string{"status", uptodate.shows()}, []string{"OCF_RESKEY_CRM_meta_notify_type", "post", "OCF_RESKEY_CRM_meta_notify_operation", "start"}, success, ""},
		{"notify without hastd", "notify", []string{"status", fails(69)}, []string{"OCF_RESKEY_CRM_meta_notify_type", "post"}, success, ""},

		{"validate", "validate-all", []string{"status", uptodate.shows()}, nil, success, ""},
		{"validate without hastd", "validate-all", []string{"status", fails(69)}, nil, success, ""},
		{"validate unknown", "validate-all", []string{"status", unknown}, nil, arguments, "has no resource data"},
		{"validate a bad configuration", "validate-all", []string{"check", fails(78)}, nil, arguments, "it failed with 78"},
		{"validate tells the mistake", "validate-all", []string{"check", "echo 'warning: w'; echo '/x:1: a: wrong; mend it'; echo '/x:2: b: wrong'; " + fails(78)}, nil, arguments,
			"validate-all: it failed with 78: /x:1: a: wrong; mend it; mend 78\n"},
		{"validate with a socket", "validate-all", []string{"check", fails(78), "status", uptodate.shows()}, []string{"OCF_RESKEY_control", "/sock"}, success, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.scores()
			for i := 0; i < len(c.does); i += 2 {
				f.does(c.does[i], c.does[i+1])
			}
			r := agent(t, f, c.action, c.env...)
			if r.code != c.want {
				t.Errorf("status %d, want %d", r.code, c.want)
			}
			wantIn(t, r.output, c.says)
			if strings.Contains(f.read("calls"), "force") {
				t.Errorf("it used force:\n%s", f.read("calls"))
			}
			if t.Failed() {
				t.Logf("it said:\n%s\nit called:\n%s", r.output, f.read("calls"))
			}
		})
	}
}

// TestAgentPassesParameters: each parameter reaches hastctl.
func TestAgentPassesParameters(t *testing.T) {
	f := newFake(t)
	f.does("status", uptodate.shows())
	agent(t, f, "monitor", "OCF_RESKEY_config", "/etc/other file.toml", "OCF_RESKEY_node", "alpha", "OCF_RESKEY_control", "/sock",
		"OCF_RESKEY_hastctl", f.path("hastctl"))
	wantIn(t, f.read("calls"), "-c /etc/other file.toml --node alpha --control /sock --timeout ", " --json status data")
}

// TestAgentRetries: what hastctl calls busy is tried again while there is time, and
// stop demotes first.
func TestAgentRetries(t *testing.T) {
	primary := uptodate.with(func(s *state) { s.role = "primary" })
	init := uptodate.with(func(s *state) { s.role, s.status, s.disk = "init", "init", "diskless" })
	twice := func(code int) string {
		return `n=$(cat "$here/n" 2>/dev/null || echo 0); echo $((n + 1)) >"$here/n"; [ "$n" -ge 2 ] || { ` + fails(code) + `; }`
	}
	for _, c := range []struct {
		action, command, status, order string
		code                           int
	}{
		{"start", "role-secondary", init.shows(), "role secondary", 75},
		{"start", "role-secondary", init.shows(), "role secondary", 69},
		{"promote", "role-primary", uptodate.shows(), "role primary", 75},
		{"demote", "role-secondary", primary.shows(), "role secondary", 75},
		{"stop", "role-secondary", primary.shows(), "role secondary role init", 75},
		{"stop", "role-init", uptodate.shows(), "role init", 75},
	} {
		t.Run(c.action+" "+c.command, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.does("status", c.status)
			f.does(c.command, twice(c.code))
			if r := agent(t, f, c.action); r.code != success {
				t.Errorf("status %d\n%s\n%s", r.code, r.output, f.read("calls"))
			}
			var orders []string
			for line := range strings.Lines(f.read("calls")) {
				if _, order, ok := strings.Cut(strings.TrimSpace(line), " role "); ok {
					order = "role " + strings.TrimSuffix(order, " data")
					if len(orders) == 0 || orders[len(orders)-1] != order {
						orders = append(orders, order)
					}
				}
			}
			if got := strings.Join(orders, " "); got != c.order {
				t.Errorf("orders %q, want %q", got, c.order)
			}
			if got := strings.TrimSpace(f.read("n")); got != "3" {
				t.Errorf("%s attempts, want 3", got)
			}
		})
	}
}

// TestAgentEndsInTime: a hastctl that hangs, even one that ignores SIGTERM, does not
// make the agent late.
func TestAgentEndsInTime(t *testing.T) {
	const given = 5 * time.Second
	for _, action := range []string{"monitor", "start", "promote", "demote", "stop", "validate-all"} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			for _, c := range []string{"status", "role-primary", "role-secondary", "role-init", "check"} {
				f.does(c, `trap '' TERM; sleep 50`)
			}
			r := agent(t, f, action, "OCF_RESKEY_CRM_meta_timeout", "5000")
			if r.code != generic {
				t.Errorf("status %d, want %d\n%s", r.code, generic, r.output)
			}
			wantIn(t, r.output, "did not end within")
			// A loaded machine may need a second more than the shell counts.
			if r.took > given+time.Second {
				t.Errorf("it took %v of %v", r.took, given)
			}
		})
	}
}

// TestAgentScores: what Pacemaker is told of each state.
func TestAgentScores(t *testing.T) {
	for _, c := range []struct {
		name string
		s    state
		want string
	}{
		{"primary", uptodate.with(func(s *state) { s.role = "primary" }), "10000"},
		{"primary in split-brain", uptodate.with(func(s *state) { s.role, s.status = "primary", "split-brain" }), "10000"},
		{"primary without its disk", uptodate.with(func(s *state) { s.role, s.status, s.disk = "primary", "degraded", "failed" }), "9000"},
		{"primary without any disk", uptodate.with(func(s *state) { s.role, s.status, s.disk = "primary", "failed", "failed" }), ""},
		{"secondary", uptodate, "1000"},
		{"alone", uptodate.with(func(s *state) { s.status, s.connection, s.peerDisk = "degraded", "connecting", "unknown" }), "100"},
		{"target", uptodate.with(func(s *state) { s.status, s.disk = "syncing", "inconsistent" }), "10"},
		{"outdated, the peer is there", uptodate.with(func(s *state) { s.status, s.disk = "degraded", "outdated" }), "10"},
		{"both inconsistent", uptodate.with(func(s *state) { s.disk, s.peerDisk = "inconsistent", "inconsistent" }), ""},
		{"inconsistent alone", uptodate.with(func(s *state) { s.connection, s.disk, s.peerDisk = "connecting", "inconsistent", "unknown" }), ""},
		{"outdated alone", uptodate.with(func(s *state) { s.connection, s.disk, s.peerDisk = "connecting", "outdated", "unknown" }), ""},
		{"split-brain", uptodate.with(func(s *state) { s.status, s.connection = "split-brain", "split-brain" }), ""},
		{"split-brain by its status", uptodate.with(func(s *state) { s.status = "split-brain" }), ""},
		{"split-brain by its connection", uptodate.with(func(s *state) { s.connection = "split-brain" }), ""},
		{"refused", uptodate.with(func(s *state) { s.status, s.connection = "degraded", "refused" }), ""},
		{"disk failed", uptodate.with(func(s *state) { s.status, s.disk = "failed", "failed" }), ""},
		{"new", uptodate.with(func(s *state) { s.resuid = "0000000000000000" }), "10"},
		{"new and alone", uptodate.with(func(s *state) { s.resuid, s.connection = "0000000000000000", "connecting" }), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.scores()
			f.does("status", c.s.shows())
			want := "--promotion -D"
			if c.want != "" {
				want = "--promotion -v " + c.want
			}
			for _, action := range []string{"monitor", "notify"} {
				os.Remove(f.path("scores"))
				agent(t, f, action, "OCF_RESKEY_CRM_meta_notify_type", "post")
				if got := f.lastScore(); got != want {
					t.Errorf("%s: %q, want %q", action, got, want)
				}
			}
		})
	}
}

// TestAgentScoresAroundActions: a stop and a refused promotion take the score away;
// an older Pacemaker has crm_master only, and the agent works without either.
func TestAgentScoresAroundActions(t *testing.T) {
	f := newFake(t)
	f.program("crm_master", `echo "master $*" >>"$here/scores"`)
	f.does("status", uptodate.shows())
	step := func(action, want string) {
		t.Helper()
		agent(t, f, action)
		if got := f.lastScore(); got != want {
			t.Errorf("%s: %q, want %q", action, got, want)
		}
	}
	step("start", "master -l reboot -v 1000")
	f.does("role-primary", fails(77))
	step("promote", "master -l reboot -D")
	step("monitor", "master -l reboot -v 1000")
	step("stop", "master -l reboot -D")
	f.program("crm_attribute", "exit 1") // one that does not know --promotion
	step("start", "master -l reboot -v 1000")
}

// TestAgentWithShellFunctions: the same with Debian's ocf-shellfuncs.
func TestAgentWithShellFunctions(t *testing.T) {
	if _, err := os.Stat(shellfuncs + "/ocf-shellfuncs"); err != nil {
		t.Skip("needs ocf-shellfuncs: install the Debian package resource-agents")
	}
	f := newFake(t)
	for _, c := range []struct {
		status string
		want   int
	}{{uptodate.shows(), success}, {fails(75), generic}, {uptodate.with(func(s *state) { s.role = "primary" }).shows(), promoted}} {
		f.does("status", c.status)
		r := agent(t, f, "monitor", "OCF_FUNCTIONS_DIR", shellfuncs, "HA_LOGFILE", f.path("ha.log"))
		if r.code != c.want {
			t.Errorf("status %d, want %d\n%s", r.code, c.want, r.output)
		}
		if c.want == generic {
			wantIn(t, r.output, "ocf-exit-reason:monitor: it failed with 75; mend 75")
		}
	}
}

// TestAgentAsOrdinaryUser: who may not open the socket cannot tell whether hastd is
// there, and must not say that the resource is stopped.
func TestAgentAsOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it becomes another user")
	}
	const nobody = 65534
	f := newFake(t)
	f.does("status", fails(69))
	f.does("role-init", fails(69))
	// The tree may stand where nobody may go.
	b, err := os.ReadFile(script(t, "ocf/hast"))
	must(t, err)
	must(t, os.WriteFile(f.path("agent"), b, 0o755))
	for _, action := range []string{"monitor", "stop"} {
		r := call(t, f.with("OCF_FUNCTIONS_DIR", f.path("none"), "OCF_RESKEY_resource", "data"), nobody, f.path("agent"), action)
		if r.code != permission {
			t.Errorf("%s: status %d, want %d\n%s", action, r.code, permission, r.output)
		}
	}
}
