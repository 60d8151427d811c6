// Package accounts knows who may act: registration, login, sessions, devices,
// passwords, and the user-interactive authentication that guards what a stolen
// token must not do.
//
// Invariants:
//   - A token exists in the clear only in the answer that hands it out. The
//     database and the memory hold its SHA-256.
//   - A warm request reads nothing: sessions are cached by token hash. The cache
//     never outlives the row: whatever ends a session publishes it in the same
//     commit, and the cache forgets it before the caller of that commit is
//     answered. A session that was read before such a commit is read again.
//   - A device has one session. Logging in under its id replaces that session;
//     refreshing keeps the old tokens only until the new ones are first used.
//   - Whether a user exists shows neither in the text, the status nor the time
//     of a failed login.
//   - A UIA session belongs to one user, one endpoint and one request body; it
//     ends when it succeeds.
//   - Password hashing is the dearest thing a stranger can ask for, so a
//     semaphore bounds how many run at once.
//
// Lock order: none of the locks here is held while another is taken, nor over
// I/O.
package accounts
