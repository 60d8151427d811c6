package accounts

import (
	"crypto/rand"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
)

// What every request pays to be known.
func BenchmarkAuthenticate(b *testing.B) {
	d, err := db.Open(b.Context(), "sqlite://"+b.TempDir()+"/x.db", db.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	a, err := New(Deps{
		DB: d, ServerName: "tea.example", Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler), Config: Config{Passwords: cheap},
	})
	if err != nil {
		b.Fatal(err)
	}
	id, err := a.AddUser(b.Context(), NewAccount{Name: "alice"})
	if err != nil {
		b.Fatal(err)
	}
	g, err := a.newGrant(b.Context(), deviceRequest{})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := a.begin(b.Context(), id, g); err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest("GET", v3+"sync", nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Authenticate(b.Context(), r, g.access); err != nil {
			b.Fatal(err)
		}
	}
}
