package main

import (
	"flag"
	"io"
	"testing"

	"hastd/cmd/internal/daemon"
	"hastd/cmd/internal/manpage"
)

var update = flag.Bool("update", false, "write the manual pages anew")

const manDir = "../../docs/man"

func TestManualPageIsFresh(t *testing.T) {
	stale, err := manpage.Check(daemon.Command(about, daemon.Stdio{Out: io.Discard, Err: io.Discard}, nil), manDir, *update)
	if err != nil {
		t.Fatal(err)
	}
	if len(stale) > 0 {
		t.Errorf("stale pages: %v; write them anew with go test ./cmd/hastd -run Manual -update", stale)
	}
}
