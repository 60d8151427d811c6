// Package simulation lets whole servers live through bad times, in one process and
// within a fraction of a second: people of 2, 3 or 5 servers do all kinds of things
// in a room while links between the servers are slow, lose what is sent, or are cut,
// and servers stop and start again. When all is well again, all servers must have
// come to the same room. It has nothing but tests.
//
// # What a seed determines
//
// A run is a function of its seed as far as it is in our hands:
//   - the number of servers, the version of the room, and what people do in it, when
//     and to whom;
//   - when links are cut, in which way, and when servers stop and start;
//   - how long the n-th write on a link takes, and whether it is lost, with its
//     answer or without;
//   - the time: each run has a clock of its own (testing/synctest) that moves only
//     when everybody waits for it;
//   - what servers draw by chance, such as ids, in the order in which they draw it.
//
// It does not determine in which order goroutines run that are ready at the same
// moment of that clock, the keys of servers, what TLS draws, and how Go walks through
// maps. Moments are told apart by the delays of links, which are counted in
// nanoseconds, so a run that failed most often fails again; where it does not, it
// helps to repeat it (go test -count=20), and to let no two goroutines run at the
// same time (-cpu 1).
package simulation
