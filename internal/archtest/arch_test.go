package archtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// The module obeys every rule.
func TestModule(t *testing.T) {
	files := moduleFiles(t)
	if len(files) < 20 {
		t.Fatalf("only %d Go files were found", len(files))
	}
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		t.Run(name, func(t *testing.T) {
			for _, f := range files {
				rules[name](f, func(format string, args ...any) {
					t.Errorf("%s: %s", f.path, fmt.Sprintf(format, args...))
				})
			}
		})
	}
}

// Every rule notices what it is there for, and nothing else. An import that
// starts with a tilde is one of ours.
func TestRules(t *testing.T) {
	long := strings.Repeat("//\n", maxLines)
	for _, c := range []struct {
		rule, path, imports, body string
		broken                    int
	}{
		{"imports", "accounts/a.go", "~cmd/teahouse", "", 2},
		{"imports", "accounts/a_test.go", "~cmd/teahouse", "", 1},
		{"imports", "cmd/teahouse/a.go", "~cmd/teahouse/sub ~internal/server ~accounts", "", 0},
		{"imports", "cmd/teahouse/a.go", "~internal/testrig", "", 1},
		{"imports", "accounts/a.go", "~rooms ~rooms/event ~internal/db ~accounts/data fmt", "", 0},
		{"imports", "accounts/a.go", "~syncapi", "", 1},
		{"imports", "accounts/data/a.go", "~syncapi/token ~syncapi/other", "", 1},
		{"imports", "syncapi/token/a.go", "~internal/matrix", "", 1},
		{"imports", "accounts/a_test.go", "~syncapi ~internal/testrig ~internal/db/dbtest", "", 0},
		{"imports", "accounts/a.go", "~internal/db/dbtest", "", 1},
		{"imports", "accounts/a.go", "~internal/server", "", 1},
		{"imports", "accountsx/a.go", "", "", 1},
		{"imports", "rooms/a.go", "~accounts", "", 1},
		{"imports", "rooms/a.go", "~rooms/resolve/spec", "", 1},
		{"imports", "rooms/resolve/a_test.go", "~rooms/resolve/spec", "", 0},
		{"imports", "internal/db/a.go", "~rooms", "", 1},
		{"imports", "internal/db/a.go", "~internal/matrix ~internal/config", "", 0},
		{"imports", "internal/httpx/a.go", "~internal/server", "", 1},
		{"imports", "internal/server/a.go", "~rooms ~accounts", "", 0},
		{"imports", "internal/testrig/a.go", "~internal/server ~internal/db/dbtest ~rooms", "", 0},
		{"imports", "rooms/event/a.go", "~internal/matrix", "", 0},
		{"imports", "rooms/event/a.go", "~rooms/auth", "", 1},
		{"imports", "rooms/event/a.go", "~internal/db", "", 1},
		{"imports", "rooms/state/a.go", "~rooms/event", "", 1},
		{"imports", "rooms/resolve/a.go", "~rooms/state ~rooms/auth ~rooms/event", "", 0},
		{"imports", "rooms/resolve/a.go", "~rooms", "", 1},
		{"imports", "rooms/resolve/spec/a.go", "~rooms/resolve", "", 1},
		{"imports", "internal/matrix/a.go", "~internal/db", "", 1},
		{"imports", "appservices/news/a.go", "~appservices/kit ~appservices/news/feed", "", 0},
		{"imports", "appservices/news/a.go", "~internal/db", "", 1},
		{"imports", "appservices/pay/a.go", "~appservices/shop", "", 1},
		{"imports", "appservices/shop/a.go", "~rooms", "", 1},
		{"imports", "appservices/kit/a.go", "~internal/db ~appservices/kit/inbox", "", 0},
		{"imports", "appservices/kit/a.go", "~rooms ~appservices", "", 2},
		{"imports", "appservices/kit/a.go", "~appservices/kit/kittest", "", 1},
		{"imports", "appservices/news/a_test.go", "~appservices/kit/kittest", "", 0},
		{"imports", "appservices/a.go", "~rooms ~internal/db", "", 0},
		{"imports", "root.go", "", "", 0},

		{"purity", "rooms/event/a.go", "fmt encoding/json golang.org/x/crypto/argon2 ~internal/matrix", "", 0},
		{"purity", "rooms/event/a.go", "database/sql net/http log log/slog os os/exec", "", 6},
		{"purity", "rooms/auth/a.go", "golang.org/x/sync/errgroup github.com/tidwall/gjson", "", 2},
		{"purity", "rooms/auth/a_test.go", "os pgregory.net/rapid", "", 0},
		{"purity", "rooms/resolve/spec/a.go", "os", "", 1},
		{"purity", "internal/matrix/a.go", "net/http", "var x = http.StatusOK", 0},
		{"purity", "internal/matrix/a.go", "net/http", "var x http.Client", 1},
		{"purity", "rooms/a.go", "os net/http log/slog", "", 0},

		{"clock", "rooms/state/a.go", "time", "var x = time.Now()", 1},
		{"clock", "rooms/state/a.go", "time", "func f() { time.Sleep(time.Second) }", 1},
		{"clock", "rooms/state/a.go", "time", "var x time.Duration", 0},
		{"clock", "rooms/state/a_test.go", "time", "var x = time.Now()", 0},
		{"clock", "internal/matrix/a.go", "time", "var x = time.Now", 1},
		{"clock", "accounts/a.go", "time", "var x = time.Since(t)", 1},
		{"clock", "accounts/a.go", "time", "var x = time.NewTimer(1)", 0},
		{"clock", "accounts/a.go", "clock=time", "var x = clock.Now()", 1},
		{"clock", "accounts/a.go", ".=time", "var x = Now()", 1},
		{"clock", "appservices/kit/kittest/a.go", "time", "var x = time.Now()", 0},
		{"clock", "internal/db/a.go", "time", "var x = time.Now()", 0},

		{"chance", "accounts/a.go", "math/rand", "", 1},
		{"chance", "internal/db/a.go", "math/rand/v2", "", 1},
		{"chance", "internal/db/a_test.go", "math/rand/v2", "", 0},
		{"chance", "appservices/kit/kittest/a.go", "math/rand/v2", "", 0},
		{"chance", "internal/testrig/a.go", "math/rand/v2", "", 0},
		{"chance", "accounts/a.go", "crypto/rand", "", 0},

		{"unsafe", "rooms/auth/a.go", "unsafe", "", 1},
		{"unsafe", "rooms/event/a.go", "unsafe", "", 0},
		{"unsafe", "internal/db/a_test.go", "unsafe", "", 0},

		{"citations", "rooms/a.go", "", "// spec: client-server#get_matrixclientv3sync\nvar x int", 0},
		{"citations", "rooms/a.go", "", "// Why.\n// spec: rooms/v12#authorisation-rules\n// spec: appendices\nvar x int", 0},
		{"citations", "rooms/a.go", "", "func f() {\n\tg() // spec: rooms#feature-matrix\n}", 0},
		{"citations", "rooms/a.go", "", "// spec: client-server-api#rooms\nvar x int", 1},
		{"citations", "rooms/a.go", "", "// spec: rooms/#feature-matrix\nvar x int", 1},
		{"citations", "rooms/a.go", "", "// Spec: client-server#rooms\nvar x int", 1},
		{"citations", "rooms/a.go", "", "//spec:client-server#rooms\nvar x int", 1},
		{"citations", "rooms/a.go", "", "// spec: client-server#a, server-server#b\nvar x int", 1},
		{"citations", "rooms/a.go", "", "// spec: client-server#Rooms\nvar x int", 1},
		{"citations", "rooms/a.go", "", "var x = `\n// spec: nonsense\n`", 0},

		{"length", "rooms/a.go", "", long, 1},
		{"length", "rooms/a_test.go", "", long, 0},
		{"length", "rooms/a.go", "", "var x int", 0},
	} {
		f, err := parse(c.path, source(c.imports, c.body))
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		rules[c.rule](f, func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) })
		if len(found) != c.broken {
			t.Errorf("%s: %s importing %q with %.60q: %d problems, want %d: %q", c.rule, c.path, c.imports, c.body, len(found), c.broken, found)
		}
	}
}

// source makes a file with the imports, which are written as name=path or path.
func source(imports, body string) []byte {
	var b strings.Builder
	b.WriteString("package a\n")
	for _, imp := range strings.Fields(imports) {
		name, from, named := strings.Cut(imp, "=")
		if !named {
			name, from = "", imp
		}
		if ours, ok := strings.CutPrefix(from, "~"); ok {
			from = module + "/" + ours
		}
		fmt.Fprintf(&b, "import %s %q\n", name, from)
	}
	b.WriteString(body + "\n")
	return []byte(b.String())
}
