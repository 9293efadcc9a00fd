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
	root := daemon.Command(about, daemon.Stdio{Out: io.Discard, Err: io.Discard}, nil)
	pages, err := manpage.Generate(root)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := manpage.Write(pages, about.Name, manDir); err != nil {
			t.Fatal(err)
		}
	}
	stale, err := manpage.Stale(pages, about.Name, manDir)
	if err != nil {
		t.Fatal(err)
	}
	if len(stale) > 0 {
		t.Errorf("stale pages: %v; write them anew with make man", stale)
	}
}
