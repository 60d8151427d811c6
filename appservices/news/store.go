package news

import (
	"github.com/teahouse-chat/teahouse/appservices/kit"
)

// In feeds, newest is the number of the newest entry and fetched tells that there was
// a first document. In subs, cursor is the number of the last entry that the room is
// not owed. In rooms, digest and quiet_* are minutes of the day, -1 for none, and
// before due the room need not be looked at; zone is the digest's, and asker who had
// the room follow something last. In posts, ref is a message of the outbox; listed ones
// share it. refused is how often the room refused the entry; less than 0 while it is
// sent again. place is the entry's number in a list, and in votes that which was
// reacted with. In published, ended is 0 for the broadcast rooms that there are.
var schema = kit.NewSchema("news", `
CREATE TABLE feeds (
	nid        INTEGER PRIMARY KEY,
	url        TEXT NOT NULL UNIQUE,
	title      TEXT NOT NULL,
	site       TEXT NOT NULL,
	etag       TEXT NOT NULL,
	modified   TEXT NOT NULL,
	body_hash  TEXT NOT NULL,
	fetched    {bool} NOT NULL,
	newest     INTEGER NOT NULL,
	next_fetch INTEGER NOT NULL,
	failures   INTEGER NOT NULL,
	since      INTEGER NOT NULL,
	told       {bool} NOT NULL,
	problem    TEXT NOT NULL
);
CREATE INDEX feeds_due ON feeds (next_fetch);
CREATE TABLE entries (
	feed       INTEGER NOT NULL,
	n          INTEGER NOT NULL,
	id         TEXT NOT NULL,
	link       TEXT NOT NULL,
	title_hash TEXT NOT NULL,
	print      TEXT NOT NULL,
	published  INTEGER NOT NULL,
	hash       TEXT NOT NULL,
	found      INTEGER NOT NULL,
	present    INTEGER NOT NULL,
	edits      INTEGER NOT NULL,
	title      TEXT NOT NULL,
	author     TEXT NOT NULL,
	html       TEXT NOT NULL,
	text       TEXT NOT NULL,
	PRIMARY KEY (feed, n)
) {without rowid};
CREATE TABLE rooms (
	room       TEXT PRIMARY KEY,
	language   TEXT NOT NULL,
	zone       TEXT NOT NULL,
	digest     INTEGER NOT NULL,
	quiet_from INTEGER NOT NULL,
	quiet_to   INTEGER NOT NULL,
	muted      TEXT NOT NULL,
	due        INTEGER NOT NULL
) {without rowid};
CREATE TABLE subs (
	room     TEXT NOT NULL,
	feed     INTEGER NOT NULL,
	cursor   INTEGER NOT NULL,
	keywords TEXT NOT NULL,
	since    INTEGER NOT NULL,
	PRIMARY KEY (room, feed)
) {without rowid};
CREATE INDEX subs_feed ON subs (feed);
CREATE TABLE posts (
	ref    INTEGER NOT NULL,
	room   TEXT NOT NULL,
	feed   INTEGER NOT NULL,
	n      INTEGER NOT NULL,
	listed {bool} NOT NULL,
	posted INTEGER NOT NULL,
	PRIMARY KEY (ref, feed, n)
) {without rowid};
CREATE INDEX posts_entry ON posts (feed, n);
CREATE INDEX posts_room ON posts (room, posted);
CREATE INDEX posts_age ON posts (posted);
CREATE TABLE votes (
	reaction TEXT PRIMARY KEY,
	ref      INTEGER NOT NULL,
	sender   TEXT NOT NULL,
	at       INTEGER NOT NULL
) {without rowid};
CREATE INDEX votes_ref ON votes (ref);
CREATE INDEX votes_age ON votes (at);
CREATE TABLE saved (
	person TEXT NOT NULL,
	link   TEXT NOT NULL,
	title  TEXT NOT NULL,
	at     INTEGER NOT NULL,
	PRIMARY KEY (person, link)
) {without rowid};
CREATE TABLE jobs (
	nid      INTEGER PRIMARY KEY,
	kind     TEXT NOT NULL,
	room     TEXT NOT NULL,
	event    TEXT NOT NULL,
	thread   TEXT NOT NULL,
	sender   TEXT NOT NULL,
	direct   {bool} NOT NULL,
	language TEXT NOT NULL,
	argument TEXT NOT NULL,
	attempts INTEGER NOT NULL,
	due      INTEGER NOT NULL
);
CREATE INDEX jobs_due ON jobs (due);
`, `
ALTER TABLE rooms ADD COLUMN quiet_zone TEXT NOT NULL DEFAULT '';
UPDATE rooms SET quiet_zone = zone;
ALTER TABLE rooms ADD COLUMN asker TEXT NOT NULL DEFAULT '';
ALTER TABLE rooms ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE posts ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
CREATE INDEX rooms_refused ON rooms (due) WHERE refused <> 0;
CREATE INDEX posts_refused ON posts (room) WHERE refused > 0;
`, `
ALTER TABLE posts ADD COLUMN place INTEGER NOT NULL DEFAULT 0;
ALTER TABLE votes ADD COLUMN place INTEGER NOT NULL DEFAULT 0;
CREATE TABLE published (
	room  TEXT PRIMARY KEY,
	url   TEXT NOT NULL,
	alias TEXT NOT NULL,
	who   TEXT NOT NULL,
	made  INTEGER NOT NULL,
	ended INTEGER NOT NULL
) {without rowid};
CREATE INDEX published_who ON published (who);
CREATE INDEX published_url ON published (url);
`)

