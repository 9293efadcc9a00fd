package fuse

import (
	"encoding/json"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// BenchmarkFUSE is what fio sees of a device that costs nothing.
func BenchmarkFUSE(b *testing.B) {
	if _, err := exec.LookPath("fio"); err != nil {
		b.Skip("needs fio")
	}
	dir := b.TempDir()
	p, err := Serve(Options{Device: newMemory(nil, "data", 64<<20, 4096), Dir: filepath.Join(dir, "run"), Path: filepath.Join(dir, "data"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Skip(err)
	}
	defer p.Close(true)
	for _, c := range []struct {
		rw, bs string
		depth  int
	}{{"randwrite", "4k", 1}, {"randwrite", "4k", 32}, {"randread", "4k", 32}, {"write", "1m", 8}} {
		b.Run(c.rw+"-"+c.bs+"-depth"+strconv.Itoa(c.depth), func(b *testing.B) {
			for b.Loop() {
				out, err := exec.Command("fio", "--name=b", "--filename="+p.Path(), "--ioengine=libaio", "--direct=1", "--rw="+c.rw, "--bs="+c.bs,
					"--iodepth="+strconv.Itoa(c.depth), "--size=64m", "--time_based", "--runtime=1", "--output-format=json").Output()
				if err != nil {
					b.Fatal(err)
				}
				var r struct {
					Jobs []struct{ Read, Write struct{ IOPS, BW float64 } }
				}
				if err := json.Unmarshal(out, &r); err != nil {
					b.Fatal(err)
				}
				j := r.Jobs[0]
				b.ReportMetric(j.Read.IOPS+j.Write.IOPS, "io/s")
				b.ReportMetric((j.Read.BW+j.Write.BW)/1024, "MiB/s")
			}
		})
	}
}
