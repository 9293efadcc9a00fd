package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// teller writes the story: chapters, what is done, and bars where one waits.
// It is for one goroutine.
type teller struct {
	out      io.Writer
	terminal bool
	began    time.Time
	chapters int
	bar      bool      // one stands on the current line
	drawn    time.Time // when the bar was drawn last
}

// storyWriter ends the story when nobody can read it any more.
type storyWriter struct {
	w      io.Writer
	unread context.CancelCauseFunc
}

var errUnread = errors.New("the story cannot be written")

func (r *storyWriter) Write(p []byte) (int, error) {
	n, err := r.w.Write(p)
	if err != nil {
		r.unread(fmt.Errorf("%w: %w", errUnread, err))
	}
	return n, err
}

const (
	barWidth    = 30
	redrawEvery = 80 * time.Millisecond
)

// chapter opens a part of the story.
func (t *teller) chapter(format string, args ...any) {
	t.clear()
	t.chapters++
	title := fmt.Sprintf("%d. %s", t.chapters, fmt.Sprintf(format, args...))
	if t.terminal {
		title = "\x1b[1m" + title + "\x1b[0m"
	}
	fmt.Fprintf(t.out, "\n%s\n", title)
}

// say writes one line.
func (t *teller) say(format string, args ...any) {
	t.clear()
	fmt.Fprintf(t.out, "   %s\n", fmt.Sprintf(format, args...))
}

// quote writes what a program said, set off from the story.
func (t *teller) quote(text string) {
	t.clear()
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		fmt.Fprintf(t.out, "   | %s\n", strings.TrimRight(line, "\n"))
	}
}

// progress draws a bar on a terminal, and nothing elsewhere: there the line that
// says it is done must do. A share below zero: nobody knows how long.
func (t *teller) progress(share float64, format string, args ...any) {
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

// spin shows that something is waited for until it is done.
func (t *teller) spin(done <-chan error, what string) error {
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			t.clear()
			return err
		case <-tick.C:
			t.progress(-1, "%s", what)
		}
	}
}

// clear takes the bar away.
func (t *teller) clear() {
	if t.bar {
		fmt.Fprint(t.out, "\r\x1b[K")
		t.bar = false
	}
}
