package main

import (
	"os"
	"testing"
)

func TestMemory(t *testing.T) {
	const meminfo = "MemTotal:       2048 kB\nMemFree:         100 kB\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"a machine", map[string]string{"/proc/meminfo": meminfo}, 2 << 20},
		{"a container", map[string]string{"/proc/meminfo": meminfo, "/sys/fs/cgroup/memory.max": "1048576\n"}, 1 << 20},
		{"a container without a limit", map[string]string{"/proc/meminfo": meminfo, "/sys/fs/cgroup/memory.max": "max\n"}, 2 << 20},
		{"a container with more than the machine has", map[string]string{"/proc/meminfo": meminfo, "/sys/fs/cgroup/memory.max": "9223372036854771712"}, 2 << 20},
		{"another system", nil, 0},
		{"nonsense", map[string]string{"/proc/meminfo": "MemTotal: lots", "/sys/fs/cgroup/memory.max": ""}, 0},
		{"a number too large", map[string]string{"/proc/meminfo": "MemTotal: 9223372036854775807 kB"}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := memory(func(name string) ([]byte, error) {
				if text, ok := tt.files[name]; ok {
					return []byte(text), nil
				}
				return nil, os.ErrNotExist
			})
			if got != tt.want {
				t.Errorf("memory is %d, want %d", got, tt.want)
			}
		})
	}
}
