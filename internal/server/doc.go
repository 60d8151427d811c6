// Package server puts the features together to one homeserver. It is the only
// place that knows all of them: features meet through the small interfaces that
// the adapters here implement.
package server
