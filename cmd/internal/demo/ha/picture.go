package ha

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
	"time"
)

// mark is something that was done, and the pause that the client saw.
type mark struct {
	At    time.Duration
	Title string
	Pause gap
}

// What the picture is drawn with, in its own units.
const (
	pictureWidth  = 1200
	pictureHeight = 440
	plotLeft      = 60
	plotTop       = 120
	plotBottom    = 350
	stripTop      = 372 // who answered
	stripHeight   = 14
	bin           = 200 * time.Millisecond // requests are counted in steps of this
	labelRows     = 3                      // titles of neighbours stand in different rows
)

var nodeColours = map[string]string{"alpha": "#2b6cb0", "bravo": "#b7791f"}

// picture draws the client's requests over time: answers a second, failed tries,
// who answered, and the pauses.
func picture(tries []request, marks []mark) []byte {
	var b bytes.Buffer
	f := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	f(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`,
		pictureWidth, pictureHeight, pictureWidth, pictureHeight)
	f(`<rect width="100%%" height="100%%" fill="#ffffff"/>`)
	f(`<text x="%d" y="24" font-size="16">%s</text>`, plotLeft, "What a client of the service address saw")
	if len(tries) > 0 {
		p := newPlot(tries)
		p.drawPauses(f, marks)
		p.drawAxes(f)
		p.drawTries(f)
		p.drawNodes(f, tries)
	}
	f(`</svg>`)
	return b.Bytes()
}

// plot is where times and rates stand in the picture.
type plot struct {
	from, to time.Duration
	good     []int // answers in each step
	bad      []int // failed tries
	most     int   // answers in a step
}

func newPlot(tries []request) *plot {
	p := &plot{from: tries[0].Begin, most: 1}
	for _, t := range tries {
		p.to = max(p.to, t.End)
	}
	n := int((p.to-p.from)/bin) + 1
	p.good, p.bad = make([]int, n), make([]int, n)
	for _, t := range tries {
		i := int((t.End - p.from) / bin)
		if !t.OK {
			p.bad[i]++
			continue
		}
		p.good[i]++
		p.most = max(p.most, p.good[i])
	}
	return p
}

func (p *plot) x(at time.Duration) float64 {
	return plotLeft + float64(at-p.from)/float64(max(p.to-p.from, bin))*(pictureWidth-plotLeft-20)
}

func (p *plot) y(count int) float64 {
	return plotBottom - float64(count)/float64(p.most)*(plotBottom-plotTop)
}

// drawPauses draws each pause as a band with what caused it.
func (p *plot) drawPauses(f func(string, ...any), marks []mark) {
	row := func(i int) int { return plotTop - 14 - 22*(i%labelRows) }
	for i, m := range marks {
		x, to := p.x(m.Pause.From), p.x(m.Pause.To)
		f(`<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="#fed7d7"/>`, x, plotTop, max(to-x, 1), plotBottom-plotTop)
		f(`<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#c53030" stroke-dasharray="3 3"/>`, p.x(m.At), p.x(m.At), plotTop-8, plotBottom)
		f(`<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#e2e8f0"/>`, p.x(m.At), p.x(m.At), row(i)+4, plotTop-8)
	}
	// Words over lines, with a border that keeps them apart.
	for i, m := range marks {
		anchor := "start"
		if p.x(m.At) > pictureWidth*3/4 {
			anchor = "end"
		}
		f(`<text x="%.1f" y="%d" text-anchor="%s" stroke="#ffffff" stroke-width="4" paint-order="stroke">%s: <tspan fill="#c53030">%.2f s</tspan></text>`,
			p.x(m.At), row(i), anchor, escape(m.Title), m.Pause.Length().Seconds())
	}
}

func (p *plot) drawAxes(f func(string, ...any)) {
	f(`<line x1="%d" x2="%d" y1="%d" y2="%d" stroke="#4a5568"/>`, plotLeft, pictureWidth-20, plotBottom, plotBottom)
	perSecond := float64(p.most) / bin.Seconds()
	f(`<text x="%d" y="%d" text-anchor="end">%.0f</text>`, plotLeft-6, plotTop+4, perSecond)
	f(`<text x="%d" y="%d" text-anchor="end">0</text>`, plotLeft-6, plotBottom+4)
	f(`<text x="14" y="%d" transform="rotate(-90 14 %d)" text-anchor="middle">answers a second</text>`, (plotTop+plotBottom)/2, (plotTop+plotBottom)/2)
	for s := time.Duration(0); s <= p.to-p.from; s += 5 * time.Second {
		f(`<text x="%.1f" y="%d" text-anchor="middle" fill="#4a5568">%.0f s</text>`, p.x(p.from+s), plotBottom+16, s.Seconds())
	}
}

// drawTries draws answers as bars and failed tries as dots.
func (p *plot) drawTries(f func(string, ...any)) {
	width := max(p.x(p.from+bin)-p.x(p.from)-0.5, 0.5)
	for i := range p.good {
		at := p.from + time.Duration(i)*bin
		if p.good[i] > 0 {
			f(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="#38a169"/>`, p.x(at), p.y(p.good[i]), width, plotBottom-p.y(p.good[i]))
		}
		if p.bad[i] > 0 {
			f(`<circle cx="%.1f" cy="%d" r="2.5" fill="#c53030"/>`, p.x(at+bin/2), plotBottom-6)
		}
	}
}

// drawNodes draws a strip of who answered.
func (p *plot) drawNodes(f func(string, ...any), tries []request) {
	for i := 0; i < len(tries); {
		if !tries[i].OK {
			i++
			continue
		}
		first, last := i, i
		for ; i < len(tries) && (!tries[i].OK || tries[i].Node == tries[first].Node); i++ {
			if tries[i].OK {
				last = i
			}
		}
		name := tries[first].Node
		colour, known := nodeColours[name]
		if !known {
			colour = "#718096"
		}
		x := p.x(tries[first].Begin)
		f(`<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`, x, stripTop, max(p.x(tries[last].End)-x, 1), stripHeight, colour)
		f(`<text x="%.1f" y="%d" fill="%s">%s</text>`, x, stripTop+stripHeight+14, colour, escape(name))
	}
	f(`<text x="%d" y="%d" fill="#4a5568">Bars: writes answered. Red dots: tries that failed and were made again. Red bands: the pauses. Strip: the node that answered.</text>`, plotLeft, pictureHeight-12)
}

func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s))
	return b.String()
}
