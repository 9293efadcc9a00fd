package lease

import (
	"bytes"
	"reflect"
	"testing"
)

func TestCodec(t *testing.T) {
	for _, ev := range []Event{
		Renew{From: 3, Inc: 1, Number: 1<<32 | 7, Round: 9},
		Confirm{From: 3, Inc: 1<<64 - 1, Number: 2, Round: 1<<64 - 1},
	} {
		b := write(ev)
		if len(b) != MessageSize {
			t.Errorf("%d bytes", len(b))
		}
		got, err := Read(3, b)
		if err != nil || !reflect.DeepEqual(got, ev) {
			t.Errorf("%+v came back as %+v, %v", ev, got, err)
		}
		for n := range b {
			if _, err := Read(3, b[:n]); err == nil {
				t.Errorf("%d bytes were read", n)
			}
		}
		for _, at := range []int{0, 1} {
			x := bytes.Clone(b)
			x[at] = 9
			if _, err := Read(3, x); err == nil {
				t.Errorf("byte %d changed was read", at)
			}
		}
		for _, at := range []int{2, 10, 18} {
			x := bytes.Clone(b)
			clear(x[at : at+8])
			if _, err := Read(3, x); err == nil {
				t.Errorf("nothing at %d was read", at)
			}
		}
	}
}

func write(ev Event) []byte {
	switch ev := ev.(type) {
	case Renew:
		return AppendRenew(nil, ev)
	case Confirm:
		return AppendConfirm(nil, ev)
	}
	return nil
}

func FuzzRead(f *testing.F) {
	f.Add(AppendRenew(nil, Renew{Inc: 1, Number: 2, Round: 3}))
	f.Add(AppendConfirm(nil, Confirm{Inc: 1, Number: 2, Round: 3}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if ev, err := Read(1, b); err == nil && !bytes.Equal(write(ev), b) {
			t.Errorf("%x was read as %+v", b, ev)
		}
	})
}
