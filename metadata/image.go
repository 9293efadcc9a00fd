package metadata

// Image is what a shell read from a component's metadata area when it opened it,
// and what the machine judges. The shell fills it; Load decodes it.
type Image struct {
	Layout     Layout
	SectorSize uint32    // of the component
	Super      [2][]byte // SuperblockSize bytes each; nil when it could not be read, and then Load refuses
	Log        [2][]byte // LogSize bytes each; nil when it could not be read, and then everything counts as dirty
	Map        []byte    // MapPages*PageSize bytes; pages that could not be read are zeroes
	// StateInconsistent: the state directory keeps a mark that this replica is
	// inconsistent although its own metadata could not say so.
	StateInconsistent bool
}

// Write is one metadata write: sector-aligned offset and length on the metadata
// device.
type Write struct {
	Offset int64
	Data   []byte
}
