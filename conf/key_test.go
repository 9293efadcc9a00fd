package conf

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestKeyWrittenIsKeyLoaded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cluster.key")
	text, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if other, _ := GenerateKey(); other == text {
		t.Fatal("the same key twice")
	}
	old := syscall.Umask(0)
	err = WriteKey(file, text)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	if st, _ := os.Stat(file); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	key, err := LoadKey(file)
	if err != nil || len(key) != MinKey {
		t.Fatalf("%d bytes, %v", len(key), err)
	}

	err = WriteKey(file, text)
	if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "exists already and is not overwritten") {
		t.Errorf("second write: %v", err)
	}
	if again, err := LoadKey(file); err != nil || !bytes.Equal(again, key) {
		t.Errorf("the refused write changed the file: %v", err)
	}

	hexFile := filepath.Join(t.TempDir(), "hex.key")
	if err := WriteKey(hexFile, hex.EncodeToString(key)); err != nil {
		t.Fatal(err)
	}
	if again, err := LoadKey(hexFile); err != nil || !bytes.Equal(again, key) {
		t.Errorf("hexadecimal form: %v", err)
	}
}

func TestKeyFilesRefused(t *testing.T) {
	const good = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	dir := t.TempDir()
	for name, tc := range map[string]struct {
		content string
		mode    fs.FileMode
		want    string
	}{
		"good":      {good + "\n", 0o600, ""},
		"unpadded":  {strings.TrimRight(good, "="), 0o400, ""},
		"world":     {good, 0o604, "others than its owner may use it (mode 0604); run: chmod 600 FILE"},
		"group":     {good, 0o640, "others than its owner may use it (mode 0640); run: chmod 600 FILE"},
		"empty":     {"\n", 0o600, "it is empty; " + keygenAdvice},
		"short":     {"MDEyMzQ1Njc4OQ==", 0o600, "the key has 10 bytes, and at least 32 are needed; " + keygenAdvice},
		"two lines": {good + "\n" + good, 0o600, "it has more than one line; " + keygenAdvice},
		"text":      {"correct horse battery staple", 0o600, "it has neither base64 nor hexadecimal digits; " + keygenAdvice},
		"zeroes":    {strings.Repeat("00", 32), 0o600, "the key is one byte over and over; " + keygenAdvice},
		"huge":      {strings.Repeat("A", 5000), 0o600, "it is larger than 4096 bytes; " + keygenAdvice},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(file, tc.mode); err != nil {
				t.Fatal(err)
			}
			_, err := LoadKey(file)
			got := ""
			if err != nil {
				got = strings.ReplaceAll(strings.TrimPrefix(err.Error(), "key file "+file+": "), file, "FILE")
				if strings.Contains(got, tc.content) {
					t.Error("the message shows the key")
				}
			}
			if got != tc.want {
				t.Errorf("\n got %q\nwant %q", got, tc.want)
			}
		})
	}

	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(fifo); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("pipe: %v", err)
	}
	if _, err := LoadKey(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if err := WriteKey(filepath.Join(dir, "no", "dir"), good); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}
