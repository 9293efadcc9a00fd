// Package chaos abuses a pair of real daemons for as long as it is told, with two
// applications on them: the lab's ledger over NBD, and PostgreSQL on ext4 on a
// device. Faults are drawn from a seed, one or two at a time; after each the pair
// must heal, every acknowledged write and every committed transaction must be
// there, and both replicas must be equal.
//
// Its operator does what a person with a rule book does: it never uses force on a
// promotion, never promotes a node while the other might serve, and notes every
// refusal with its reason. What was committed is judged by a ledger outside the
// pair.
//
// cmd/chaos (`make chaos`) is the program, TestChaos its short form. Like the lab
// it imports nothing of the product.
package chaos
