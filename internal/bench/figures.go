package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
)

// figure is one result. Its target is a bound from below for rates, from above
// for everything else.
type figure struct {
	Scenario string  `json:"scenario"`
	Name     string  `json:"figure"`
	Value    float64 `json:"measured"`
	Unit     string  `json:"unit"`
	Target   float64 `json:"target,omitempty"` // 0: none, the figure explains another
	AtLeast  bool    `json:"at_least,omitempty"`
}

func (f figure) met() bool {
	if f.AtLeast {
		return f.Value >= f.Target
	}
	return f.Value <= f.Target
}

// rate adds a figure that should be high. PostgreSQL, a process of its own on
// the same cores, is asked for half.
func (b *bench) rate(name string, value float64, unit string, target float64) {
	if b.server.postgres() {
		target /= 2
	}
	b.figures = append(b.figures, figure{b.scenario, name, value, unit, target, true})
}

// cost adds a figure that should be low. The targets of costs that are paid in
// the database hold for SQLite, where they are paid in the server's process.
func (b *bench) cost(name string, value float64, unit string, target float64) {
	b.figures = append(b.figures, figure{b.scenario, name, value, unit, target, false})
}

// note adds a figure without a target.
func (b *bench) note(name string, value float64, unit string) { b.cost(name, value, unit, 0) }

func (b *bench) printJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	for _, f := range b.figures {
		if err := enc.Encode(f); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) printTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "scenario\tfigure\tmeasured\ttarget\t")
	for _, f := range b.figures {
		target, verdict := "", ""
		if f.Target != 0 {
			bound := "at most "
			if f.AtLeast {
				bound = "at least "
			}
			target, verdict = bound+number(f.Target), "missed"
			if f.met() {
				verdict = "met"
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s %s\t%s\t%s\n", f.Scenario, f.Name, number(f.Value), f.Unit, target, verdict)
	}
	return t.Flush()
}

// number shows three significant digits.
func number(v float64) string {
	switch {
	case v >= 100 || v == float64(int64(v)):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	default:
		return strconv.FormatFloat(v, 'f', 3, 64)
	}
}
