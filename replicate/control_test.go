package replicate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"testing"

	"hastd/metadata"
)

func lineageOf(v any) metadata.Lineage {
	switch c := v.(type) {
	case *Facts:
		return c.Lineage
	case *Begin:
		return c.Lineage
	case *SyncEnd:
		return c.Lineage
	case *TakeOver:
		return c.Lineage
	}
	return nil
}

func FuzzControl(f *testing.F) {
	facts := side("A", 1, 2, raised, primary)
	for kind, c := range map[MsgKind]any{
		MsgFacts: facts, MsgBegin: Begin{Verdict: "equal by rule 7", Pair: 3, Lineage: history(1)}, MsgMap: MapPart{First: 1, Bits: make([]byte, 16)},
		MsgSyncEnd: SyncEnd{Localcnt: 1}, MsgTakeOver: TakeOver{Localcnt: 1, Lineage: history(2, 1)}, MsgRole: RoleChange{Role: metadata.Secondary},
		MsgRenegotiate: Renegotiate{Conn: 2, Reason: "x"},
	} {
		b, err := json.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(kind), b)
	}
	f.Add(uint8(MsgReady), []byte{})
	f.Add(uint8(MsgFacts), []byte("null"))
	f.Add(uint8(0), []byte("{}"))
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		v, err := DecodeControl(MsgKind(kind), body)
		if err != nil {
			return
		}
		if len(body) > MaxControl {
			t.Fatalf("%d bytes were accepted", len(body))
		}
		if v == nil {
			if len(body) > 0 {
				t.Fatal("a body was dropped")
			}
			return
		}
		if n := len(lineageOf(v)); n > metadata.MaxGenerations {
			t.Fatalf("%d generations were accepted", n)
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		w, err := DecodeControl(MsgKind(kind), again)
		if len(again) > MaxControl {
			return // what JSON escapes grows
		}
		if err != nil {
			t.Fatalf("%s was written as %s: %v", body, again, err)
		}
		if third, _ := json.Marshal(w); !bytes.Equal(again, third) {
			t.Fatalf("%s became %s", again, third)
		}
	})
}

