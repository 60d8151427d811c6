package kit

import (
	"fmt"
	"net/url"
	"os"

	"go.yaml.in/yaml/v3"
	"maunium.net/go/mautrix/id"
)

// FromRegistration begins a configuration with what the registration file says that
// the homeserver was given, too; domain is the homeserver's name, such as example.org.
// Homeserver and Database are still to be set.
func FromRegistration(file, domain string) (Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Config{}, fmt.Errorf("kit: the registration cannot be read: %w", err)
	}
	var r struct {
		ID      string  `yaml:"id"`
		URL     *string `yaml:"url"`
		ASToken string  `yaml:"as_token"`
		HSToken string  `yaml:"hs_token"`
		Sender  string  `yaml:"sender_localpart"`
	}
	if err := yaml.Unmarshal(text, &r); err != nil {
		return Config{}, fmt.Errorf("kit: %s is no registration: %w", file, err)
	}
	if r.Sender == "" {
		return Config{}, fmt.Errorf("kit: %s has no sender_localpart", file)
	}
	c := Config{ID: r.ID, User: id.NewUserID(r.Sender, domain), ASToken: r.ASToken, HSToken: r.HSToken}
	if r.URL != nil {
		u, err := url.Parse(*r.URL)
		if err != nil || u.Port() == "" {
			return Config{}, fmt.Errorf("kit: the url of %s names no port to listen on, as http://127.0.0.1:9999 does", file)
		}
		c.Listen = u.Host
	}
	return c, nil
}
