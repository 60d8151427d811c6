// Package api holds the client routes that write to rooms: creating them,
// joining, inviting and leaving, sending events and state, redacting, upgrading.
// Reading back is in rooms/history, looking at rooms from outside in
// rooms/spaces.
//
// A handler decides what the request means and hands the engine protos; what a
// room allows is decided by the engine's authorisation alone.
package api
