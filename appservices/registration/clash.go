package registration

import (
	"fmt"
	"regexp/syntax"
	"unicode"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Clash tells why two services cannot both be registered at a server; nil if they
// can. The error names both.
func Clash(a, b *Registration, server matrix.ServerName) error {
	switch {
	case a.ID == b.ID:
		return fmt.Errorf("there is a service with the id %q already; remove it first, or choose another id", a.ID)
	case a.ASToken == b.ASToken:
		return fmt.Errorf("services %q and %q have the same as_token; give each its own", a.ID, b.ID)
	case a.SenderLocalpart == b.SenderLocalpart:
		return fmt.Errorf("services %q and %q have the same sender_localpart %q; give each its own", a.ID, b.ID, a.SenderLocalpart)
	}
	for _, p := range [][2]*Registration{{a, b}, {b, a}} {
		if p[0].Users.MatchExclusive(string(p[1].Sender(server))) {
			return fmt.Errorf("service %q claims the sender %s of service %q for itself alone; narrow its namespaces.users, or rename the sender", p[0].ID, p[1].Sender(server), p[1].ID)
		}
	}
	for _, kind := range []struct {
		name string
		a, b Namespaces
	}{{"users", a.Users, b.Users}, {"aliases", a.Aliases, b.Aliases}, {"rooms", a.Rooms, b.Rooms}} {
		if x, y := kind.a.clash(kind.b); x != nil {
			return fmt.Errorf("services %q and %q both claim %s for themselves alone: %q and %q have identifiers in common; narrow one of them or make it exclusive: false",
				a.ID, b.ID, kind.name, x.Text, y.Text)
		}
	}
	return nil
}

func (l Namespaces) clash(others Namespaces) (a, b *Namespace) {
	for _, a := range l {
		for _, b := range others {
			if a.Exclusive && b.Exclusive && overlap(a.program, b.program) {
				return a, b
			}
		}
	}
	return nil, nil
}

// pair is a state of two programs that read the same text.
type pair struct {
	a, b  uint32
	begun bool // something was read
	ended bool // nothing more may be read
}

// overlap tells whether there is a text that both programs match. It walks the
// pairs of states that one text can lead both to. Of the conditions that read
// nothing it minds the beginning and the end of the text; word boundaries and the
// ends of lines are taken for met, so that in doubt there is an overlap.
func overlap(a, b *syntax.Prog) bool {
	start := pair{a: uint32(a.Start), b: uint32(b.Start)}
	seen := map[pair]bool{start: true}
	queue := []pair{start}
	push := func(p pair) {
		if !seen[p] {
			seen[p] = true
			queue = append(queue, p)
		}
	}
	for len(queue) > 0 {
		p := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		x, y := &a.Inst[p.a], &b.Inst[p.b]
		if x.Op == syntax.InstMatch && y.Op == syntax.InstMatch {
			return true
		}
		switch {
		case !reads(x) && x.Op != syntax.InstMatch:
			for _, n := range silentSteps(x, p.begun) {
				push(pair{n, p.b, p.begun, p.ended || ends(x)})
			}
		case !reads(y) && y.Op != syntax.InstMatch:
			for _, n := range silentSteps(y, p.begun) {
				push(pair{p.a, n, p.begun, p.ended || ends(y)})
			}
		case !p.ended && reads(x) && reads(y) && common(x, y):
			push(pair{x.Out, y.Out, true, false})
		}
	}
	return false
}

// silentSteps lists where an instruction leads that reads nothing.
func silentSteps(i *syntax.Inst, begun bool) []uint32 {
	switch i.Op {
	case syntax.InstAlt, syntax.InstAltMatch:
		return []uint32{i.Out, i.Arg}
	case syntax.InstFail:
		return nil
	case syntax.InstEmptyWidth:
		if begun && syntax.EmptyOp(i.Arg)&syntax.EmptyBeginText != 0 {
			return nil
		}
	}
	return []uint32{i.Out}
}

// ends tells whether an instruction is passed at the end of the text only.
func ends(i *syntax.Inst) bool {
	return i.Op == syntax.InstEmptyWidth && syntax.EmptyOp(i.Arg)&syntax.EmptyEndText != 0
}

func reads(i *syntax.Inst) bool {
	switch i.Op {
	case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
		return true
	}
	return false
}

// common tells whether there is a character that both instructions take. The ends
// of the ranges are enough to try: where two ranges meet, an end of one lies in the
// other.
func common(x, y *syntax.Inst) bool {
	for _, r := range append(bounds(x), bounds(y)...) {
		if x.MatchRune(r) && y.MatchRune(r) {
			return true
		}
	}
	return false
}

func bounds(i *syntax.Inst) []rune {
	switch i.Op {
	case syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
		return []rune{'a'}
	}
	return append(i.Rune[:len(i.Rune):len(i.Rune)], folded(i)...)
}

// folded are the other cases of a single letter that stands for all of them.
func folded(i *syntax.Inst) []rune {
	if len(i.Rune) != 1 || syntax.Flags(i.Arg)&syntax.FoldCase == 0 {
		return nil
	}
	var list []rune
	for r := unicode.SimpleFold(i.Rune[0]); r != i.Rune[0]; r = unicode.SimpleFold(r) {
		list = append(list, r)
	}
	return list
}
