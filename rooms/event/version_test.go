package event

import (
	"fmt"
	"testing"
)

func TestVersionTable(t *testing.T) {
	if len(Versions()) != 12 {
		t.Fatalf("%d versions", len(Versions()))
	}
	for i, v := range Versions() {
		if got, ok := Lookup(v.ID); !ok || got != v || v.ID != fmt.Sprint(i+1) || !v.Stable {
			t.Errorf("version %d: %+v", i+1, v)
		}
	}
	if _, ok := Lookup("13"); ok {
		t.Error("unknown version found")
	}
	// from says in which version a property becomes true (or ceases to be).
	for name, row := range map[string]struct {
		get      func(*Version) bool
		from, to int
	}{
		"StrictJSON":            {func(v *Version) bool { return v.StrictJSON }, 6, 12},
		"RoomIDHash":            {func(v *Version) bool { return v.RoomIDHash }, 12, 12},
		"KeyValidity":           {func(v *Version) bool { return v.KeyValidity }, 5, 12},
		"SignedByIDHost":        {func(v *Version) bool { return v.SignedByIDHost }, 1, 2},
		"RedactKeepsOrigin":     {func(v *Version) bool { return v.RedactKeepsOrigin }, 1, 10},
		"RedactKeepsAliases":    {func(v *Version) bool { return v.RedactKeepsAliases }, 1, 5},
		"RedactKeepsAllow":      {func(v *Version) bool { return v.RedactKeepsAllow }, 8, 12},
		"RedactKeepsAuthorised": {func(v *Version) bool { return v.RedactKeepsAuthorised }, 9, 12},
		"RedactKeepsCreate":     {func(v *Version) bool { return v.RedactKeepsCreate }, 11, 12},
		"RedactKeepsInvite":     {func(v *Version) bool { return v.RedactKeepsInvite }, 11, 12},
		"RedactKeepsSigned":     {func(v *Version) bool { return v.RedactKeepsSigned }, 11, 12},
		"RedactsInContent":      {func(v *Version) bool { return v.RedactsInContent }, 11, 12},
		"AliasesRule":           {func(v *Version) bool { return v.AliasesRule }, 1, 5},
		"RedactionRule":         {func(v *Version) bool { return v.RedactionRule }, 1, 2},
		"NotificationLevels":    {func(v *Version) bool { return v.NotificationLevels }, 6, 12},
		"Knocking":              {func(v *Version) bool { return v.Knocking }, 7, 12},
		"RestrictedJoins":       {func(v *Version) bool { return v.RestrictedJoins }, 8, 12},
		"KnockRestricted":       {func(v *Version) bool { return v.KnockRestricted }, 10, 12},
		"IntegerLevels":         {func(v *Version) bool { return v.IntegerLevels }, 10, 12},
		"CreatorInContent":      {func(v *Version) bool { return v.CreatorInContent }, 1, 10},
		"CreatorPower":          {func(v *Version) bool { return v.CreatorPower }, 12, 12},
		"IDText":                {func(v *Version) bool { return v.EventIDs == IDText }, 1, 2},
		"IDBase64":              {func(v *Version) bool { return v.EventIDs == IDBase64 }, 3, 3},
		"IDURL":                 {func(v *Version) bool { return v.EventIDs == IDURL }, 4, 12},
		"StateResV1":            {func(v *Version) bool { return v.StateRes == StateResV1 }, 1, 1},
		"StateResV2":            {func(v *Version) bool { return v.StateRes == StateResV2 }, 2, 11},
		"StateResV21":           {func(v *Version) bool { return v.StateRes == StateResV21 }, 12, 12},
	} {
		for i, v := range Versions() {
			if want := i+1 >= row.from && i+1 <= row.to; row.get(v) != want {
				t.Errorf("%s of version %s is not %v", name, v.ID, want)
			}
		}
	}
}
