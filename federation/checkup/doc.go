// Package checkup looks at a server as other servers do, from its name to its
// keys, and tells in plain words what they would stumble over. It asks nothing
// that needs a signature, so it can look at any server.
package checkup
