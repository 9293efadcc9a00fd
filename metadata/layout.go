package metadata

import "fmt"

// Bounds of what `create` accepts.
const (
	MinExtentSize = 64 << 10
	MaxExtentSize = 64 << 20
	MinKeepdirty  = 16
	MaxKeepdirty  = 4000
)

// Layout says where everything stands, in bytes from the start of the metadata
// device. The area is anchored at the device's end:
//
//	... data | map pages | tail of TailSize: superblock A .. log A .. log B .. superblock B
//
// The copies of superblock and log stand far apart, so that damage to one place
// of the medium does not take both.
type Layout struct {
	Start    int64 // where the area begins: on an internal one the room for data ends here
	Map      int64 // first map page
	MapPages int64
	Super    [2]int64
	Log      [2]int64
	End      int64
	DataSize int64
}

// Sizes of the parts, in bytes.
const (
	TailSize = 1 << 20
	PageSize = 4096
	// LogSize is the room of one copy of the activity log.
	LogSize = 32 << 10
	// blocksPerPage: a map page is a 32-byte head and bits.
	pageHead      = 32
	blocksPerPage = (PageSize - pageHead) * 8
	logOffsetA    = 256 << 10
	logOffsetB    = 512 << 10
)

// TooSmallError is a component with no room for data and metadata.
type TooSmallError struct{ Have, Need int64 }

func (e *TooSmallError) Error() string {
	return fmt.Sprintf("too small: %d bytes, at least %d are needed", e.Have, e.Need)
}

// Internal lays metadata out at the end of a component of size bytes that also
// holds the data.
func Internal(size int64) (Layout, error) {
	end := size / PageSize * PageSize
	room := end - TailSize
	// Every page of map pays for blocksPerPage blocks of data.
	pages := (room/BlockSize + blocksPerPage) / (blocksPerPage + 1)
	data := (room - pages*PageSize) / BlockSize * BlockSize
	if data < BlockSize {
		return Layout{}, &TooSmallError{size, ComponentSize(BlockSize)}
	}
	return layout(end, pages, data), nil
}

// External lays metadata out at the end of a device or file of its own, for a
// component of dataSize bytes.
func External(metaSize, dataSize int64) (Layout, error) {
	data := dataSize / BlockSize * BlockSize
	pages := mapPages(data)
	if need := pages*PageSize + TailSize; metaSize/PageSize*PageSize < need || data < BlockSize {
		return Layout{}, &TooSmallError{metaSize, need}
	}
	return layout(metaSize/PageSize*PageSize, pages, data), nil
}

// ComponentSize is how large a component with internal metadata must be for a
// provider of dataSize bytes.
func ComponentSize(dataSize int64) int64 {
	data := (dataSize + BlockSize - 1) / BlockSize * BlockSize
	return data + mapPages(data)*PageSize + TailSize
}

// ExternalSize is how large a metadata device of its own must be.
func ExternalSize(dataSize int64) int64 {
	return mapPages(dataSize)*PageSize + TailSize
}

func mapPages(dataSize int64) int64 {
	blocks := (dataSize + BlockSize - 1) / BlockSize
	return (blocks + blocksPerPage - 1) / blocksPerPage
}

func layout(end, pages, data int64) Layout {
	tail := end - TailSize
	return Layout{
		Start:    tail - pages*PageSize,
		Map:      tail - pages*PageSize,
		MapPages: pages,
		Super:    [2]int64{tail, end - SuperblockSize},
		Log:      [2]int64{tail + logOffsetA, tail + logOffsetB},
		End:      end,
		DataSize: data,
	}
}
