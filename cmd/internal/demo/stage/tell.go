// Package stage is what every demonstration of hastctl stands on: the telling, a
// folder that a later run finds again, and waiting that ends.
//
// It knows nothing of what is demonstrated, and starts nothing.
package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Teller writes the story: chapters, what is done, and bars where one waits.
// It is for one goroutine.
type Teller struct {
	out      io.Writer
	terminal bool
	began    time.Time
	chapters int
	bar      bool      // one stands on the current line
	drawn    time.Time // when the bar was drawn last
}

// NewTeller begins a story.
func NewTeller(out io.Writer, terminal bool) *Teller {
	return &Teller{out: out, terminal: terminal, began: time.Now()}
}

// Began is when the story began.
func (t *Teller) Began() time.Time { return t.began }

// Writer ends the story when nobody can read it any more.
type Writer struct {
	W      io.Writer
	Unread context.CancelCauseFunc
}

// ErrUnread is the cause when nobody reads the story.
var ErrUnread = errors.New("the story cannot be written")

func (r *Writer) Write(p []byte) (int, error) {
	n, err := r.W.Write(p)
	if err != nil {
		r.Unread(fmt.Errorf("%w: %w", ErrUnread, err))
	}
	return n, err
}

const (
	barWidth    = 30
	redrawEvery = 80 * time.Millisecond
)

// Chapter opens a part of the story.
func (t *Teller) Chapter(format string, args ...any) {
	t.Clear()
	t.chapters++
	title := fmt.Sprintf("%d. %s", t.chapters, fmt.Sprintf(format, args...))
	if t.terminal {
		title = "\x1b[1m" + title + "\x1b[0m"
	}
	fmt.Fprintf(t.out, "\n%s\n", title)
}

// Say writes one line.
func (t *Teller) Say(format string, args ...any) {
	t.Clear()
	fmt.Fprintf(t.out, "   %s\n", fmt.Sprintf(format, args...))
}

// Quote writes what a program said, set off from the story.
func (t *Teller) Quote(text string) {
	t.Clear()
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		fmt.Fprintf(t.out, "   | %s\n", strings.TrimRight(line, "\n"))
	}
}

// Progress draws a bar on a terminal, and nothing elsewhere: there the line that
// says it is done must do. A share below zero: nobody knows how long.
func (t *Teller) Progress(share float64, format string, args ...any) {
	now := time.Now()
	if !t.terminal || t.bar && now.Sub(t.drawn) < redrawEvery {
		return
	}
	t.bar, t.drawn = true, now
	text := clip(fmt.Sprintf(format, args...))
	if share < 0 {
		// A mark that runs to and fro says only that something is waited for.
		at := int(now.Sub(t.began)/redrawEvery) % (2*barWidth - 2)
		if at >= barWidth {
			at = 2*barWidth - 2 - at
		}
		fmt.Fprintf(t.out, "\r\x1b[K   [%s#%s] %s", strings.Repeat(".", at), strings.Repeat(".", barWidth-at-1), text)
		return
	}
	full := int(min(share, 1) * barWidth)
	fmt.Fprintf(t.out, "\r\x1b[K   [%s%s] %3d%% %s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), int(min(share, 1)*100), text)
}

// textWidth is what stands beside a bar: it must not wrap on a narrow terminal.
const textWidth = 38

// clip keeps the end, which tells files apart.
func clip(s string) string {
	r := []rune(s)
	if len(r) > textWidth {
		return "…" + string(r[len(r)-textWidth+1:])
	}
	return s
}

// Spin shows that something is waited for until it is done.
func (t *Teller) Spin(done <-chan error, what string) error {
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			t.Clear()
			return err
		case <-tick.C:
			t.Progress(-1, "%s", what)
		}
	}
}

// Clear takes the bar away.
func (t *Teller) Clear() {
	if t.bar {
		fmt.Fprint(t.out, "\r\x1b[K")
		t.bar = false
	}
}
