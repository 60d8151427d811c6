// Package metrics is what Prometheus reads: the registry, and the counts of
// HTTP requests.
//
// Invariant: no metric is labelled by a room, a user or a remote server's own
// words, so that the number of series does not grow with use.
package metrics
