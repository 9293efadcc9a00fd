// Package human writes amounts for people. Programs read the JSON forms, which
// carry plain bytes and seconds.
package human

import (
	"fmt"
	"time"
)

// Bytes gives three significant digits or so: 0 B, 512 B, 1.5 MiB, 256 MiB.
func Bytes(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, u := float64(n), -1
	for f >= 1023.5 && u < len(units)-1 {
		f, u = f/1024, u+1
	}
	switch {
	case f == float64(int64(f)) || f >= 100:
		return fmt.Sprintf("%.0f %ciB", f, units[u])
	case f >= 10:
		return fmt.Sprintf("%.1f %ciB", f, units[u])
	}
	return fmt.Sprintf("%.2f %ciB", f, units[u])
}

// Seconds gives a duration without false precision: 7s, 2m05s, 3h20m, 2d04h.
func Seconds(n int64) string {
	d := time.Duration(n) * time.Second
	switch {
	case n < 0:
		return "unknown"
	case d < time.Minute:
		return fmt.Sprintf("%ds", n)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", n/60, n%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", n/3600, n/60%60)
	}
	return fmt.Sprintf("%dd%02dh", n/86400, n/3600%24)
}
