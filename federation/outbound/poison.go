package outbound

// bisect goes on with half of what was refused. EDUs from memory are the first to
// go, whether or not they were to blame; mu is held.
func (q *Queues) bisect(d *destination, t *transaction) {
	d.limits = limits{len(t.events), len(t.edus)}.half()
}

// setAside goes on behind what a server refuses for ever. That server does not
// get it, all others do.
func (q *Queues) setAside(d *destination, t *transaction, err error) {
	q.metrics.aside.Inc()
	for _, it := range t.events {
		q.Log.Error("an event is refused by another server and not sent to it", "server", d.server, "event", it.ID, "room", it.RoomID, "error", err)
	}
	for _, e := range t.edus {
		q.Log.Error("an EDU is refused by another server and not sent to it", "server", d.server, "type", e.Type, "bytes", len(e.Content), "error", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.land(d)
	q.pass(d, t)
	if d.refused++; d.refused > maxRefused {
		// It answers, but takes nothing: this is no matter of single events.
		q.failed(d, &transaction{}, err, q.Now().UnixMilli())
		return
	}
	d.failures = 0
	q.launch(d)
}
