// Command teahouse is the homeserver and what its operator needs beside it.
//
//	teahouse serve                run the server
//	teahouse check                look for mistakes before it runs
//	teahouse user add|password|deactivate|list
//	teahouse token add|list|delete
//	teahouse version
//
// Each subcommand is a file of its own. It only parses arguments and prints:
// what it does is done by internal/server and the features.
package main
