package conf

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	// MinKey is the least length of a cluster key in bytes.
	MinKey = 32
	// maxKeyFile bounds what is read of a key file, in bytes.
	maxKeyFile = 4096
)

// KeyError says what is wrong with a key file and what to do. It never shows
// any of the key.
type KeyError struct {
	Path, Problem, Advice string
	cause                 error
}

func (e *KeyError) Error() string {
	s := "key file " + e.Path + ": " + e.Problem
	if e.Advice != "" {
		s += "; " + e.Advice
	}
	return s
}

func (e *KeyError) Unwrap() error { return e.cause }

const keygenAdvice = `make one with "hastctl keygen" and copy it to every node`

// LoadKey reads the cluster key: one line of base64 or hexadecimal digits that
// stand for at least MinKey bytes. The error is a *KeyError; errors.Is finds
// fs.ErrNotExist and the like in it.
func LoadKey(path string) ([]byte, error) {
	fail := func(problem, advice string, cause error) ([]byte, error) {
		return nil, &KeyError{path, problem, advice, cause}
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe here must not make us wait
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail("it does not exist", keygenAdvice, err)
	case err != nil:
		return fail("it cannot be opened: "+reason(err), "run as root, or let this user read it", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fail("it cannot be examined: "+reason(err), "", err)
	}
	if !st.Mode().IsRegular() {
		return fail("it is not a regular file", keygenAdvice, nil)
	}
	if mode := st.Mode().Perm(); mode&0o077 != 0 {
		return fail(fmt.Sprintf("others than its owner may use it (mode %04o)", mode), "run: chmod 600 "+path, nil)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return fail("it cannot be read: "+reason(err), "", err)
	}
	key, problem := decodeKey(data)
	if problem != "" {
		return fail(problem, keygenAdvice, nil)
	}
	return key, nil
}

// decodeKey reads the content of a key file. What could be both hexadecimal and
// base64 is hexadecimal, on every node alike.
func decodeKey(data []byte) (key []byte, problem string) {
	if len(data) > maxKeyFile {
		return nil, fmt.Sprintf("it is larger than %d bytes", maxKeyFile)
	}
	text := strings.TrimSpace(string(data))
	switch {
	case text == "":
		return nil, "it is empty"
	case strings.ContainsAny(text, "\r\n"):
		return nil, "it has more than one line"
	}
	key, err := hex.DecodeString(text)
	if err != nil {
		key, err = base64.StdEncoding.DecodeString(text)
	}
	if err != nil {
		key, err = base64.RawStdEncoding.DecodeString(text)
	}
	switch {
	case err != nil:
		return nil, "it has neither base64 nor hexadecimal digits"
	case len(key) < MinKey:
		return nil, fmt.Sprintf("the key has %d bytes, and at least %d are needed", len(key), MinKey)
	case bytes.Count(key, key[:1]) == len(key):
		return nil, "the key is one byte over and over"
	}
	return key, ""
}

// GenerateKey draws a new cluster key and returns it as the line of a key file,
// without the line end.
func GenerateKey() (string, error) {
	key := make([]byte, MinKey)
	if _, err := rand.Read(key); err != nil {
		return "", fmt.Errorf("random bytes for a key: %w", err)
	}
	return base64.StdEncoding.EncodeToString(key), nil
}

// WriteKey creates the key file at path with mode 0600 and makes it durable. A
// file that is there is never overwritten: the cluster would fall apart. The
// error is a *KeyError, with fs.ErrExist in it in that case.
func WriteKey(path, key string) error {
	fail := func(problem, advice string, cause error) error { return &KeyError{path, problem, advice, cause} }
	if _, problem := decodeKey([]byte(key)); problem != "" {
		return fail("not written: "+problem, "", nil)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return fail("it exists already and is not overwritten", "remove it first if the cluster shall get a new key, or copy it to the other nodes", err)
	case errors.Is(err, fs.ErrNotExist):
		return fail("its directory does not exist", "run: mkdir -p "+filepath.Dir(path), err)
	case err != nil:
		return fail("it cannot be created: "+reason(err), "", err)
	}
	_, err = f.WriteString(key + "\n")
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		_ = os.Remove(path) // half a key is worse than none
		return fail("it cannot be written: "+reason(err), "", err)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
