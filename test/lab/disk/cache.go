package disk

import "slices"

const (
	pageSize       = 4096
	sectorsPerPage = pageSize / SectorSize
	fullMask       = 1<<sectorsPerPage - 1
)

// page is the volatile content of 4 KiB. Only the sectors in mask are cached.
// data is nil for a page that was zeroed as a whole.
type page struct {
	mask uint8
	data []byte
}

// cache is the volatile write cache: pages by number, and the order in which
// they came.
type cache struct {
	pages map[int64]*page
	order []int64 // may name pages that are gone
	free  []*page
}

// maxFreePages bounds what is kept for reuse.
const maxFreePages = 4096

func newCache() cache { return cache{pages: map[int64]*page{}} }

func (c *cache) bytes() int64 { return int64(len(c.pages)) * pageSize }

func (c *cache) get(no int64) *page {
	p := c.pages[no]
	if p == nil {
		if n := len(c.free); n > 0 {
			p, c.free = c.free[n-1], c.free[:n-1]
		} else {
			p = &page{data: make([]byte, pageSize)}
		}
		c.pages[no] = p
		c.order = append(c.order, no)
	}
	return p
}

func (c *cache) release(no int64, p *page) {
	delete(c.pages, no)
	p.mask = 0
	if p.data != nil && len(c.free) < maxFreePages {
		c.free = append(c.free, p)
	}
}

func maskOf(in, n int64) uint8 {
	first, count := in/SectorSize, n/SectorSize
	return uint8((1<<count - 1) << first)
}

func (c *cache) write(b []byte, off int64) {
	for len(b) > 0 {
		in := off % pageSize
		n := min(int64(len(b)), pageSize-in)
		p := c.get(off / pageSize)
		if p.data == nil {
			p.data = make([]byte, pageSize)
		}
		copy(p.data[in:in+n], b[:n])
		p.mask |= maskOf(in, n)
		b, off = b[n:], off+n
	}
}

func (c *cache) zeroPage(no int64) {
	if p := c.pages[no]; p != nil {
		c.release(no, p)
	}
	c.pages[no] = &page{mask: fullMask}
	c.order = append(c.order, no)
}

// overlay replaces in b, which was read from the medium at off, what is cached.
func (c *cache) overlay(b []byte, off int64) {
	if len(c.pages) == 0 {
		return
	}
	for len(b) > 0 {
		in := off % pageSize
		n := min(int64(len(b)), pageSize-in)
		if p := c.pages[off/pageSize]; p != nil {
			for s := int64(0); s < sectorsPerPage; s++ {
				if p.mask&(1<<s) == 0 {
					continue
				}
				from, to := max(in, s*SectorSize), min(in+n, (s+1)*SectorSize)
				if from >= to {
					continue
				}
				if p.data == nil {
					clear(b[from-in : to-in])
				} else {
					copy(b[from-in:to-in], p.data[from:to])
				}
			}
		}
		b, off = b[n:], off+n
	}
}

// drop forgets cached pages of a page-aligned range.
func (c *cache) drop(off, n int64) {
	if n/pageSize > int64(len(c.pages)) {
		for no, p := range c.pages {
			if at := no * pageSize; at >= off && at < off+n {
				c.release(no, p)
			}
		}
		return
	}
	for no := off / pageSize; no < (off+n)/pageSize; no++ {
		if p := c.pages[no]; p != nil {
			c.release(no, p)
		}
	}
}

func (c *cache) clear() {
	for no, p := range c.pages {
		c.release(no, p)
	}
	c.order = c.order[:0]
}

func (c *cache) sorted() []int64 {
	nos := make([]int64, 0, len(c.pages))
	for no := range c.pages {
		nos = append(nos, no)
	}
	slices.Sort(nos)
	return nos
}

