package conf

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"testing"
	"time"
)

// FuzzValues: sizes, schedules and keys that are accepted mean the same when they
// are written in their plain form, and lie within their bounds.
func FuzzValues(f *testing.F) {
	for _, s := range []string{"2MiB", "0", "9223372036854775807", "8388608TiB", "1 GiB", "*/15 2-4 1,15 * mon-fri/2", "0 0 * * 7", "5/10 * 31 feb sun",
		"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", "ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseSize(s); err == nil {
			if n < 0 {
				t.Fatalf("%q is %d bytes", s, n)
			}
			if m, err := ParseSize(FormatSize(n)); err != nil || m != n {
				t.Fatalf("%d is written %q, which is read as %d, %v", n, FormatSize(n), m, err)
			}
		}
		if x, err := ParseSchedule(s); err == nil {
			if x.String() != s || x.IsZero() {
				t.Fatalf("%q became %q", s, x)
			}
			for i, field := range x.fields {
				if c := cronFields[i]; field == 0 || field>>(c.high+1) != 0 || field&(1<<c.low-1) != 0 {
					t.Fatalf("%q: %s %#x", s, c.name, field)
				}
			}
			if t0 := time.Date(2024, 2, 29, 23, 59, 0, 0, time.UTC); x.Due(t0) != x.Due(t0.Add(59*time.Second)) {
				t.Fatalf("%q is due in a part of a minute", s)
			}
		}
		key, problem := decodeKey([]byte(s))
		if (key == nil) == (problem == "") && len(key) > 0 {
			t.Fatalf("%q: a key and a problem: %s", s, problem)
		}
		if problem != "" {
			return
		}
		if len(key) < MinKey || len(key) > maxKeyFile {
			t.Fatalf("a key of %d bytes", len(key))
		}
		for i, text := range []string{hex.EncodeToString(key), base64.StdEncoding.EncodeToString(key) + "\n"} {
			again, problem := decodeKey([]byte(text))
			if len(text) <= maxKeyFile && !bytes.Equal(again, key) && (i == 0 || !isHex(text)) {
				t.Fatalf("%x is read as %x from %q: %s", key, again, text, problem)
			}
		}
	})
}

// isHex: base64 that could be hexadecimal is taken for that, on every node alike.
func isHex(s string) bool {
	_, err := hex.DecodeString(string(bytes.TrimSpace([]byte(s))))
	return err == nil
}
