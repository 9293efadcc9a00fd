package conf

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Schedule is five cron fields: minute, hour, day of the month, month, day of
// the week. The zero value never comes due.
type Schedule struct {
	text   string
	fields [5]uint64 // a bit for each value that matches
	// As in crontab(5): if both days are restricted, either suffices.
	eitherDay bool
}

var cronFields = [5]struct {
	name      string
	low, high int
	words     []string // for low, low+1, …
}{
	{"minute", 0, 59, nil},
	{"hour", 0, 23, nil},
	{"day", 1, 31, nil},
	{"month", 1, 12, []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
	{"weekday", 0, 7, []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
}

// ParseSchedule reads the form of crontab(5): *, N, N-M, with /STEP, lists with
// commas, and English names of months and weekdays; Sunday is 0 and 7.
func ParseSchedule(text string) (Schedule, error) {
	s := Schedule{text: text}
	parts := strings.Fields(text)
	if len(parts) != len(cronFields) {
		return Schedule{}, fmt.Errorf("has %d fields, not five", len(parts))
	}
	for i, p := range parts {
		set, err := cronField(i, p)
		if err != nil {
			return Schedule{}, fmt.Errorf("the %s %s %w", cronFields[i].name, quote(p), err)
		}
		s.fields[i] = set
	}
	if s.fields[4]&(1<<7) != 0 {
		s.fields[4] |= 1
	}
	s.eitherDay = !strings.HasPrefix(parts[2], "*") && !strings.HasPrefix(parts[4], "*")
	return s, nil
}

func cronField(field int, text string) (uint64, error) {
	f := cronFields[field]
	var set uint64
	for item := range strings.SplitSeq(text, ",") {
		span, stepText, hasStep := strings.Cut(item, "/")
		step := 1
		if hasStep {
			n, err := strconv.Atoi(stepText)
			if err != nil || n < 1 || n > f.high {
				return 0, errors.New("has a wrong step")
			}
			step = n
		}
		low, high := f.low, f.high
		if span != "*" {
			from, to, isRange := strings.Cut(span, "-")
			var ok1, ok2 bool
			low, ok1 = cronValue(field, from)
			high, ok2 = low, ok1
			if isRange {
				high, ok2 = cronValue(field, to)
			} else if hasStep {
				high = f.high
			}
			if !ok1 || !ok2 || low > high {
				return 0, fmt.Errorf("is not within %d-%d", f.low, f.high)
			}
		}
		for v := low; v <= high; v += step {
			set |= 1 << v
		}
	}
	return set, nil
}

func cronValue(field int, text string) (int, bool) {
	f := cronFields[field]
	for i, w := range f.words {
		if strings.EqualFold(text, w) {
			return f.low + i, true
		}
	}
	n, err := strconv.ParseUint(text, 10, 8)
	return int(n), err == nil && int(n) >= f.low && int(n) <= f.high
}

// Due says whether the minute of t is one of the schedule's, in t's time zone.
func (s Schedule) Due(t time.Time) bool {
	has := func(field, v int) bool { return s.fields[field]&(1<<v) != 0 }
	day, weekday := has(2, t.Day()), has(4, int(t.Weekday()))
	onDay := day && weekday
	if s.eitherDay {
		onDay = day || weekday
	}
	return has(0, t.Minute()) && has(1, t.Hour()) && has(3, int(t.Month())) && onDay
}

// IsZero says that there is no schedule.
func (s Schedule) IsZero() bool { return s.text == "" }

// String gives the fields as they stand in the file.
func (s Schedule) String() string { return s.text }
