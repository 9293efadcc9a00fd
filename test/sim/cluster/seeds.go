package cluster

// NamedSeeds are those that found something once. What they play changes with the code;
// what they found has tests of its own, named here.
var NamedSeeds = []struct {
	Seed  uint64
	Found string
}{
	{276, "a hold granted after hastd had said no: a peer that lacked writes was counted in sync (cluster/member TestRefusedQuestionLeavesNoHold)"},
	{235, "a question whose answer was lost left hastd waiting for ever (cluster/member TestQuestionWithoutAnAnswerIsAskedAgain)"},
	{181, "a proposal stored by its proposer alone took its lease for ever (cluster/member TestStoredProposalIsDecided)"},
	{667, "an owner whose vipd restarted stored what took the lease of its life before (cluster/lease TestOwnerThatStartsGuardsItself)"},
	{33, "an owner alone in sync was not promoted after an unclean stop (replicate TestOwnerNeedNotAskThePeer)"},
	{5127, "a promotion went on after its grant was gone (replicate TestPromotionEndsWithTheGrant)"},
	{5627, "memsync parted two replicas at a cut, although the view held"},
	{20000140, "the judge: what is promoted over a connection that is half gone shows nothing of its own"},
	{5000025, "the judge: in memsync a replica whose disk fails loses what it had received"},
	{30025354, "that hastd was started again was heard late, and a peer counted for which it was only asked to hold (cluster/member TestLateNewsOfARestartIsNoHold)"},
	{30043885, "no hastd was taken for one that holds, and a peer counted (cluster/member TestHastdThatIsGoneHoldsForNobody)"},
	{30017342, "a question was taken whose answer nobody got, and hastd held for ever (cluster/member TestHoldThatNobodyKnowsOfIsEnded)"},
	{30047680, "the judge: a resource whose owner's disk failed is not moved to a replica that is not good either"},
	{30052406, "the judge: a view without the peer is an answer to a primary that stood still"},
	{32041549, "hastd was started again while an owner let its lease run out: it never renewed it again (cluster/member TestLeaseComesBackAlthoughStorageStartsAgain)"},
	{32040324, "the judge: a flush covered what was read after it, once reads before it were forgotten"},
	{33064898, "a demotion whose last step failed with the disk left a primary that served nobody (replicate TestTranscriptDemoteOnFailingDisk)"},
	{31021503, "the judge: a view that a leader committed alone, and took with it, is known to nobody"},
	{33075375, "the judge: a raise that the disk refused, and kept, parts the replicas although nothing was acknowledged by it"},
	{37034853, "who slept confirmed a lease, and committed in the same step a view that took what it is for (cluster/member TestPromiseBindsAtOnce)"},
	{37049620, "a flush was answered for both, of what the lost primary had sent and lost (replicate TestFlushOfWhatWasWrittenAfterTheConnection)"},
	{37036760, "the judge: the only node that knew of an era that a person began was wiped"},
	{38000467, "the judge: what the source of a sync lost with its power the target cannot have"},
	{39054371, "the judge: who makes a replica anew puts the resource to init first, also if it is and its disk failed"},
	{36013654, "the judge: a person has the owner itself promote a replica that is not whole"},
	{52004647, "the judge: a primary whose disk failed never heard that its peer had taken over, and acknowledged nothing by that"},
	{7082, "a flush without a lease kept a forced demotion from ending"},
}
