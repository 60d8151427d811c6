package token

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestSyncTokensSurviveTheTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		natural := rapid.Int64Range(0, math.MaxInt64)
		s := Sync{natural.Draw(t, "position"), natural.Draw(t, "epoch"), natural.Draw(t, "ephemeral"), natural.Draw(t, "device")}
		got, err := ParseSync(s.String())
		if err != nil || got != s {
			t.Fatalf("%v became %v, %v", s, got, err)
		}
		if p, err := ParsePoint(s.String()); err != nil || p != s.Position {
			t.Fatalf("as a point, %v became %d, %v", s, p, err)
		}
	})
}

func TestPointsSurviveTheTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.Int64().Draw(t, "position")
		if got, err := ParsePoint(Point(want)); err != nil || got != want {
			t.Fatalf("%d became %d, %v", want, got, err)
		}
	})
}

func TestWhatIsNoTokenIsRefused(t *testing.T) {
	for _, text := range []string{
		"", "s", "s1", "s1_", "s1_1", "s1_1_2", "s1_1_2_3", "s1_1_2_3_4_5", "s1_a_2_3_4", "s1_-1_2_3_4", "s1_01_2_3_4", "s1_+1_2_3_4",
		"s2_1_2_3_4", "S1_1_2_3_4", " s1_1_2_3_4", "s1_1_2_3_4 ", "s1_99999999999999999999_2_3_4", "s72594_4483_1934",
		"t1_", "t1_x", "t1_1_2", "t1_00", "t1_-0", "t2_1", "1", "-1", "s1_1__3_4",
	} {
		if s, err := ParseSync(text); err == nil {
			t.Errorf("ParseSync(%q) = %v", text, s)
		}
		if p, err := ParsePoint(text); err == nil {
			t.Errorf("ParsePoint(%q) = %d", text, p)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("s1_12_abc_3_12")
	f.Add("t1_-7")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := ParseSync(text); err == nil && s.String() != text {
			t.Fatalf("%q is read as %q", text, s)
		}
		if p, err := ParsePoint(text); err == nil && text[0] == 't' && Point(p) != text {
			t.Fatalf("%q is read as %q", text, Point(p))
		}
	})
}
