package db

import "context"

// MigrateAs opens a database as a program would that knows one feature only.
func MigrateAs(ctx context.Context, url, name string, migrations ...string) error {
	d, err := newDialer(url)
	if err != nil {
		return err
	}
	c, err := d.dial(ctx, true)
	if err != nil {
		return err
	}
	defer c.close()
	return migrate(ctx, c, d.engine(), []*feature{{name: name, migrations: migrations}})
}

// Render is how a text with tokens reads on SQLite and on PostgreSQL.
func Render(text string) (string, string) { return render(text, sqlite), render(text, postgres) }

// RenderDDL is Render for migrations.
func RenderDDL(text string) (string, string) {
	return renderDDL(text, sqlite), renderDDL(text, postgres)
}
