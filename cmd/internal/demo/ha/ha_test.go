package ha

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hastd/cmd/internal/exit"
)

const ms = time.Millisecond

func TestLongestPauseIsTheOneAroundWhatWasDone(t *testing.T) {
	tries := []request{
		{N: 1, End: 10 * ms, OK: true, Node: "alpha"},
		{N: 2, End: 900 * ms, OK: true, Node: "alpha"}, // longer, and over before
		{N: 3, End: 1000 * ms, OK: true, Node: "alpha"},
		{N: 4, End: 1400 * ms, Error: "no answer in time"},
		{N: 4, End: 1500 * ms, Error: "refused"},
		{N: 4, End: 1600 * ms, OK: true, Node: "bravo"},
		{N: 5, End: 1700 * ms, OK: true, Node: "bravo"},
	}
	p, ok := longestPause(tries, 1100*ms)
	if want := (gap{1000 * ms, 1600 * ms, 2, "refused", "alpha", "bravo"}); !ok || p != want {
		t.Errorf("got %+v, want %+v", p, want)
	}
	if _, ok := longestPause(tries[:5], 1100*ms); ok {
		t.Error("a pause without an end was told")
	}
}

func TestJudgeWantsEveryRecord(t *testing.T) {
	good := []request{{N: 1, OK: true}, {N: 2, OK: true}, {N: 3, OK: true}}
	if err := judge(good, 3); err != nil {
		t.Error(err)
	}
	for want, read := range map[string][]request{
		"LOST: record 2 of 3": {{N: 1, OK: true}, {N: 2, Lost: "it is not there"}, {N: 3, OK: true}},
		"cannot be read back": {{N: 1, OK: true}, {N: 2, Error: "500"}},
		"was not read back":   good[:2],
	} {
		if err := judge(read, 3); exit.CodeOf(err) != exit.IO || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// newStore serves a store in a folder of the test's.
func newStore(t *testing.T) (*store, string) {
	t.Helper()
	s := &store{dir: t.TempDir(), node: "alpha"}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return s, strings.TrimPrefix(srv.URL, "http://")
}

func TestWhatTheStoreLostIsFound(t *testing.T) {
	s, address := newStore(t)
	put := func(n string, body []byte) {
		t.Helper()
		req, _ := http.NewRequest(http.MethodPut, "http://"+address+recordsPrefix+n, bytes.NewReader(body))
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != http.StatusNoContent {
			t.Fatalf("%v %v", resp, err)
		}
		resp.Body.Close()
	}
	put("1", content("seed", 1))
	put("2", content("other", 2))
	put("3", content("seed", 3))
	if err := os.Remove(filepath.Join(s.dir, "0000", "00000003")); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Load(t.Context(), &out, "get", address, "seed", 3); err != nil {
		t.Fatal(err)
	}
	c := &client{}
	c.follow(&out)
	read, _, err := c.seen()
	if err != nil || len(read) != 3 || read[0].Lost != "" || read[0].Node != "alpha" || read[1].Lost != "it has another content" || read[2].Lost != "it is not there" {
		t.Errorf("got %+v, %v", read, err)
	}
}

// A try that is not answered is made again with the same record.
func TestClientTriesAgain(t *testing.T) {
	s, _ := newStore(t)
	fail := 2
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/2") && fail > 0 {
			fail--
			http.Error(w, "not now", http.StatusInternalServerError)
			return
		}
		s.ServeHTTP(w, r)
	}))
	defer srv.Close()
	r, w := io.Pipe()
	go func() {
		w.CloseWithError(Load(t.Context(), w, "put", strings.TrimPrefix(srv.URL, "http://"), "seed", 0))
	}()
	c := &client{}
	c.follow(&firstLines{r: r, left: 6})
	r.Close()
	var got []string
	tries, acked, err := c.seen()
	for _, x := range tries {
		got = append(got, map[bool]string{true: "good", false: "bad"}[x.OK]+string('0'+byte(x.N)))
	}
	if want := "good1 bad2 bad2 good2 good3 good4"; err != nil || strings.Join(got, " ") != want || acked != 4 {
		t.Errorf("got %v, %d acknowledged, %v; want %s", got, acked, err, want)
	}
}

// firstLines ends after so many lines, each of which comes in one read.
type firstLines struct {
	r    io.Reader
	left int
}

func (f *firstLines) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	n, err := f.r.Read(p)
	f.left -= bytes.Count(p[:n], []byte("\n"))
	return n, err
}

func TestPictureIsWellFormedAndMarksPauses(t *testing.T) {
	tries := []request{
		{N: 1, Begin: 0, End: 5 * ms, OK: true, Node: "alpha"},
		{N: 2, Begin: 10 * ms, End: 400 * ms, Error: "no answer in time"},
		{N: 2, Begin: 3 * time.Second, End: 3010 * ms, OK: true, Node: "bravo"},
	}
	b := picture(tries, []mark{{At: 8 * ms, Title: "kill <-9>", Pause: gap{From: 5 * ms, To: 3010 * ms}}})
	wellFormed(t, b)
	for _, want := range []string{"kill &lt;-9&gt;", ">3.00 s<", ">alpha<", ">bravo<", "#fed7d7"} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("%q is missing in\n%s", want, b)
		}
	}
	wellFormed(t, picture(nil, nil))
}

func wellFormed(t *testing.T, b []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(b))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("the picture is no XML: %v\n%s", err, b)
		}
	}
}

func TestSilenceIsThatOfCARP(t *testing.T) {
	if a, b := silence(0), silence(bravoSkew); a != 3*time.Second || b < 3500*ms || b > 3600*ms {
		t.Errorf("%v and %v", a, b)
	}
}