// What is fetched.
var (
	dueFeeds  = schema.SQL(`SELECT ` + feedColumns + ` FROM feeds WHERE next_fetch <= $1 ORDER BY next_fetch LIMIT $2`)
	nextFetch = schema.SQL(`SELECT min(next_fetch) FROM feeds`)
	feedByNID = schema.SQL(`SELECT ` + feedColumns + ` FROM feeds WHERE nid = $1`)
	feedByURL = schema.SQL(`SELECT ` + feedColumns + ` FROM feeds WHERE url = $1`)
	addFeed   = schema.SQL(`INSERT INTO feeds (nid, url, title, site, etag, modified, body_hash, fetched, newest, next_fetch, failures, since, told, problem)
		VALUES ($1, $2, $3, '', '', '', '', 0, 0, $4, 0, 0, 0, '') ON CONFLICT (url) DO NOTHING`)
	fetchedFeed = schema.SQL(`UPDATE feeds SET url = $2, title = $3, site = $4, etag = $5, modified = $6, body_hash = $7, fetched = 1, newest = $8,
		next_fetch = $9, failures = 0, since = 0, told = 0, problem = '' WHERE nid = $1`)
	unchangedFeed = schema.SQL(`UPDATE feeds SET etag = $2, modified = $3, next_fetch = $4, failures = 0, since = 0, told = 0, problem = '' WHERE nid = $1`)
	failedFeed    = schema.SQL(`UPDATE feeds SET next_fetch = $2, failures = $3, since = $4, told = $5, problem = $6 WHERE nid = $1`)
	removeFeed    = schema.SQL(`DELETE FROM feeds WHERE nid = $1`)
	unused        = schema.SQL(`SELECT count(*) FROM subs WHERE feed = $1`)

	knownEntries = schema.SQL(`SELECT n, id, link, title_hash, print, published, hash FROM entries WHERE feed = $1 ORDER BY n`)
	entryDates   = schema.SQL(`SELECT published, found FROM entries WHERE feed = $1 ORDER BY n DESC LIMIT 10`)
	addEntry     = schema.SQL(`INSERT INTO entries (feed, n, id, link, title_hash, print, published, hash, found, present, edits, title, author, html, text)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, 0, $10, $11, $12, $13)`)
	changeEntry = schema.SQL(`UPDATE entries SET id = $3, link = $4, title_hash = $5, print = $6, published = $7, hash = $8, present = $9,
		title = $10, author = $11, html = $12, text = $13, edits = edits + 1 WHERE feed = $1 AND n = $2`)
	renameEntry    = schema.SQL(`UPDATE entries SET id = $3, link = $4, title_hash = $5, print = $6, published = $7, hash = $8 WHERE feed = $1 AND n = $2`)
	presentEntries = schema.SQL(`UPDATE entries SET present = $2 WHERE feed = $1 AND n IN {ints $3}`)
	entryEdits     = schema.SQL(`SELECT edits FROM entries WHERE feed = $1 AND n = $2`)
	removeEntries  = schema.SQL(`DELETE FROM entries WHERE feed = $1`)
	pruneEntries   = schema.SQL(`DELETE FROM entries WHERE feed = $1 AND present < $2 AND n < (SELECT min(cursor) FROM subs WHERE feed = $1)`)
	lastFound      = schema.SQL(`SELECT found FROM entries WHERE feed = $1 ORDER BY n DESC LIMIT 1`)
	lastEntry      = schema.SQL(`SELECT title, link FROM entries WHERE feed = $1 ORDER BY n DESC LIMIT 1`)
)

