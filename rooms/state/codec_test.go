package state

import (
	"bytes"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestCodecRoundTrip(t *testing.T) {
	number := rapid.OneOf(rapid.Int64Range(1, 300), rapid.Int64Range(1, 1<<33), rapid.Int64Range(1, math.MaxInt64))
	entry := rapid.Custom(func(t *rapid.T) Entry {
		e := Entry{KeyNID(number.Draw(t, "key")), EventNID(number.Draw(t, "event"))}
		if rapid.IntRange(0, 4).Draw(t, "removal") == 0 {
			e.Event = 0
		}
		return e
	})
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOf(entry).Draw(t, "entries")
		prefix := rapid.SliceOf(rapid.Byte()).Draw(t, "prefix")
		encoded := AppendEntries(slices.Clone(prefix), entries)
		if !bytes.HasPrefix(encoded, prefix) {
			t.Fatal("what dst held is gone")
		}
		got, err := DecodeEntries(encoded[len(prefix):])
		if err != nil || !slices.Equal(got, normal(entries)) {
			t.Fatalf("read back %v (%v), want %v", got, err, normal(entries))
		}
	})
}

func TestCodecSizes(t *testing.T) {
	one := []Entry{{12_345_678, 150_000_000}}
	if n := len(AppendEntries(nil, one)); n > 9 {
		t.Errorf("a layer of one entry takes %d bytes", n)
	}
	const members = 10_000
	room := make([]Entry, members)
	for i := range room {
		room[i] = Entry{KeyNID(12_000_000 + 3*i), EventNID(150_000_000 + 20*i)}
	}
	if n := len(AppendEntries(nil, room)); n > 2*members+20 {
		t.Errorf("a layer of %d members takes %d bytes", members, n)
	}
}

func TestDecodeRefusesDamage(t *testing.T) {
	for name, src := range map[string][]byte{
		"key without event":         {1},
		"cut varint in the key":     {0x80},
		"cut varint in the event":   {1, 0x80},
		"key 0":                     {0, 3},
		"the same key twice":        {1, 3, 0, 3},
		"event 0 by distance":       {1, 1},
		"negative event":            {1, 2},
		"key in a longer form":      {0x81, 0, 3},
		"event in a longer form":    {1, 0x83, 0},
		"removal in a longer form":  {1, 0x80, 0},
		"key over 64 bits":          {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 3},
		"key that wraps":            {5, 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 3},
		"event that wraps":          {1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1, 3},
		"good entry, then half one": {1, 3, 1},
	} {
		if got, err := DecodeEntries(src); err == nil {
			t.Errorf("%s: read as %v", name, got)
		}
	}
	if got, err := DecodeEntries(nil); err != nil || len(got) != 0 {
		t.Errorf("no bytes: %v, %v", got, err)
	}
}

func TestAppendPanicsOnImpossibleNumbers(t *testing.T) {
	for _, e := range []Entry{{0, 1}, {-1, 1}, {1, -1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v was encoded", e)
				}
			}()
			AppendEntries(nil, []Entry{e})
		}()
	}
}

// Whatever is accepted is in normal order and is encoded as it was.
func FuzzDecodeEntries(f *testing.F) {
	f.Add([]byte{})
	f.Add(AppendEntries(nil, []Entry{{1, 5}, {2, 0}, {700, 3}}))
	f.Add(AppendEntries(nil, []Entry{{math.MaxInt64, math.MaxInt64}}))
	f.Fuzz(func(t *testing.T, src []byte) {
		entries, err := DecodeEntries(src)
		if err != nil {
			return
		}
		for i, e := range entries {
			if e.Key < 1 || e.Event < 0 || i > 0 && e.Key <= entries[i-1].Key {
				t.Fatalf("entry %d: %v", i, entries)
			}
		}
		if again := AppendEntries(nil, entries); !bytes.Equal(again, src) {
			t.Fatalf("% x was read as %v, which is % x", src, entries, again)
		}
	})
}

func BenchmarkDecode100000(b *testing.B) {
	src := AppendEntries(nil, numbered(100_000).Entries())
	for range b.N {
		if _, err := DecodeEntries(src); err != nil {
			b.Fatal(err)
		}
	}
}
