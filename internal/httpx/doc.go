// Package httpx is the edge of the house: it takes HTTP requests apart for the
// features and puts their answers together.
//
// A feature declares routes with JSON or Raw and hands them to Edge.Add under
// the name of a surface. gorilla/mux tells the surfaces apart by path prefix;
// inside a surface an http.ServeMux matches, so that a request pays for the
// depth of its path and not for the number of routes.
//
// Invariants:
//   - A handler sees a request only after its token, its rate limit, its path,
//     its query and its body were checked, in this order.
//   - Percent-encoding is undone once, segment by segment: %2F inside an id
//     never splits it. Text with NUL or broken UTF-8 never reaches a handler.
//   - A field that is bound to the path or the query cannot be set by the body.
//   - Every answer that is not 2xx carries a standard error body; the cause of
//     a 5xx goes to the log, the token and the query string never do.
//   - A panic ends its own request and nothing else.
//   - What the edge remembers of its callers (rate limits) is bounded.
package httpx
