package runner

import (
	"os"
	"testing"

	"hastd/metadata"
)

// FuzzState: whatever stands in a state file, it is read or counts as missing, and
// a change of one thing keeps the others as they were read.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"path":"/dev/vg0/data","size":1073741824}`))
	f.Add([]byte(`{"path":"x","size":-1,"inconsistent":true,"resuid":"0123456789abcdef"}`))
	f.Add([]byte(`{"resuid":7,"inconsistent":1}`))
	f.Add([]byte(`{"inconsistent":true,"resuid":7}`))
	f.Add([]byte(`null`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(statePath(dir, "data"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		st, _ := loadState(dir, "data")
		for _, id := range []metadata.ID{0, 1, st.Resuid} {
			sb := metadata.Superblock{Resuid: id}
			if got, want := st.marked(sb, true), st.Inconsistent && id == st.Resuid; got != want {
				t.Fatalf("%+v marks the replica %s: %v", st, id, got)
			}
		}
		if st.marked(metadata.Superblock{}, false) != st.Inconsistent {
			t.Fatal("a replica that cannot be told apart must count as marked")
		}
		if err := changeState(dir, "data", func(s *state) { s.Size++ }); err != nil {
			t.Fatal(err)
		}
		want := st
		want.Size++
		if got, _ := loadState(dir, "data"); got != want {
			t.Fatalf("%+v became %+v", want, got)
		}
	})
}
