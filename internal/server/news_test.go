package server_test

import (
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
