// Command bench measures a running Teahouse over HTTP on loopback.
//
//	go run ./internal/bench                      everything, on SQLite
//	go run ./internal/bench -run send,join       some scenarios
//	go run ./internal/bench -postgres            on a private PostgreSQL cluster
//	go run ./internal/bench -short               small, for a check that all of it runs
//
// It builds the server from the checkout it is started in (or takes the one that
// -binary names), runs it as a process with rate limits off, cheap passwords and
// a database that syncs every commit to disk, and drives it with its own small
// HTTP client, so that the two share the machine's cores as little unequally as
// can be. Every figure stands beside its target.
//
// What is stated per operation is the server's CPU time from /proc, which
// depends least on what else the machine does. The rates need a quiet machine:
// "cores busy elsewhere" tells how quiet it was.
// Each scenario has users and rooms of its own, so the order does not matter
// but for the size of the database, which the later ones find larger.
//
// One file holds the scenarios of one subject: send.go, rooms.go, fanout.go,
// sync.go, push.go, memory.go, media.go, start.go, encryption.go, services.go, news.go.
// A scenario is a function that adds figures.
package main
