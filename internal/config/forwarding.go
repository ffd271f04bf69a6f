package config

// DKIM says how keys that sign mail live. Which there are, commands say.
type DKIM struct {
	KeepOld Duration `toml:"keep_old"`
}

// Forwarding says how mail leaves that an account or alias of ours sends on.
type Forwarding struct {
	SRS bool `toml:"srs"`
	ARC bool `toml:"arc"`
}
