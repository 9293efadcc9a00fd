package cluster

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func sampleReport() Report {
	return Report{Groups: []GroupReport{
		{Name: "data", State: Partial, Probed: true, Frozen: true, Violations: 200, Parts: []PartReport{
			{Name: "ip1", Kind: Address, Stray: true, Found: true}, {Name: "srv/data", Kind: Mount, Stuck: true, Fault: true}, {Name: "app", Kind: Service, Up: true}}},
		{Name: "batch", State: Offline, AutoDisabled: true, Wanted: true},
	}}
}

func TestReportIsReadAsItWasWritten(t *testing.T) {
	r := sampleReport()
	b := r.Append([]byte("before"))[6:]
	got, err := ParseReport(b)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range b {
		if _, err := ParseReport(b[:n]); !errors.Is(err, ErrReport) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	if _, err := ParseReport(append(b, 0)); err == nil {
		t.Error("something behind it is not noticed")
	}
	b[1]++
	if _, err := ParseReport(append(b, 0)); err == nil {
		t.Error("something at its end is not noticed")
	}
	b[1]--
	b[2] = 9
	if _, err := ParseReport(b); err == nil || !strings.Contains(err.Error(), "version 9") {
		t.Error(err)
	}
	r.Groups[0].Parts[0].Name = "a\nline"
	if _, err := ParseReport(r.Append(nil)); err == nil {
		t.Error("a name with a line break would stand in logs")
	}
}

func TestReportHasAnEnd(t *testing.T) {
	var r Report
	for i := range 100 {
		g := GroupReport{Name: fmt.Sprint("group", i), State: Online}
		for range 100 {
			g.Parts = append(g.Parts, PartReport{Name: strings.Repeat("n", 300), Kind: Service, Up: true})
		}
		r.Groups = append(r.Groups, g)
	}
	b := r.Append(nil)
	got, err := ParseReport(b)
	if err != nil || len(b) > maxReport || len(got.Groups) != 1 || len(got.Groups[0].Parts) != maxReportParts {
		t.Errorf("%d bytes, %d groups, %v", len(b), len(got.Groups), err)
	}
	for i := range r.Groups {
		r.Groups[i].Parts = r.Groups[i].Parts[:1]
	}
	b = r.Append(nil)
	if got, err = ParseReport(b); err != nil || len(b) > maxReport || len(got.Groups) < 50 || len(got.Groups) > maxReportGroups {
		t.Errorf("%d bytes, %d groups, %v", len(b), len(got.Groups), err)
	}
}

// FuzzReport: what is read says the same when it is written again, and is bounded.
func FuzzReport(f *testing.F) {
	r := sampleReport()
	f.Add(r.Append(nil))
	f.Add((&Report{}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseReport(b)
		if err != nil {
			if !errors.Is(err, ErrReport) {
				t.Errorf("an error of another kind: %v", err)
			}
			return
		}
		if again := r.Append(nil); string(again) != string(b) {
			t.Errorf("% x\nbecame\n% x", b, again)
		}
	})
}