// destageAll writes everything to the medium, neighbours together, and empties
// the cache.
func (c *cache) destageAll(m *medium) error {
	const maxRun = 256 // pages written at once
	nos := c.sorted()
	var buf []byte
	for i := 0; i < len(nos); {
		p := c.pages[nos[i]]
		j := i + 1
		same := func(q *page) bool { return q.mask == fullMask && (q.data == nil) == (p.data == nil) }
		for p.mask == fullMask && j < len(nos) && j-i < maxRun && nos[j] == nos[j-1]+1 && same(c.pages[nos[j]]) {
			j++
		}
		var err error
		switch {
		case j == i+1:
			err = destage(m, nos[i], p, p.mask)
		case p.data == nil:
			err = m.zero(nos[i]*pageSize, int64(j-i)*pageSize)
		default:
			buf = buf[:0]
			for _, no := range nos[i:j] {
				buf = append(buf, c.pages[no].data...)
			}
			err = m.writeAt(buf, nos[i]*pageSize)
		}
		if err != nil {
			return err
		}
		i = j
	}
	c.clear()
	return nil
}

// destage writes the sectors of mask to the medium.
func destage(m *medium, no int64, p *page, mask uint8) error {
	if mask == fullMask && p.data == nil {
		return m.zero(no*pageSize, pageSize)
	}
	for s := int64(0); s < sectorsPerPage; {
		if mask&(1<<s) == 0 {
			s++
			continue
		}
		e := s + 1
		for e < sectorsPerPage && mask&(1<<e) != 0 {
			e++
		}
		at, n := s*SectorSize, (e-s)*SectorSize
		var err error
		if p.data == nil {
			err = m.zero(no*pageSize+at, n)
		} else {
			err = m.writeAt(p.data[at:at+n], no*pageSize+at)
		}
		if err != nil {
			return err
		}
		s = e
	}
	return nil
}

func (c *cache) destageOldest(m *medium) error {
	for len(c.order) > 0 {
		no := c.order[0]
		c.order = c.order[1:]
		if p := c.pages[no]; p != nil {
			err := destage(m, no, p, p.mask)
			c.release(no, p)
			return err
		}
	}
	return nil
}

// destageOld writes cached sectors in a range that is about to be overwritten,
// where pick says so.
func (c *cache) destageOld(m *medium, off, n, atomic int64, pick func() bool) error {
	if len(c.pages) == 0 {
		return nil
	}
	for no := off / pageSize; no*pageSize < off+n; no++ {
		p := c.pages[no]
		if p == nil || p.mask == 0 || !pick() {
			continue
		}
		mask := p.mask
		if atomic < pageSize {
			mask &= uint8(1<<sectorsPerPage-1) >> (no % 3) // part of it: a torn older write
		}
		if err := destage(m, no, p, mask); err != nil {
			return err
		}
	}
	return nil
}

// lose empties the cache, writing to the medium the units for which pick says
// yes, and counts sectors.
func (c *cache) lose(m *medium, atomic int64, pick func() bool) (kept, lost int64, err error) {
	per := atomic / SectorSize
	for _, no := range c.sorted() {
		p := c.pages[no]
		var mask uint8
		for s := int64(0); s < sectorsPerPage; s += per {
			unit := maskOf(s*SectorSize, atomic)
			if p.mask&unit == 0 {
				continue
			}
			if pick() {
				mask |= p.mask & unit
			}
		}
		for s := range sectorsPerPage {
			if mask&(1<<s) != 0 {
				kept++
			} else if p.mask&(1<<s) != 0 {
				lost++
			}
		}
		if err := destage(m, no, p, mask); err != nil {
			return kept, lost, err
		}
	}
	c.clear()
	return kept, lost, nil
}

func (c *cache) hasData(no int64) bool {
	p := c.pages[no]
	return p != nil && p.data != nil
}

// nextData is the first offset at or after off that a cached page with data
// covers, or size.
func (c *cache) nextData(off, size int64) int64 {
	best := size
	for no, p := range c.pages {
		if p.data != nil && (no+1)*pageSize > off {
			best = min(best, max(off, no*pageSize))
		}
	}
	return best
}
