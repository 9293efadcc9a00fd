package view

import (
	"bytes"
	"encoding/binary"
	"flag"
	"hash/crc32"
	"os"
	"reflect"
	"testing"
)

var update = flag.Bool("update", false, "write golden files anew")

func TestMessagesReadBack(t *testing.T) {
	for _, m := range sampleMessages() {
		b := AppendMessage(nil, m)
		got, err := ReadMessage(b)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%v was read back as %v, %v", m, got, err)
		}
		for n := range b {
			if _, err := ReadMessage(b[:n]); err == nil {
				t.Errorf("%v: its first %d of %d bytes are read as a whole", m, n, len(b))
			}
		}
		if _, err := ReadMessage(append(b, 0)); err == nil {
			t.Errorf("%v: a byte too much is not noticed", m)
		}
	}
}

func TestStateReadsBack(t *testing.T) {
	for _, s := range []*State{sampleState(), {Node: 3, Inc: 1, Serial: 1}} {
		b := AppendState(nil, s)
		got, err := ReadState(b)
		if err != nil || !reflect.DeepEqual(got, s) {
			t.Fatalf("%+v was read back as %+v, %v", s, got, err)
		}
	}
}

// TestLargest: what is largest fits, and what is larger is refused.
func TestLargest(t *testing.T) {
	v := largest()
	m := &Message{Kind: Promise, From: 1, Inc: 1, To: 2, Stamp: Stamp{1, 1, 1}, Round: Round{maxNumber, 1, 1}, Told: Round{maxNumber, 2, 1}, View: v}
	b := AppendMessage(nil, m)
	if len(b) > MaxMessage {
		t.Errorf("a message of %d bytes; the limit is %d", len(b), MaxMessage)
	}
	if got, err := ReadMessage(b); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("not read back: %v", err)
	}
	s := &State{Node: 1, Inc: 1, View: v, Prom: Round{7, 1, 1}, Acc: &Proposal{Round{7, 1, 1}, after(v)}}
	for i := range MaxNodes {
		s.Seen = append(s.Seen, Seen{NodeID(i), 1, maxNumber})
	}
	if b := AppendState(nil, s); len(b) > MaxStored {
		t.Errorf("a state of %d bytes; the limit is %d", len(b), MaxStored)
	} else if got, err := ReadState(b); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("not read back: %v", err)
	}
	if _, err := ReadMessage(make([]byte, MaxMessage+1)); err == nil {
		t.Error("a message beyond the limit is read")
	}
}

// TestImpossibleViewsAreRefused: each mistake once.
func TestImpossibleViewsAreRefused(t *testing.T) {
	for name, f := range map[string]func(v *View){
		"no index":                      func(v *View) { v.Stamp.Index = 0 },
		"no chain":                      func(v *View) { v.Stamp.Chain = 0 },
		"an era nobody forced":          func(v *View) { v.Origin.How = Elected },
		"force without an era":          func(v *View) { v.Stamp.Era = 0 },
		"how of no kind":                func(v *View) { v.Origin.How = 3 },
		"an index at its end":           func(v *View) { v.Stamp.Index = maxIndex + 1 },
		"no members":                    func(v *View) { v.Members = nil },
		"a member twice":                func(v *View) { v.Members[1].ID = 0 },
		"members out of order":          func(v *View) { v.Members[0].ID = 6 },
		"a member without incarnation":  func(v *View) { v.Members[0].Inc = 0 },
		"a member absent":               func(v *View) { v.Absent[0].ID = 0 },
		"absent and not in sync":        func(v *View) { v.Absent = append(v.Absent, Absent{9, 1}) },
		"in sync from nowhere":          func(v *View) { v.Absent = nil },
		"resources out of order":        func(v *View) { v.Resources[0].Name = "zeta" },
		"a resource twice":              func(v *View) { v.Resources[0].Name = "logs" },
		"a resource without name":       func(v *View) { v.Resources[0].Name = "" },
		"a resource on three nodes":     func(v *View) { v.Resources[0].Nodes = SetOf(0, 1, 2) },
		"a resource nowhere":            func(v *View) { v.Resources[2] = Resource{Name: "spare", Owner: Nobody} },
		"in sync without replica":       func(v *View) { v.Resources[0].InSync = SetOf(0, 5) },
		"an owner out of sync":          func(v *View) { v.Resources[0].InSync = SetOf(1) },
		"an absent owner":               func(v *View) { v.Resources[1].Owner = 3 },
		"a witness as owner":            func(v *View) { v.Members[0].Witness = true },
		"groups out of order":           func(v *View) { v.Groups[0].Name = "zeta" },
		"a group without state":         func(v *View) { v.Groups[0].State = "" },
		"a name too long for its field": func(v *View) { v.Groups[1].Name = string(bytes.Repeat([]byte("x"), MaxName+1)) },
	} {
		v := sampleView()
		f(v)
		m := &Message{Kind: Promise, From: 1, Inc: 1, To: 2, Round: Round{1, 1, 1}, Told: Round{1, 1, 1}, View: v}
		if got, err := ReadMessage(AppendMessage(nil, m)); err == nil {
			t.Errorf("%s: read as %v", name, got.View)
		}
	}
}

