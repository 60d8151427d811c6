package inbound

// Waiting is how many events wait until something that could not be had is tried
// again.
func (in *Inbound) Waiting() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := 0
	for _, q := range in.queues {
		for _, r := range q.order {
			if r.stuck && r.tries > 0 && !r.busy {
				n++
			}
		}
	}
	return n
}

// Wake does what is done every second.
func (in *Inbound) Wake() { in.wake() }
