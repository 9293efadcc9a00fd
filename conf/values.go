package conf

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// maxSocketPath is how long the path of a Unix socket may be (sun_path without
// the final zero).
const maxSocketPath = 107

var sizeUnits = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

var errSize = errors.New("not a size: write a whole number with the unit B, KiB, MiB, GiB or TiB")

// ParseSize reads an amount of bytes such as "2MiB", "1GiB", "512" or "0". Only
// the binary units are understood, because "2MB" means two things to two
// people.
func ParseSize(s string) (int64, error) {
	digits, unit := s, int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			digits, unit = strings.TrimSuffix(rest, " "), u.bytes
			break
		}
	}
	if digits == "" || strings.ContainsFunc(digits, func(r rune) bool { return r < '0' || r > '9' }) {
		return 0, errSize
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > math.MaxInt64/unit {
		return 0, errSize
	}
	return n * unit, nil
}

// FormatSize is the inverse of ParseSize, in the largest unit that needs no
// fraction.
func FormatSize(n int64) string {
	for _, u := range sizeUnits {
		if n != 0 && n%u.bytes == 0 && u.bytes > 1 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// sizeExample turns what was probably meant into the right form.
func sizeExample(s string, def int64) string {
	number := strings.TrimRightFunc(s, func(r rune) bool { return !unicode.IsDigit(r) })
	unit := strings.ToLower(strings.TrimSpace(s[len(number):]))
	unit, _, _ = strings.Cut(unit, "/")
	for _, u := range sizeUnits {
		lower := strings.ToLower(u.name)
		if u.bytes > 1 && (unit == lower || unit == lower[:1] || unit == lower[:1]+"b") {
			if _, err := ParseSize(number + u.name); err == nil {
				return quote(number + u.name)
			}
		}
	}
	if def == 0 {
		return `"100MiB"`
	}
	return quote(FormatSize(def))
}

// FormatDuration writes a duration as one would in the file: 10m, not 10m0s.
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// typeName names the TOML type of a decoded value in words.
func typeName(v any) string {
	switch v.(type) {
	case string:
		return "a text"
	case bool:
		return "true or false"
	case int64:
		return "a number"
	case float64:
		return "a number with a fraction"
	case time.Time:
		return "a date"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "a list of tables"
	case []any:
		return "a list"
	}
	return "this"
}

// badPath says what is wrong with a path, "" if nothing.
func badPath(s string) string {
	switch {
	case s == "":
		return "is empty"
	case strings.ContainsFunc(s, unicode.IsControl):
		return quote(s) + " has control characters"
	case !filepath.IsAbs(s):
		return quote(s) + " is not an absolute path"
	}
	return ""
}

// hostPort reads an address to listen on: IP:PORT, localhost:PORT or :PORT.
func (t *table) hostPort(key, def string) string {
	s := t.text(key, def, def)
	if s == "" || s == def {
		return s
	}
	if !validHostPort(s, "", "localhost") {
		t.wrong(key, quote(s)+" is not an address to listen on", "write IP:PORT, such as "+quote(def)+", or \"\" for none")
		return def
	}
	return s
}

// validHostPort accepts an IP address or one of the given words, and a port.
func validHostPort(s string, words ...string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return false
	}
	for _, w := range words {
		if host == w {
			return true
		}
	}
	_, err = netip.ParseAddr(host)
	return err == nil
}

// socket reads the path of a Unix socket.
func (t *table) socket(key, def string) string {
	s := t.file(key, def, def)
	if len(s) > maxSocketPath {
		t.wrong(key, "is too long for a socket: "+strconv.Itoa(len(s))+" bytes of at most "+strconv.Itoa(maxSocketPath),
			"write a shorter path, such as "+quote(def))
		return def
	}
	return s
}

// nodeAddress reads one address of a node.
func nodeAddress(s string) (a netip.Addr, problem, advice string) {
	a, err := netip.ParseAddr(s)
	const write = `write an IP address, such as "10.0.0.1"`
	switch {
	case err != nil:
		if p, err := netip.ParsePrefix(s); err == nil {
			return a, quote(s) + " is a network", "write the address alone: " + quote(p.Addr().String())
		}
		if p, err := netip.ParseAddrPort(s); err == nil {
			return a, quote(s) + " has a port", "write the address alone: " + quote(p.Addr().String()) + "; the port is hastd.port"
		}
		return a, quote(s) + " is not an IP address", write
	case a.Zone() != "":
		return a, quote(s) + " has a zone", "write an address that means the same on every node"
	case a.Is4In6():
		return a, quote(s) + " is an IPv4 address in IPv6 form", "write " + quote(a.Unmap().String())
	case a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return a, quote(s) + " cannot be the address of a node", write
	}
	return a, "", ""
}

// cidr reads one service address.
func cidr(s string) (p netip.Prefix, problem, advice string) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" && !a.Is4In6() {
			bits := "/24"
			if a.Is6() {
				bits = "/64"
			}
			return p, quote(s) + " lacks the length of its network", "write it as in " + quote(a.String()+bits)
		}
		return p, quote(s) + " is not an address with its network", `write it as in "192.0.2.10/24" or "2001:db8::10/64"`
	case p.Addr().Is4In6() || p.Addr().IsUnspecified() || p.Addr().IsMulticast() || p.Addr().IsLoopback():
		return p, quote(s) + " cannot be a service address", `write it as in "192.0.2.10/24" or "2001:db8::10/64"`
	}
	return p, "", ""
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

const nameAdvice = "use 1 to 63 letters, digits, '_', '.' or '-', beginning with a letter or digit"

// ValidName says whether s can name a cluster, node, resource, group or
// service: such a name is safe in paths, on command lines and in logs.
func ValidName(s string) bool { return namePattern.MatchString(s) }
