package conf

import (
	"testing"
	"time"
)

func TestSizes(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "512": 512, "512B": 512, "64KiB": 64 << 10, "2MiB": 2 << 20, "1GiB": 1 << 30,
		"8 TiB": 8 << 40, "9223372036854775807": 1<<63 - 1, "8388607TiB": 8388607 << 40} {
		got, err := ParseSize(s)
		if err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v", s, got, err)
		}
		if back, err := ParseSize(FormatSize(got)); err != nil || back != got {
			t.Errorf("FormatSize(%d) = %q", got, FormatSize(got))
		}
	}
	for _, s := range []string{"", "MiB", "2MB", "2M", "-1", "+1", "1.5GiB", "2mib", " 2", "2  MiB", "8388608TiB", "9223372036854775808", "٣"} {
		if n, err := ParseSize(s); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", s, n)
		}
	}
}

func TestDurationsAsWritten(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", 20 * time.Second: "20s", 10 * time.Minute: "10m", time.Hour: "1h",
		90 * time.Minute: "1h30m", 1500 * time.Millisecond: "1.5s", 90 * time.Second: "1m30s", time.Hour + time.Second: "1h0m1s"} {
		got := FormatDuration(d)
		if back, err := time.ParseDuration(got); got != want || err != nil || back != d {
			t.Errorf("FormatDuration(%d) = %q, want %q", d, got, want)
		}
	}
}

func TestSchedule(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse("2006-01-02 15:04", s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, tc := range []struct {
		text, when string
		want       bool
	}{
		{"0 3 * * sun", "2026-11-22 03:00", true}, // a Sunday
		{"0 3 * * 7", "2026-11-22 03:00", true},
		{"0 3 * * 0", "2026-11-22 03:01", false},
		{"0 3 * * sun", "2026-11-23 03:00", false},
		{"*/15 * * * *", "2026-11-23 03:45", true},
		{"*/15 * * * *", "2026-11-23 03:46", false},
		{"0 1-5/2 * * *", "2026-11-23 05:00", true},
		{"0 1-5/2 * * *", "2026-11-23 04:00", false},
		{"0 0 1,15 Nov *", "2026-11-15 00:00", true},
		{"0 0 1 * mon", "2026-11-23 00:00", true}, // either day
		{"0 0 1 * mon", "2026-11-01 00:00", true},
		{"0 0 */2 * mon", "2026-11-23 00:00", true}, // both days
		{"0 0 */2 * mon", "2026-11-25 00:00", false},
	} {
		s, err := ParseSchedule(tc.text)
		if err != nil {
			t.Errorf("%s: %v", tc.text, err)
			continue
		}
		if got := s.Due(at(tc.when)); got != tc.want {
			t.Errorf("%s at %s: due %v", tc.text, tc.when, got)
		}
	}
	for _, bad := range []string{"", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *",
		"* * * * 8", "5-1 * * * *", "*/0 * * * *", "a * * * *", "1- * * * *", ", * * * *", "@daily", "-1 * * * *", "*/99 * * * *", "mon * * * *"} {
		if _, err := ParseSchedule(bad); err == nil {
			t.Errorf("%q is no schedule", bad)
		}
	}
	if (Schedule{}).Due(time.Now()) || !(Schedule{}).IsZero() {
		t.Error("the zero schedule comes due")
	}
}