// Who follows what.
var (
	addSub     = schema.SQL(`INSERT INTO subs (room, feed, cursor, keywords, since) VALUES ($1, $2, $3, '', $4) ON CONFLICT (room, feed) DO NOTHING`)
	removeSub  = schema.SQL(`DELETE FROM subs WHERE room = $1 AND feed = $2`)
	subsOfRoom = schema.SQL(`SELECT s.feed, s.keywords, f.url, f.title, f.problem, f.fetched FROM subs AS s JOIN feeds AS f ON f.nid = s.feed
		WHERE s.room = $1 ORDER BY s.since, s.feed`)
	roomsOfFeed = schema.SQL(`SELECT s.room, r.language FROM subs AS s JOIN rooms AS r ON r.room = s.room WHERE s.feed = $1`)
	subsOfFeed  = schema.SQL(`DELETE FROM subs WHERE feed = $1`)
	firstCursor = schema.SQL(`UPDATE subs SET cursor = $2 WHERE feed = $1`)
	moveCursor  = schema.SQL(`UPDATE subs SET cursor = $3 WHERE room = $1 AND feed = $2`)
	setKeywords = schema.SQL(`UPDATE subs SET keywords = $3 WHERE room = $1 AND feed = $2`)

	addRoom = schema.SQL(`INSERT INTO rooms (room, language, zone, digest, quiet_from, quiet_to, muted, due) VALUES ($1, $2, '', -1, -1, -1, '', 0)
		ON CONFLICT (room) DO NOTHING`)
	selectRoom      = schema.SQL(`SELECT language, zone, digest, quiet_zone, quiet_from, quiet_to, muted, asker FROM rooms WHERE room = $1`)
	setDigest       = schema.SQL(`UPDATE rooms SET digest = $2, zone = $3, due = 0 WHERE room = $1`)
	setQuiet        = schema.SQL(`UPDATE rooms SET quiet_from = $2, quiet_to = $3, quiet_zone = $4, due = 0 WHERE room = $1`)
	setAsker        = schema.SQL(`UPDATE rooms SET asker = $2 WHERE room = $1`)
	setRoomLanguage = schema.SQL(`UPDATE rooms SET language = $2 WHERE room = $1`)
	setMuted        = schema.SQL(`UPDATE rooms SET muted = $2 WHERE room = $1`)
	setDue          = schema.SQL(`UPDATE rooms SET due = $2 WHERE room = $1`)
	removeRoom      = schema.SQL(`DELETE FROM rooms WHERE room = $1`)
)

// What a room is owed, and what it has got.
var (
	owedRooms = schema.SQL(`SELECT DISTINCT s.room FROM subs AS s JOIN feeds AS f ON f.nid = s.feed JOIN rooms AS r ON r.room = s.room
		WHERE s.cursor < f.newest AND r.due <= $1 AND r.refused = 0 LIMIT $2`)
	nextDue     = schema.SQL(`SELECT min(due) FROM rooms WHERE due > $1`)
	owedEntries = schema.SQL(`SELECT e.feed, e.n, f.title, f.url, s.keywords, e.link, e.title, e.author, e.html, e.text, e.found
		FROM subs AS s JOIN feeds AS f ON f.nid = s.feed JOIN entries AS e ON e.feed = s.feed AND e.n > s.cursor
		WHERE s.room = $1 AND e.found <= $2 ORDER BY e.found, e.feed, e.n LIMIT $3`)
	addPost      = schema.SQL(`INSERT INTO posts (ref, room, feed, n, listed, posted, refused, place) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`)
	removePost   = schema.SQL(`DELETE FROM posts WHERE ref = $1 AND feed = $2 AND n = $3`)
	postsOfEntry = schema.SQL(`SELECT ref FROM posts WHERE feed = $1 AND n = $2 AND listed = 0`)
	postsOfRef   = schema.SQL(`SELECT e.title, e.link, e.text FROM posts AS p JOIN entries AS e ON e.feed = p.feed AND e.n = p.n WHERE p.ref = $1 ORDER BY p.feed, p.n`)
	removePosts  = schema.SQL(`DELETE FROM posts WHERE feed = $1`)
	leavePosts   = schema.SQL(`DELETE FROM posts WHERE room = $1`)
	prunePosts   = schema.SQL(`DELETE FROM posts WHERE posted < $1 AND (refused <= 0 OR posted < $2)`)
	pruneVotes   = schema.SQL(`DELETE FROM votes WHERE at < $1`)
	addVote      = schema.SQL(`INSERT INTO votes (reaction, ref, place, sender, at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (reaction) DO NOTHING`)
	removeVote   = schema.SQL(`DELETE FROM votes WHERE reaction = $1`)
	topPosts     = schema.SQL(`SELECT e.title, e.link, max(e.text), f.title, max(f.url), count(DISTINCT v.sender) FROM posts AS p JOIN votes AS v ON v.ref = p.ref
		JOIN entries AS e ON e.feed = p.feed AND e.n = p.n JOIN feeds AS f ON f.nid = p.feed
		WHERE p.room = $1 AND p.posted >= $2 AND (p.listed = 0 OR p.place = v.place) GROUP BY p.feed, p.n, e.title, e.link, f.title
		ORDER BY count(DISTINCT v.sender) DESC, max(p.posted) DESC LIMIT $3`)
	addSaved = schema.SQL(`INSERT INTO saved (person, link, title, at) VALUES ($1, $2, $3, $4) ON CONFLICT (person, link) DO NOTHING`)
	savedOf  = schema.SQL(`SELECT title, link FROM saved WHERE person = $1 ORDER BY at DESC LIMIT 50`)
)

