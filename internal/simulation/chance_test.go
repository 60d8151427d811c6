package simulation_test

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
)

// newChance is a source of what a server draws by chance.
func newChance(seed, server uint64) *chance {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	binary.LittleEndian.PutUint64(key[8:], server)
	return &chance{from: rand.NewChaCha8(key)}
}

type chance struct {
	mu   sync.Mutex
	from *rand.ChaCha8
}

func (c *chance) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.from.Read(p)
}