func TestControlIsBounded(t *testing.T) {
	var long metadata.Lineage
	for i := range metadata.MaxGenerations + 1 {
		long = append(long, metadata.Generation{ID: metadata.ID(i + 1)})
	}
	for _, c := range []struct {
		kind MsgKind
		v    any
	}{
		{MsgFacts, Facts{Lineage: long}},
		{MsgBegin, Begin{Lineage: long}},
		{MsgSyncEnd, SyncEnd{Lineage: long}},
		{MsgSyncEnded, SyncEnd{Lineage: long}},
		{MsgTakeOver, TakeOver{Lineage: long}},
		{MsgTookOver, TakeOver{Lineage: long}},
		{MsgMap, MapPart{First: -1, Bits: make([]byte, 8)}},
		{MsgMap, MapPart{First: 0, Bits: make([]byte, 7)}},
		{MsgMap, MapPart{First: 0}},
		{MsgMap, MapPart{First: 0, Bits: make([]byte, 8*MaxMapPart+8)}},
		{MsgFacts, Facts{Node: string(make([]byte, MaxControl))}},
		{MsgFlow, RoleChange{}},
	} {
		b, err := json.Marshal(c.v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeControl(c.kind, b); err == nil {
			t.Errorf("%s of %d bytes was accepted: %.60s", msgNames[c.kind], len(b), b)
		}
	}
	if b, err := json.Marshal(MapPart{First: math.MaxInt, Bits: bytes.Repeat([]byte{255}, 8*MaxMapPart)}); err != nil || len(b) > MaxControl {
		t.Errorf("the longest map message is %d bytes long, %v", len(b), err)
	}
	full := side("A", 1, 2, raised, primary)
	full.Lineage = long[:metadata.MaxGenerations]
	for i := range full.Lineage {
		full.Lineage[i] = metadata.Generation{ID: math.MaxUint64, Time: math.MinInt64, Node: 255}
	}
	b, _ := json.Marshal(full)
	if _, err := DecodeControl(MsgFacts, b); err != nil || len(b) > MaxControl {
		t.Errorf("facts of %d bytes: %v", len(b), err)
	}
}

// TestMachineSurvivesAPeerThatLies: what makes no sense ends the connection; it
// never ends the daemon and never reaches the superblock.
func TestMachineSurvivesAPeerThatLies(t *testing.T) {
	try := func(name string, prepare, lie func(s *script)) {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, scriptSuper())
			prepare(s)
			defer func() {
				if r := recover(); r != nil {
					t.Fatalf("panic: %v", r)
				}
			}()
			s.silently(func() {
				lie(s)
				for len(s.open) > 0 {
					s.done(s.open[0].label)
				}
			})
			if _, _, err := metadata.Load(s.image()); err != nil {
				t.Errorf("the metadata cannot be read any more: %v", err)
			}
		})
	}
	linkedPrimary := func(s *script) { s.primary() }
	linkedSecondary := func(s *script) {
		s.peer.Role = metadata.Primary
		s.secondary(true)
	}
	waiting := func(s *script) { // a primary that waits for the secondary's map
		s.primary()
		s.silently(func() {
			s.loses("cut")
			s.peer.Epoch, s.peer.Pair = s.m.st.Super().Epoch, s.m.st.Super().Pair
			s.up()
			for len(s.open) > 0 {
				s.done(s.open[0].label)
			}
		})
		if s.m.step != forReady {
			t.Fatalf("step %d", s.m.step)
		}
	}
	judged := func(s *script) { // a secondary that waits for the primary's conclusion
		s.peer.Role = metadata.Primary
		s.secondary(false)
		s.silently(func() { s.up(); s.tell() })
		if s.m.step != forBegin {
			t.Fatalf("step %d", s.m.step)
		}
	}
	for _, first := range []int{math.MaxInt, math.MaxInt - 1, scriptData / WindowSize, scriptData/WindowSize - 1} {
		try(fmt.Sprint("map from word ", first), waiting, func(s *script) {
			s.says(Msg{Kind: MsgMap, Control: &MapPart{First: first, Bits: bytes.Repeat([]byte{255}, 64)}})
		})
	}
	begin := func(change func(b *Begin)) func(s *script) {
		return func(s *script) {
			b := Begin{Verdict: Judge(&s.m.mine, &s.peer).String(), Epoch: epoch(9, 2), Pair: 5, PairOld: s.peer.Pair, Size: scriptData, Sector: 512}
			change(&b)
			s.says(Msg{Kind: MsgBegin, Control: &b})
		}
	}
	try("begin is fine", judged, begin(func(*Begin) {}))
	try("begin with odd sectors", judged, begin(func(b *Begin) { b.Sector = 1000 }))
	try("begin without sectors", judged, begin(func(b *Begin) { b.Sector = 0 }))
	try("begin with an odd size", judged, begin(func(b *Begin) { b.Size-- }))
	try("begin with another size", judged, begin(func(b *Begin) { b.Size /= 2 }))
	// A message of each kind, empty and absurd, in each state.
	for kind := MsgWrite; kind <= MsgAlive; kind++ {
		for i, msg := range []Msg{
			{},
			{Seq: 1, Off: 0, Len: block, Buf: 900, Seqs: []uint64{1}},
			{Seq: math.MaxUint64, Off: math.MaxInt64 - 100, Len: math.MaxUint32, Mask: math.MaxUint64, Buf: 900, Seqs: []uint64{math.MaxUint64}},
			{Seq: 1 << 40, Off: -block, Len: 1, Mask: 1, Zeroes: math.MaxUint64, Seqs: []uint64{0, 0}},
			{Seq: 3, Off: scriptData - block, Len: 2 * block, Buf: 900},
			{Seq: 3, Off: 1, Mask: 1, Buf: 900},
			{Seq: 3, Off: 512, Mask: 1 << 63, Buf: 900},
			{Seq: 3, Off: scriptData - block, Mask: 1 << 63, Buf: 900},
			{Seq: 3, Off: scriptData, Mask: 1, Buf: 900},
			{Seq: 3, Off: scriptData, Len: 0, Buf: 900},
			{Seq: 3, Off: 0, Len: 0, Buf: 900},
		} {
			msg.Kind = kind
			for name, prepare := range map[string]func(s *script){"primary": linkedPrimary, "secondary": linkedSecondary, "waiting": waiting, "judged": judged} {
				try(fmt.Sprintf("%s %d to %s", msgNames[kind], i, name), prepare, func(s *script) { s.says(msg) })
			}
		}
	}
}
