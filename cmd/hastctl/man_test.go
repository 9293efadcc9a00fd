package main

import (
	"flag"
	"io"
	"testing"

	"hastd/cmd/internal/manpage"
)

var update = flag.Bool("update", false, "write the manual pages and golden files anew")

const manDir = "../../docs/man"

func TestManualPagesAreFresh(t *testing.T) {
	a := &app{stdio: stdio{io.Discard, io.Discard}}
	stale, err := manpage.Check(a.tree(), manDir, *update)
	if err != nil {
		t.Fatal(err)
	}
	if len(stale) > 0 {
		t.Errorf("stale pages: %v; write them anew with go test ./cmd/hastctl -run Manual -update", stale)
	}
}
