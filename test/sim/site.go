package sim

// Site is several pairs on two hosts.
type Site struct{}
