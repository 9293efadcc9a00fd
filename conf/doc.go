// Package conf reads the one configuration file of a cluster into typed,
// checked structs.
//
// The same TOML file stands on every node. hastd, vipd and hastctl call Load
// at their start and at a reload; `hastctl check` prints the *Errors it
// returns. Every mistake is reported in one go, each with its line, its key
// and what to write instead, because an administrator who mends a file at
// night should not have to run the check once per typo.
//
// Reading goes in three steps: the TOML decoder fills plain maps (and reports
// syntax errors), a walk over those maps checks each key by itself, and only
// when a value is understood do the checks across keys judge it. A scanner
// beside the decoder remembers on which line each key stands.
//
// The package never touches the network or a device, never looks whether a
// configured path exists, and Parse opens nothing at all: a file can be checked
// on a machine that is not one of its nodes. Secrets are not in the
// configuration, only the paths of the files that hold them; LoadKey reads the
// cluster key.
package conf
