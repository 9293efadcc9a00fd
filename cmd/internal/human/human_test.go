package human

import "testing"

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.50 KiB", 268435456: "256 MiB",
		1<<40 - 1: "1.00 TiB", 11 << 19: "5.50 MiB", 123456789: "118 MiB", 12345678: "11.8 MiB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestSeconds(t *testing.T) {
	for n, want := range map[int64]string{-1: "unknown", 0: "0s", 59: "59s", 125: "2m05s", 12000: "3h20m", 187200: "2d04h"} {
		if got := Seconds(n); got != want {
			t.Errorf("Seconds(%d) = %q, want %q", n, got, want)
		}
	}
}
