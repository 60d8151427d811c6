package server_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// TestNewsLeavesPeopleAlone switches the news service on where a person has its name:
// they keep their account, and the server runs without the service. Under another
// name it runs, again and again.
func TestNewsLeavesPeopleAlone(t *testing.T) {
	user := ""
	s := testrig.Start(t, testrig.Options{Change: func(c *config.Config) {
		c.Services.News.Enabled, c.Services.News.User = user != "", user
		c.Services.News.Database = config.DatabaseURL("sqlite://" + c.DataDir + "/news.db")
	}})
	person := s.Register("news")
	for _, user = range []string{"news", "feeds", "feeds"} {
		s = s.Restart()
		person.Must("GET", "/v3/account/whoami", nil)
		if got, want := s.Appservices.Covers("teahouse-news-inside", matrix.NewUserID(user, s.Name)), user != "news"; got != want {
			t.Errorf("%s: the service has the user: %v", user, got)
		}
	}
}

// TestNewsGivesWayToOtherServices: where another service has the user or the aliases
// of the news service, the server runs without the latter and says so. While it runs,
// nobody takes its registration away.
func TestNewsGivesWayToOtherServices(t *testing.T) {
	log := &testrig.Journal{}
	on := false
	s := testrig.Start(t, testrig.Options{Log: slog.NewTextHandler(log, nil), Change: func(c *config.Config) {
		c.Services.News.Enabled = on
		c.Services.News.Database = config.DatabaseURL("sqlite://" + c.DataDir + "/news.db")
	}})
	add := func(id, namespaces string) error {
		_, err := s.Appservices.Add(t.Context(), id, []byte("id: "+id+"\nurl: null\nas_token: as-"+id+"\nhs_token: hs-"+id+
			"\nsender_localpart: _"+id+"\nnamespaces: "+namespaces+"\n"))
		return err
	}
	const inside = "teahouse-news-inside"
	for id, namespaces := range map[string]string{
		"greedy": `{users: [{regex: '@news', exclusive: true}]}`, "eager": `{aliases: [{regex: '#news_', exclusive: true}]}`,
	} {
		on = false
		s = s.Restart()
		must(t, add(id, namespaces))
		on = true
		s = s.Restart()
		if !strings.Contains(log.String(), "the news service is off") || !strings.Contains(log.String(), id) {
			t.Errorf("the log does not tell of %s:\n%s", id, log)
		}
		if s.Appservices.Covers(inside, "@news:test") {
			t.Errorf("%s does not keep the news service away", id)
		}
		must(t, s.Appservices.Remove(t.Context(), id))
		s = s.Restart()
		if !s.Appservices.Covers(inside, "@news:test") {
			t.Errorf("the news service does not come back after %s", id)
		}
	}
	_, rotated := s.Appservices.Rotate(t.Context(), inside)
	for _, err := range []error{s.Appservices.Remove(t.Context(), inside), rotated, add(inside, "{}")} {
		if !matrix.HasCode(err, matrix.CodeInvalidParam) || !strings.Contains(err.Error(), "services.news") {
			t.Errorf("the news service within the server is changed: %v", err)
		}
	}
}
