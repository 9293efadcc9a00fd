package main

import (
	"reflect"
	"strings"
	"testing"
)

func TestAskOnTheWire(t *testing.T) {
	for _, a := range []ask{
		{from: 3, resource: "data"},
		{from: 3, resource: strings.Repeat("r", 63), kind: refuses, why: "it is primary on node alpha"},
	} {
		got, err := readAsk(3, a.append(nil))
		if err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("%+v came back as %+v, %v", a, got, err)
		}
	}
	long := ask{resource: "data", kind: refuses, why: strings.Repeat("w", 1000)}.append(nil)
	if got, err := readAsk(0, long); err != nil || len(got.why) != maxWhy {
		t.Errorf("a long reason: %d bytes, %v", len(got.why), err)
	}
	for _, b := range [][]byte{nil, {askFormat}, {askFormat, 0}, {askFormat, 0, 1}, {askFormat, 3, 0}, {9, 0, 0}, append([]byte{askFormat, 1, 0}, make([]byte, maxWhy+1)...)} {
		if got, err := readAsk(0, b); err == nil {
			t.Errorf("%v was read as %+v", b, got)
		}
	}
}

func FuzzReadAsk(f *testing.F) {
	f.Add(ask{resource: "data", kind: refuses, why: "no"}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := readAsk(1, b); err == nil && string(a.append(nil)) != string(b) {
			t.Errorf("%x was read as %+v", b, a)
		}
	})
}
