package postroad

import (
	"postroad/internal/config"
	"postroad/internal/dns"
)

// What a program of another module needs to name in order to embed a server.

// Config is all that a config file can say; docs/config.md tells of each setting.
type Config = config.Config

// DefaultConfig returns the config of an empty file.
func DefaultConfig() Config { return config.Default() }

// LoadConfig reads the config file at path. Relative paths in it start at its own directory.
func LoadConfig(path string) (Config, error) { return config.Load(path) }

// Resolver answers where a domain's mail goes.
type Resolver = dns.Resolver

// MX is one mail exchanger of a domain.
type MX = dns.MX

// What a Resolver answers besides hosts: that there is nothing, and that the domain
// takes no mail (RFC 7505). Any other error is trouble that may pass.
var (
	ErrNoSuchName = dns.ErrNotFound
	ErrNullMX     = dns.ErrNullMX
)
