package contrib

import (
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// scripts are all shell scripts of contrib.
func scripts(t testing.TB) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(script(t, "."), func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		if strings.HasPrefix(string(b), "#!/bin/sh\n") {
			found = append(found, p)
		}
		return err
	})
	must(t, err)
	if len(found) < 6 {
		t.Fatalf("only %v", found)
	}
	return found
}

func TestScriptsAreCleanShell(t *testing.T) {
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Skip("needs shellcheck: install the Debian package shellcheck")
	}
	r := call(t, newFake(t).with(), os.Getuid(), append([]string{"shellcheck", "-s", "sh"}, scripts(t)...)...)
	if r.code != 0 {
		t.Error(r.output)
	}
}

func TestScriptsMayBeRun(t *testing.T) {
	for _, p := range scripts(t) {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm()&0o111 != 0o111 {
			t.Errorf("%s: %v %v; want a program", p, info.Mode(), err)
		}
	}
}

// TestScriptsReadOneStatus: the agent is one file by custom, so it has its own copy
// of what reads the status contract.
func TestScriptsReadOneStatus(t *testing.T) {
	var first string
	for _, name := range []string{"ocf/hast", "switch/hast-switch"} {
		b, err := os.ReadFile(script(t, name))
		must(t, err)
		_, rest, ok := strings.Cut(string(b), "\nfields() {\n")
		text, _, end := strings.Cut(rest, "\n}\n")
		if !ok || !end {
			t.Fatalf("%s: no fields()", name)
		}
		if first == "" {
			first = text
		} else if text != first {
			t.Errorf("%s: fields() differs", name)
		}
	}
}

// TestAgentMetaData parses what Pacemaker and its shells read, without a parameter
// or program there.
func TestAgentMetaData(t *testing.T) {
	r := call(t, map[string]string{"PATH": "/usr/bin:/bin", "OCF_FUNCTIONS_DIR": "/nowhere"}, os.Getuid(), script(t, "ocf/hast"), "meta-data")
	if r.code != success {
		t.Fatalf("status %d", r.code)
	}
	var m struct {
		XMLName    xml.Name `xml:"resource-agent"`
		Name       string   `xml:"name,attr"`
		Version    string   `xml:"version"`
		Long       string   `xml:"longdesc"`
		Short      string   `xml:"shortdesc"`
		Parameters []struct {
			Name     string `xml:"name,attr"`
			Required string `xml:"required,attr"`
			Long     string `xml:"longdesc"`
			Short    string `xml:"shortdesc"`
			Content  struct {
				Type string `xml:"type,attr"`
			} `xml:"content"`
		} `xml:"parameters>parameter"`
		Actions []struct {
			Name    string `xml:"name,attr"`
			Timeout string `xml:"timeout,attr"`
			Role    string `xml:"role,attr"`
		} `xml:"actions>action"`
	}
	must(t, xml.Unmarshal([]byte(r.output), &m))
	if m.Name != "hast" || m.Version != "1.1" || m.Long == "" || m.Short == "" {
		t.Errorf("head: %+v", m)
	}
	source, err := os.ReadFile(script(t, "ocf/hast"))
	must(t, err)
	var names []string
	for _, p := range m.Parameters {
		names = append(names, p.Name)
		if p.Long == "" || p.Short == "" || p.Content.Type != "string" || (p.Required == "1") != (p.Name == "resource") {
			t.Errorf("parameter: %+v", p)
		}
		if !strings.Contains(string(source), "${OCF_RESKEY_"+p.Name) {
			t.Errorf("parameter %s is not read", p.Name)
		}
	}
	if want := []string{"resource", "hastctl", "config", "node", "control"}; !slices.Equal(names, want) {
		t.Errorf("parameters %v, want %v", names, want)
	}
	var actions []string
	for _, a := range m.Actions {
		actions = append(actions, a.Name+" "+a.Role)
		if !strings.HasSuffix(a.Timeout, "s") {
			t.Errorf("action: %+v", a)
		}
	}
	want := []string{"start ", "stop ", "promote ", "demote ", "notify ", "monitor Unpromoted", "monitor Promoted", "validate-all ", "meta-data "}
	if !slices.Equal(actions, want) {
		t.Errorf("actions %q, want %q", actions, want)
	}
}

// TestAgentMetaDataIsValid asks xmllint and the DTD of resource-agents.
func TestAgentMetaDataIsValid(t *testing.T) {
	const folder = "/usr/share/resource-agents"
	if _, err := exec.LookPath("xmllint"); err != nil {
		t.Skip("needs xmllint: install the Debian package libxml2-utils")
	}
	if _, err := os.Stat(folder + "/ra-api-1.dtd"); err != nil {
		t.Skip("needs ra-api-1.dtd: install the Debian package resource-agents")
	}
	r := call(t, newFake(t).with(), os.Getuid(), "/bin/sh", "-c", "cd "+folder+" && "+script(t, "ocf/hast")+" meta-data | xmllint --noout --valid -")
	if r.code != 0 || r.output != "" {
		t.Errorf("status %d\n%s", r.code, r.output)
	}
}
