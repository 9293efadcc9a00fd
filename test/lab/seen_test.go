package lab

import (
	"testing"
	"time"
)

func TestWhatAClientSaw(t *testing.T) {
	zero := time.Now()
	at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
	s := Seen{From: at(0), To: at(5000)}
	for ms := 10; ms < 1000; ms += 10 {
		s.Answers = append(s.Answers, Answer{at(ms), Alpha})
	}
	for ms := 3000; ms < 4990; ms += 10 {
		s.Answers = append(s.Answers, Answer{at(ms), Bravo})
	}
	if p := s.Pause(); p != 2010*time.Millisecond {
		t.Errorf("pause %v", p)
	}
	if first, ok := s.FirstBy(Bravo, at(500)); !ok || first != at(3000) {
		t.Errorf("first answer of bravo %v", first.Sub(zero))
	}
	s.To = at(9000)
	if p := s.Pause(); p != 9000*time.Millisecond-4980*time.Millisecond {
		t.Errorf("a pause that has no end: %v", p)
	}

	// a until 2000, b from 1500 on, a once more at 4000: the last is no overlap of
	// three seconds.
	for ms := 0; ms <= 5000; ms += 20 {
		if ms <= 2000 || ms == 4000 {
			s.Holders = append(s.Holders, Holder{at(ms), "a"})
		}
		if ms >= 1500 {
			s.Holders = append(s.Holders, Holder{at(ms), "b"})
		}
	}
	if o := s.Overlap(); o != 500*time.Millisecond {
		t.Errorf("overlap %v", o)
	}
	if last, _ := s.LastBy("a"); last != at(4000) {
		t.Errorf("last answer of a at %v", last.Sub(zero))
	}
}