func TestMessagesThatDoNotFitAreRefused(t *testing.T) {
	for name, f := range map[string]func(m *Message){
		"a proposal that is no successor": func(m *Message) { m.Kind, m.View = Store, sampleView() },
		"a view that is not the sender's": func(m *Message) { m.Kind, m.View = Committed, after(sampleView()) },
		"no incarnation":                  func(m *Message) { m.Kind, m.View, m.Inc = Committed, sampleView(), 0 },
		"a round of nobody":               func(m *Message) { m.Kind, m.Round = Stored, Round{3, 1, 0} },
		"a node of no set":                func(m *Message) { m.Kind, m.Round, m.From = Stored, Round{3, 1, 1}, MaxNodeID+1 },
		"a serial at its end":             func(m *Message) { m.Kind, m.Round, m.Serial = Stored, Round{3, 1, 1}, maxNumber+1 },
	} {
		m := &Message{From: 1, Inc: 1, To: 2, Stamp: sampleView().Stamp, Round: Round{1, 1, 1}}
		f(m)
		if got, err := ReadMessage(AppendMessage(nil, m)); err == nil {
			t.Errorf("%s: read as %v", name, got)
		}
	}
	b := AppendMessage(nil, sampleMessages()[0])
	b[0]++
	if _, err := ReadMessage(b); err == nil {
		t.Error("another format is read")
	}
	b[0]--
	b[1] = 99
	if _, err := ReadMessage(b); err == nil {
		t.Error("a message of no kind is read")
	}
}

// TestGolden: the formats are promises.
func TestGolden(t *testing.T) {
	var b []byte
	for _, m := range sampleMessages() {
		one := AppendMessage(nil, m)
		b = binary.BigEndian.AppendUint16(b, uint16(len(one)))
		b = append(b, one...)
	}
	for name, got := range map[string][]byte{"testdata/messages.golden": b, "testdata/state.golden": AppendState(nil, sampleState())} {
		if *update {
			if err := os.WriteFile(name, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs from what is written now (%v): a format that changes needs a new version", name, err)
		}
	}
}

func FuzzMessage(f *testing.F) {
	for _, m := range sampleMessages() {
		f.Add(AppendMessage(nil, m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ReadMessage(b)
		if err != nil {
			return
		}
		if again := AppendMessage(nil, m); !bytes.Equal(again, b) {
			t.Fatalf("%v was read from other bytes than it is written as", m)
		}
		checkBounds(t, m.View)
		// Whatever is accepted, a machine copes with.
		for _, st := range []*State{nil, sampleState()} {
			x, err := New(Config{Self: 1, Seed: 3, Nodes: []NodeConfig{{ID: 0}, {ID: 1}, {ID: 5, Witness: true}}, Resources: []ResourceConfig{{"data", []NodeID{0, 1}, SetOf(0, 1)}}})
			if err != nil {
				t.Fatal(err)
			}
			x.Step(1, Start{Stored: st})
			m.To = 1
			if st != nil {
				m.ToInc, m.Seen = 0, 0
			}
			checkEffects(t, x.Step(2, Received{m}))
			checkEffects(t, x.Step(3, Heard{SetOf(0, 5)}))
			checkEffects(t, x.Greet())
			checkEffects(t, x.Step(Instant(Second), Tick{}))
		}
	})
}

func checkEffects(t *testing.T, effects []Effect) {
	t.Helper()
	for _, e := range effects {
		switch e := e.(type) {
		case Persist:
			if _, err := ReadState(AppendState(nil, &e.State)); err != nil {
				t.Fatalf("a state that cannot be read: %v", err)
			}
		case Send:
			if _, err := ReadMessage(AppendMessage(nil, e.Msg)); err != nil {
				t.Fatalf("a message that cannot be read: %v: %v", e.Msg, err)
			}
		}
	}
}

func checkBounds(t *testing.T, v *View) {
	if v != nil && (len(v.Members) > MaxNodes || len(v.Absent) > MaxNodes || len(v.Resources) > MaxResources || len(v.Groups) > MaxGroups) {
		t.Fatalf("a view beyond its limits: %v", v)
	}
}

// FuzzState mends the checksum, or nothing but checksums would be tested.
func FuzzState(f *testing.F) {
	f.Add(AppendState(nil, sampleState()))
	f.Add(AppendState(nil, &State{Node: 3, Inc: 1, Serial: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = ReadState(b)
		b = bytes.Clone(b)
		head := len(stateMagic) + 5
		if len(b) < head {
			return
		}
		copy(b, stateMagic)
		b[len(stateMagic)] = Version
		binary.BigEndian.PutUint32(b[head-4:], crc32.Checksum(b[head:], crc))
		s, err := ReadState(b)
		if err != nil {
			return
		}
		if !bytes.Equal(AppendState(nil, s), b) {
			t.Fatalf("%+v was read from other bytes than it is written as", s)
		}
		checkBounds(t, s.View)
	})
}
