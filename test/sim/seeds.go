package sim

// NamedSeed is a run that once found something. It is replayed by the tests for
// as long as the simulator draws the same run from it.
type NamedSeed struct {
	Seed  uint64
	Name  string
	Found string
}

// NamedSeeds are the runs that found something. The simulator has learnt to draw more
// faults since, so all of them are now runs like others; the words say what to plant
// (planted/table.go) or to script.
var NamedSeeds = []NamedSeed{
	{23275, "disconnect-on-failing-disk", "an order to disconnect waited for a commit of a disk that had failed: no answer, and no agreement with the peer ever again"},
	{4343, "disconnect-on-failing-secondary", "the same on a secondary"},
	{5330, "promotion-turned-forced", "the peer was lost between the decision to promote and its durable step: an inconsistent replica was promoted as if by force"},
	{6843, "clearing-commit-under-way", "an extent left the log because its bits stood in the map on the medium, which a commit under way was clearing"},
	{1725, "target-primary-loses-cache", "a flush was acknowledged although the source had lost what it held only in its cache and had not got it again"},
	{703, "resumed-is-not-lost", "a loss of data was reported by a primary whose own replica had everything"},
	{1300, "late-pull-after-failed-disk", "a primary that stepped down took a late answer of its peer for a protocol error"},
	{7028276, "queued-behind-a-refused-flush", "a request queued behind a FUA write whose flush was refused waited for one event more, and role init with it"},
	{7033179, "queued-behind-a-refused-flush-again", "the same with other faults"},
	{70052695, "orphan-takes-a-number", "a window of an earlier agreement, its disk slow, ended with the sync of a later one and took the number of a write there: never confirmed"},
	{8151908, "sleeper-answers-a-flush", "the judge asked a replica that was promoted by force meanwhile for what a frozen primary answered when it woke"},
	{1500109390, "zeroes-prove-nothing", "async: the judge took zeroes on a target for a later zeroing that had never come there, and held it to a write it had given up"},
	{1600079733, "parted-by-order", "the judge wanted a primary that woke and was disconnected by order to ask its peer, because it was to connect again 4 ms later"},
	{1800009595, "owed-after-the-loss", "what a secondary wrote after its connection was lost was in no map: a later copying left it different"},
	{200011282, "max-rate-after-a-sleep", "a clock that leapt by minutes made the product of max-rate and time overflow, and the sync rested for as long"},
	{3040086472, "alone-before-the-agreement", "a primary raised between its promotion and the agreement with a peer that was there, stood still at that moment, and acknowledged when it woke without asking"},
	{4310019715, "room-beside-what-is-wanted", "a small log was full, and room for a long write was sought in its own extents, which had left for the map already: a commit without end"},
	{4310130725, "room-beside-what-is-wanted-again", "the same on a secondary whose primary had lost its disk"},
	{5210040473, "older-map-with-more-bits", "the judge counted on bits that an older page of the map, read by a lying disk, had and the medium had not"},
	{5210126551, "recover-twice", "the judge took an order to recover that was refused, for another one was carried out, for the end of that one"},
	{6010042530, "sync-that-ended-unseen", "the judge saw the end of an earlier sync, whose commit had been refused, when a disk was opened for a promotion by force, and forgot the force"},
	{6010097543, "read-of-a-write-that-failed", "resume --error let go of a write that a primary with a bad replica had on its disk and its peer had not: a read showed it, and a flush did not keep it"},
	{6020144576, "zeroes-prove-nothing-again", "async: the judge took the zeroes of a new disk for those of a zeroing that was on its way behind another write"},
	{7020023233, "script-beside-a-crash", "the script of row 28 asked a node for its status that had crashed beside it"},
	{9020021177, "older-map-outlives-a-write", "the judge forgot which bits were taken for durable by an older page of the map once the block was written again, and these went on not to be"},
	{13140031416, "raised-for-nobody", "the judge held a node to a raise for its primary, whose disk failed, of which that never heard: started again with its disk, the primary rightly cannot tell"},
	{13200125025, "script-beside-a-crash-again", "scripts that wait for a split-brain or a refusal asked a node for its status that had crashed beside them"},
	{13210095731, "demoted-while-suspended", "async: the judge took the demotion of a suspended primary for a flush, because nothing had been written that would have left a mark"},
	{13240010023, "demoted-while-suspended-again", "the same in memsync"},
	{14130390087, "failed-and-read", "memsync, a primary that was being filled: a write that resume --error had ended reached both, was read, and was only in the peer's cache when that lost power; nobody was told of the loss"},
	{14150189083, "demoted-alone", "two orders promoted both nodes at once; one of them showed what its peer had lost with its cache, wrote nothing, and was demoted: the judge took that for a flush of both, although nobody was connected"},
	{16080296411, "agreed-with-what-is-no-more", "a node slept over the agreement to be copied to, and when it woke and marked its replica, the other had been made anew and had an identity of its own: the judge compared the two"},
	{16090282582, "agreed-with-what-is-no-more-again", "the same, with two pairs"},
	{16100140053, "zeroes-that-lie", "a disk lied about its log, so a block of zeroes may be wrong; made equal to a new replica that was zero there too, it lost the mark of that: marks of blocks found equal travelled only where disks lie about data"},
}