// Broadcast rooms.
var (
	addPublished = schema.SQL(`INSERT INTO published (room, url, alias, who, made, ended) VALUES ($1, $2, $3, $4, $5, 0) ON CONFLICT (room) DO NOTHING`)
	endPublished = schema.SQL(`UPDATE published SET ended = $2 WHERE room = $1`)
	publishedBy  = schema.SQL(`SELECT count(*) FROM published WHERE who = $1 AND (ended = 0 OR made > $2)`)
	publishedAs  = schema.SQL(`SELECT room, alias, who FROM published WHERE (url = $1 OR alias = $1) AND ended = 0`)
)

// What rooms refuse.
var (
	refusePosts   = schema.SQL(`UPDATE posts SET refused = abs(refused) + 1 WHERE ref = $1`)
	refusals      = schema.SQL(`SELECT max(refused) FROM posts WHERE ref = $1`)
	removeRefused = schema.SQL(`DELETE FROM posts WHERE ref = $1`)
	noteRefusal   = schema.SQL(`UPDATE rooms SET refused = 1, due = $2 WHERE room = $1 AND refused = 0`)
	mutes         = schema.SQL(`SELECT room, due, refused FROM rooms WHERE refused <> 0 AND due <= $1 ORDER BY due LIMIT $2`)
	leaveAlone    = schema.SQL(`UPDATE rooms SET refused = $2, due = $3 WHERE room = $1 AND due = $4`)
	heardAgain    = schema.SQL(`UPDATE rooms SET refused = 0, due = 0 WHERE room = $1`)
	lookAgain     = schema.SQL(`UPDATE rooms SET due = $2 WHERE room = $1 AND refused <> 0`)

	refusedEntries = schema.SQL(`SELECT e.feed, e.n, f.title, f.url, e.link, e.title, e.author, e.html, e.text, p.ref, p.refused
		FROM posts AS p JOIN entries AS e ON e.feed = p.feed AND e.n = p.n JOIN feeds AS f ON f.nid = p.feed
		JOIN subs AS s ON s.room = p.room AND s.feed = p.feed
		WHERE p.room = $1 AND p.refused > 0 ORDER BY e.found, e.feed, e.n LIMIT $2`)
)

// What waits to be done.
var (
	addJob      = schema.SQL(`INSERT INTO jobs (nid, kind, room, event, thread, sender, direct, language, argument, attempts, due) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0)`)
	dueJobs     = schema.SQL(`SELECT nid, kind, room, event, thread, sender, direct, language, argument, attempts FROM jobs WHERE due <= $1 ORDER BY nid LIMIT $2`)
	nextJob     = schema.SQL(`SELECT min(due) FROM jobs`)
	finishJob   = schema.SQL(`DELETE FROM jobs WHERE nid = $1`)
	postponeJob = schema.SQL(`UPDATE jobs SET attempts = attempts + 1, due = $2 WHERE nid = $1`)
)
