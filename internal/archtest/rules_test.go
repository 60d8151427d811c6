package archtest

import (
	"regexp"
	"slices"
	"strings"
)

// features are the folders that a user or operator could name.
var features = []string{
	"rooms", "accounts", "encryption", "syncapi", "push", "directory", "discovery",
	"media", "federation", "appservices", "admin",
}

// services run against any homeserver, so they are written with the kit alone.
var services = []string{"appservices/news", "appservices/pay", "appservices/shop"}

// wiring puts features together; only cmd and other wiring import it.
var wiring = []string{"internal/server", "internal/testrig", "internal/bench"}

// testSupport is imported by tests, and by itself.
var testSupport = []string{"internal/testrig", "internal/testca", "internal/s3test", "internal/db/dbtest", "internal/bench", "rooms/resolve/spec", "rooms/roomstest", "appservices/kit/kittest"}

// leaves are packages that a feature shares a format through: whoever takes or
// gives the feature's tokens may import them. They are pure, too.
var leaves = []string{"syncapi/token"}

// pure packages are functions from values to values. Each is listed with those
// of ours that it may import.
var pure = map[string][]string{
	"internal/matrix":    nil,
	"rooms/event":        {"internal/matrix"},
	"rooms/auth":         {"internal/matrix", "rooms/event"},
	"rooms/state":        {"internal/matrix"},
	"rooms/resolve":      {"internal/matrix", "rooms/event", "rooms/auth", "rooms/state"},
	"syncapi/token":      nil,
	"rooms/resolve/spec": {"internal/matrix", "rooms/event", "rooms/auth", "rooms/state"},
}

// rule calls broken with what is wrong with a file, and what to do instead.
type rule func(f *file, broken func(format string, args ...any))

var rules = map[string]rule{
	"imports":   checkImports,
	"purity":    checkPurity,
	"clock":     checkClock,
	"chance":    checkChance,
	"unsafe":    checkUnsafe,
	"citations": checkCitations,
	"length":    checkLength,
}

// checkImports checks the directions between our own packages. Tests may put
// packages together as they like, but nothing imports a command.
func checkImports(f *file, broken func(string, ...any)) {
	for _, imp := range f.imports {
		ours, ok := strings.CutPrefix(imp, module+"/")
		if !ok {
			continue
		}
		if within(ours, "cmd") && !within(f.dir, "cmd") {
			broken("imports %s: nothing imports a command", ours)
		}
		if f.test {
			continue
		}
		if within(ours, testSupport...) && !within(f.dir, testSupport...) {
			broken("imports %s, which is there for tests", ours)
		}
		if !mayImport(f.dir, ours) {
			broken("imports %s: see the import directions; two features meet through an interface of the one that needs it", ours)
		}
	}
	if top, _, _ := strings.Cut(f.dir, "/"); top != "." && top != "cmd" && top != "internal" && !slices.Contains(features, top) {
		broken("lies in a folder that is no feature: add %q to the features of this test if it is one", top)
	}
}

// mayImport tells whether the code of one of our folders may import another.
func mayImport(dir, ours string) bool {
	if home, allowed, ok := pureHome(dir); ok {
		return slices.Contains(allowed, ours) || within(ours, home)
	}
	plumbing := within(ours, "internal") && !within(ours, wiring...)
	for _, s := range services {
		if within(dir, s) {
			return within(ours, s, "appservices/kit")
		}
	}
	top, _, _ := strings.Cut(dir, "/")
	switch {
	case top == "." || top == "cmd" || within(dir, wiring...):
		return true
	case top == "internal":
		return plumbing
	case within(dir, "appservices/kit"):
		return plumbing || within(ours, "appservices/kit")
	default:
		return plumbing || within(ours, top, "rooms") || slices.Contains(leaves, ours)
	}
}

// pureHome finds the pure package that a folder is or lies in.
func pureHome(dir string) (home string, allowed []string, ok bool) {
	for p, list := range pure {
		if within(dir, p) && len(p) > len(home) {
			home, allowed, ok = p, list, true
		}
	}
	return home, allowed, ok
}

// checkPurity keeps SQL, HTTP, files, logs and other people's code out of the
// pure packages. internal/matrix names HTTP statuses, and that is all.
func checkPurity(f *file, broken func(string, ...any)) {
	if _, _, ok := pureHome(f.dir); !ok || f.test {
		return
	}
	for _, imp := range f.imports {
		first, _, _ := strings.Cut(imp, "/")
		switch {
		case imp == "net/http" && f.dir == "internal/matrix":
			f.uses(imp, func(member string) {
				if !strings.HasPrefix(member, "Status") {
					broken("uses http.%s in a pure package", member)
				}
			})
		case within(imp, "database", "net/http", "log", "os", "syscall", "plugin"):
			broken("imports %s in a pure package", imp)
		case strings.Contains(first, ".") && !within(imp, module, "golang.org/x/crypto"):
			broken("imports %s: pure packages live on the standard library and golang.org/x/crypto", imp)
		}
	}
}

// checkClock keeps the wall clock out of pure packages and features: a clock is
// a parameter. Pure packages have no timers either.
func checkClock(f *file, broken func(string, ...any)) {
	if f.test || within(f.dir, testSupport...) || !within(f.dir, features...) && !within(f.dir, "internal/matrix") {
		return
	}
	forbidden := []string{"Now", "Since", "Until"}
	if _, _, ok := pureHome(f.dir); ok {
		forbidden = append(forbidden, "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker")
	}
	f.uses("time", func(member string) {
		if slices.Contains(forbidden, member) || strings.HasPrefix(member, "(") {
			broken("uses time.%s: let the clock be passed in", member)
		}
	})
}

// checkChance leaves crypto/rand as the only source of chance of a running
// server.
func checkChance(f *file, broken func(string, ...any)) {
	if f.test || within(f.dir, "internal/testrig", "internal/bench", "appservices/kit/kittest") {
		return
	}
	for _, imp := range f.imports {
		if within(imp, "math/rand", "golang.org/x/exp/rand") {
			broken("imports %s: what a server draws by chance comes from crypto/rand", imp)
		}
	}
}

// checkUnsafe confines unsafe to the two places that are measured to need it.
func checkUnsafe(f *file, broken func(string, ...any)) {
	if slices.Contains(f.imports, "unsafe") && f.dir != "rooms/event" && f.dir != "internal/db" {
		broken("imports unsafe")
	}
}

var (
	mentionsSpec = regexp.MustCompile(`(?i)^//\s*spec\s*:`)
	citation     = regexp.MustCompile(`^// spec: (client-server|server-server|application-service|identity|push|appendices|rooms/v[0-9]+|rooms|olm)(#[a-z0-9_.-]+)?$`)
)

// checkCitations keeps citations of the specification in the one form that a
// search finds, each on a line of its own.
func checkCitations(f *file, broken func(string, ...any)) {
	for _, group := range f.ast.Comments {
		for _, comment := range group.List {
			if mentionsSpec.MatchString(comment.Text) && !citation.MatchString(comment.Text) {
				broken("%q: a citation looks like // spec: client-server#rooms, one a line", comment.Text)
			}
		}
	}
}

// maxLines is far above the 100 to 400 that a file should have.
const maxLines = 600

func checkLength(f *file, broken func(string, ...any)) {
	if !f.test && f.lines > maxLines {
		broken("has %d lines, more than %d: split it by subject", f.lines, maxLines)
	}
}
