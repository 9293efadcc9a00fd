package metadata

// Create gives the superblock and all writes that make a new replica. Both copies
// of superblock and log are written, and every map page.
func Create(l Layout, sb Superblock) ([]Write, error) {
	sb.Sequence = 1
	sb.DataSize = l.DataSize
	if err := sb.check(); err != nil {
		return nil, err
	}
	var ws []Write
	for page := range int(mapPages(l.DataSize)) {
		b := make([]byte, PageSize)
		encodePage(b, page, nil)
		ws = append(ws, Write{l.Map + int64(page)*PageSize, b})
	}
	for i := range 2 {
		ws = append(ws, Write{l.Log[i], encodeLog(make([]byte, LogSize), uint64(i), nil)})
	}
	for i := range 2 {
		b := make([]byte, SuperblockSize)
		sb.Encode(b)
		sb.Sequence++
		ws = append(ws, Write{l.Super[i], b})
	}
	return ws, nil
}

// Dump is what `hastctl dump` shows of a replica.
type Dump struct {
	Super      Superblock
	Newest     int // which copy, 0 or 1
	SuperError [2]error
	LogError   [2]error
	Extents    []Extent
	DirtyBytes int64 // without the log's extents
	Damaged    int   // map pages that count as dirty
}

// Inspect reads an image for people. It fails only if there is no superblock.
func Inspect(img *Image) (*Dump, error) {
	sb, which, err := newestSuper(img)
	if err != nil {
		return nil, err
	}
	d := &Dump{Super: sb, Newest: which}
	switch which {
	case -2:
		d.Newest = 0
	case -1:
		d.Newest = 1
	}
	for i, b := range img.Super {
		if b == nil {
			d.SuperError[i] = &CorruptError{"superblock could not be read"}
		} else {
			_, d.SuperError[i] = DecodeSuperblock(b)
		}
	}
	limit := (sb.DataSize + int64(sb.ExtentSize) - 1) / int64(sb.ExtentSize)
	var newest uint64
	found := false
	for i, b := range img.Log {
		seq, e, err := DecodeLog(b, limit)
		if d.LogError[i] = err; err == nil && (!found || seq > newest) {
			newest, d.Extents, found = seq, e, true
		}
	}
	m, damaged := DecodeMap(img.Map, sb.DataSize)
	d.Damaged = damaged
	d.DirtyBytes = min(m.Count()*BlockSize, sb.DataSize)
	return d, nil
}
