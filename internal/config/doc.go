// Package config reads the configuration: one YAML file, a few secrets from the
// environment, and defaults for everything that is not said.
//
// Invariants:
//   - A key that nobody knows, a value of the wrong kind and a file that cannot
//     be read are errors that name the file, the line, the key and what to do.
//   - A secret prints as [redacted], however it is printed.
//   - Relative paths are relative to the folder of the file.
//   - config.yaml at the root of the repository holds every key with its
//     default; a test compares it with Config.
package config
