package main

import (
	"context"
	"flag"
	"io"
	"testing"

	"hastd/cmd/internal/manpage"
)

var update = flag.Bool("update", false, "write the manual pages anew")

const manDir = "../../docs/man"

func TestManualPageIsFresh(t *testing.T) {
	root := command(stdio{io.Discard, io.Discard}, func(context.Context, flags) error { return nil })
	pages, err := manpage.Generate(root)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := manpage.Write(pages, "hastd", manDir); err != nil {
			t.Fatal(err)
		}
	}
	stale, err := manpage.Stale(pages, "hastd", manDir)
	if err != nil {
		t.Fatal(err)
	}
	if len(stale) > 0 {
		t.Errorf("stale pages: %v; write them anew with go test ./cmd/hastd -run Manual -update", stale)
	}
}
