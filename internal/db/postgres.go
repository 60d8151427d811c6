package db

import "errors"

func newPostgresDialer(url string) (dialer, error) {
	return nil, errors.New("db: PostgreSQL is not supported yet")
}
